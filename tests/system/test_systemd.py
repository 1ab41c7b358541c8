"""Messages to the service manager, as its socket receives them."""

from __future__ import annotations

import array
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessiond.system import systemd


class Manager:
    """A service manager's end of $NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(2)

    def heard(self) -> tuple[dict[str, str], list[int]]:
        """Return the next message, and its descriptors."""
        data, ancillary, _, _ = self.socket.recvmsg(4096, 1024)
        descriptors = array.array("i")
        for _, kind, payload in ancillary:
            if kind == socket.SCM_RIGHTS:
                descriptors.frombytes(payload)
        lines = data.decode().splitlines()
        return dict(line.split("=", 1) for line in lines), list(descriptors)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A service manager that listens."""
    one = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield one
    one.socket.close()


def test_ready_has_a_status_of_one_line(manager: Manager) -> None:
    """A newline in it would start another assignment."""
    systemd.ready("4 rules\nMAINPID=1")
    assert manager.heard()[0] == {"READY": "1", "STATUS": "4 rules MAINPID=1"}


def test_a_reload_says_when_it_began(manager: Manager) -> None:
    """Type=notify-reload requires the time, in microseconds."""
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    systemd.reloading()
    said, _ = manager.heard()
    assert said["RELOADING"] == "1"
    assert before <= int(said["MONOTONIC_USEC"]) <= before + 10_000_000


def test_a_stored_descriptor_goes_with_its_name(manager: Manager) -> None:
    """The received descriptor is the same file."""
    ours, theirs = os.pipe()
    assert systemd.store("audit", ours)
    said, (kept,) = manager.heard()
    assert said == {"FDSTORE": "1", "FDNAME": "audit", "FDPOLL": "0"}
    os.write(theirs, b"x")
    assert os.read(kept, 1) == b"x"
    for descriptor in (ours, theirs, kept):
        os.close(descriptor)


def test_a_barrier_waits_until_the_manager_has_read(manager: Manager) -> None:
    """The manager closes the descriptor after reading."""
    systemd.remove_stored("audit")
    assert manager.heard()[0] == {"FDSTOREREMOVE": "1", "FDNAME": "audit"}
    began = time.monotonic()
    child = os.fork()
    if not child:  # the manager, a moment later
        time.sleep(0.2)
        manager.heard()
        os._exit(0)
    systemd.barrier()
    took = time.monotonic() - began
    os.waitpid(child, 0)
    assert 0.2 <= took < 4


@pytest.mark.parametrize(
    ("usec", "pid", "interval"),
    [("30000000", None, 15.0), ("30000000", "us", 15.0), ("30000000", "1", None), ("", None, None)],
)
def test_the_watchdog_wants_half_its_time(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None, interval: float | None
) -> None:
    """The variable applies only to the named process."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "us" else pid)
    assert systemd.watchdog_interval() == interval


def test_a_manager_that_does_not_read_blocks_nothing(manager: Manager) -> None:
    """A message that does not fit is not sent, and a store reports that."""
    began = time.monotonic()
    for _ in range(2000):
        if not systemd.store("audit", 0):
            break
    else:
        pytest.fail("the queue never filled up")
    assert time.monotonic() - began < 3
    while True:  # messages that fit are complete
        try:
            said, descriptors = manager.heard()
        except TimeoutError:
            break
        assert said["FDNAME"] == "audit"
        os.close(descriptors[0])


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes a manager that has exited."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.ready("x")
    assert not systemd.store("audit", 0)
    assert not systemd.will_start_again()
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent/notify")
    systemd.watchdog()
    systemd.barrier()
