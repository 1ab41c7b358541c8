"""The main job on the real kernel: the stream agrees with the processes' own records."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.stream import Stream, agree, inconsistent, losses, malformed
from support.truth import WAYS, Truth, read

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]


# procfs can't distinguish two processes with one pid that start in one clock tick, and shows the
# process group at the time of reading.
NOT_BY_PROCFS = ("reuse", "pgid")


@pytest.mark.parametrize("backend", ["ebpf", "proc_connector", "procfs"])
def test_every_process_is_written_once_and_correctly(
    make_daemon: MakeDaemon, truth: Truth, backend: str
) -> None:
    """Hundreds of processes of every kind: each exec, setsid and end is correct."""
    daemon = make_daemon({"session_metadata": {"backend": backend}}).start()
    stream = Stream(daemon, exact=backend == "ebpf")
    runs = {}
    for way in WAYS:
        if backend != "ebpf" and way in NOT_BY_PROCFS:
            continue
        file = truth.file()
        truth.run_into(file, way, 20)
        runs[way] = file
    daemon.settle()
    agree(f"{way}: {p}" for way, file in runs.items() for p in stream.untrue(read(file), file))
    agree(inconsistent(daemon.documents()))
    agree(malformed(daemon))
    assert losses(daemon.documents()) == []
