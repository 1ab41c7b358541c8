"""An ordinary user attacks: the daemon stays up, and tells the truth of all others."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.attacks import Attacks, peak_memory
from support.daemon import Daemon, value
from support.truth import until

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]
MIB = 1 << 20


@contextmanager
def attacking(attacks: Attacks, way: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run an attack, and end all of its processes at the end."""
    process = attacks.start(way, *arguments)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def first_line(process: subprocess.Popen[bytes]) -> str:
    """Wait until the attack says that it is on."""
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def test_arguments_can_not_fill_the_memory(make_daemon: MakeDaemon, attacks: Attacks) -> None:
    """300 processes with nine programs each, of 32 KB of short arguments, across a restart."""
    daemon = make_daemon().start()
    with attacking(attacks, "arguments", 300, 9, 32_768, 300) as attack:
        assert first_line(attack) == "all"
        subprocess.run(["/bin/true", "after-the-flood"], check=True)
        until(lambda: daemon.find(process__args=["/bin/true", "after-the-flood"]), 60, "its exec")
        assert peak_memory(daemon.pid) < 128 * MIB
        assert daemon.stop() == 0
        daemon.start()
        assert peak_memory(daemon.pid) < 128 * MIB
    lines = daemon.output.read_bytes().splitlines(keepends=True)
    assert max(map(len, lines)) <= 32_768
    assert any(value(each, "sessiond.truncated") for each in daemon.find(event__action="exec"))
