"""The main job on the real kernel: the stream says what the processes say of themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.stream import Stream, inconsistent, losses, malformed
from support.truth import WAYS, Truth, read

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]


@pytest.mark.parametrize("backend", ["ebpf"])
def test_every_process_is_told_once_and_truly(
    make_daemon: MakeDaemon, truth: Truth, backend: str
) -> None:
    """Hundreds of processes, made in every way there is: each exec, setsid and end is right."""
    daemon = make_daemon({"session_metadata": {"backend": backend}}).start()
    stream = Stream(daemon)
    runs = {}
    for way in WAYS:
        file = truth.file()
        truth.run_into(file, way, 20)
        runs[way] = file
    daemon.settle()
    problems = [f"{way}: {p}" for way, f in runs.items() for p in stream.untrue(read(f), f)]
    assert problems == []
    assert inconsistent(daemon.documents()) == []
    assert malformed(daemon) == []
    assert losses(daemon.documents()) == []
