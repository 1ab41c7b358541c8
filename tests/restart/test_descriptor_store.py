"""The descriptor store, as the service manager sees it on its notification socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessiond.restart.descriptor_store import DescriptorStore
from sessiond.system import systemd


class Manager:
    """The manager's end of the notification socket."""

    def __init__(self, address: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        self._socket.setblocking(False)

    def told(self) -> list[str]:
        """Return the messages since the last call, each on one line; descriptors are closed."""
        messages: list[str] = []
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 8)
            except BlockingIOError:
                return messages
            for descriptor in descriptors:
                os.close(descriptor)
            messages.append(data.decode().replace("\n", " "))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Source:
    """A process source with two descriptors."""

    name = "ebpf"
    set_aside = ""
    remark = ""

    def __init__(self, *descriptors: int) -> None:
        self.descriptors = list(descriptors)


class Socket:
    """An audit socket."""

    def __init__(self, descriptor: int, *, multicast: bool = False) -> None:
        self.multicast = multicast
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._descriptor


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A service manager that listens."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    one = Manager(tmp_path / "notify")
    yield one
    one.close()


def test_the_socket_in_use_is_kept_and_no_other(manager: Manager) -> None:
    """The registered socket and the multicast socket have different names."""
    DescriptorStore().keep_audit(Socket(0))
    assert manager.told() == [
        "FDSTOREREMOVE=1 FDNAME=audit",
        "FDSTORE=1 FDNAME=audit FDPOLL=0",
        "FDSTOREREMOVE=1 FDNAME=audit-listener",
    ]


def test_the_order_of_the_tracers_descriptors_is_kept(manager: Manager) -> None:
    """The store does not preserve order, so the names contain it."""
    DescriptorStore().keep_source(Source(0, 1))
    assert manager.told() == [
        "FDSTORE=1 FDNAME=tracer-00 FDPOLL=0",
        "FDSTORE=1 FDNAME=tracer-01 FDPOLL=0",
    ]


def test_a_source_that_replaces_another_one_replaces_its_descriptors(manager: Manager) -> None:
    """A source without stored descriptors leaves none in the store."""
    handover = DescriptorStore()
    handover.keep_source(Source(0))
    manager.told()
    handover.keep_source(Source())
    assert manager.told() == ["FDSTOREREMOVE=1 FDNAME=tracer-00"]


@pytest.mark.parametrize(
    ("job", "again"),
    [("", True), ("7 a.service restart running", True), ("7 a.service stop running", False)],
    ids=["no job", "restart", "stop"],
)
def test_only_a_stop_is_permanent(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, again: bool
) -> None:
    """An automatic restart has no job; a stop has one."""
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f"#!/bin/sh\necho '{job}'\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SESSIOND_UNIT", "a.service")
    assert systemd.will_start_again() is again


def test_without_an_answer_the_stop_is_permanent(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Remaining rules are worse than a gap; without a unit the manager is not asked."""
    assert not systemd.will_start_again()
    monkeypatch.setenv("SESSIOND_UNIT", "a.service")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not systemd.will_start_again()
