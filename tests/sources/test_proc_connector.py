"""The proc connector: the data that it provides must agree with eBPF's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.truth import Record, Truth, ends, until

from sessiond.process.events import (
    Changed,
    Executed,
    Exited,
    Forked,
    Lost,
    Observed,
    ProcessEvent,
)
from sessiond.sources import Source, open_source
from sessiond.sources.procfs.reader import Procfs

pytestmark = pytest.mark.kernel

TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@pytest.fixture
def connector() -> Iterator[Source]:
    """The source, with its snapshot drained."""
    source, declined = open_source("auto", Procfs(), after="ebpf")
    assert source.name == "proc_connector"
    assert declined == []
    source.drain()
    yield source
    source.close()


def of(pid: int, events: list[ProcessEvent], kind: type[Any]) -> list[Any]:
    """Return the events of one kind of a process."""
    return [event for event in events if isinstance(event, kind) and event.facts.pid == pid]


def with_ends(source: Source, pids: set[int]) -> list[ProcessEvent]:
    """Drain until these processes have ended: wait(2) can return before the kernel reports it."""
    events: list[ProcessEvent] = []

    def ended() -> bool:
        events.extend(source.drain())
        return pids <= {event.facts.pid for event in events if isinstance(event, Exited)}

    until(ended, 5, "the ends")
    return events


def run_reading(
    source: Source, truth: Truth, way: str, count: int
) -> tuple[list[Record], list[Any]]:
    """Run processes while the source is read, as the daemon reads it."""
    told: list[Record] = []
    maker = threading.Thread(target=lambda: told.extend(truth.run(way, count)))
    maker.start()
    events: list[ProcessEvent] = []
    while maker.is_alive():
        events += source.drain()
    maker.join()
    last = ends(told)[-1].pid
    if not of(last, events, Exited):
        events += with_ends(source, {last})
    return told, events


@pytest.mark.parametrize(
    "way", ["spawn", "code", "vfork", "fork", "chain", "thread", "signal", "last_thread", "setsid"]
)
def test_forks_and_ends_are_all_there(connector: Source, truth: Truth, way: str) -> None:
    """Each process is forked once and ends once, with the status of wait(2)."""
    told, events = run_reading(connector, truth, way, 10)
    assert not [event for event in events if isinstance(event, Lost)]
    for end in ends(told):
        (forked,) = of(end.pid, events, Forked)
        (exited,) = of(end.pid, events, Exited)
        assert exited.status == end.status
        assert exited.facts.start == forked.facts.start
        # A process that ended before procfs was read starts at the kernel's report of its fork.
        assert abs(forked.facts.start // TICK - end.start) <= 1
        assert forked.facts.start <= forked.time <= exited.time


def test_living_process_is_known_in_full(connector: Source) -> None:
    """A process that is alive at its look-up has its facts and its program."""
    process = subprocess.Popen(["/bin/sleep", "60"], cwd="/usr")
    events: list[ProcessEvent] = []

    def executed() -> list[Executed]:
        events.extend(connector.drain())
        return of(process.pid, events, Executed)

    (event,) = until(executed, 5, "an exec")
    (forked,) = of(process.pid, events, Forked)
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert (forked.creator_pid, forked.facts.ppid) == (os.getpid(), os.getpid())
    assert forked.creator_start is not None
    assert event.program.executable == os.fsencode(os.path.realpath("/bin/sleep"))
    assert event.program.argv == (b"/bin/sleep", b"60")
    assert event.working_directory == b"/usr"
    (exited,) = of(process.pid, with_ends(connector, {process.pid}), Exited)
    assert exited.status == signal.SIGTERM


def test_program_that_is_gone_is_unknown(connector: Source) -> None:
    """The first of two execs has no program if the second one preceded its look-up."""
    with subprocess.Popen(
        ["/bin/sh", "-c", "exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdout.read(1)  # the second program runs
        first, second = of(process.pid, connector.drain(), Executed)
        process.stdin.close()
    assert (first.program.executable, first.program.args) == (None, None)
    assert second.program.argv == (b"cat",)


def test_changes_of_session_and_ids(connector: Source) -> None:
    """setsid(2) and setuid(2) are reported with their effects."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.setgid(65534)
        os.setuid(65534)
        os._exit(0)
    os.waitpid(pid, 0)
    session, group, user = of(pid, connector.drain(), Changed)
    assert (session.what, session.facts.sid, session.facts.pgid) == ("session", pid, pid)
    assert (group.what, group.facts.egid) == ("ids", 65534)
    assert (user.what, user.facts.euid, user.facts.egid) == ("ids", 65534, 65534)


def test_who_is_gone_had_its_effective_ids_saved_by_its_exec(connector: Source) -> None:
    """procfs no longer has them, but execve(2) always saves the effective ids."""
    pid = os.fork()
    if pid == 0:
        os.setresgid(65534, 65534, 0)
        os.setresuid(65534, 65534, 0)
        os.execv("/bin/true", ["true"])
    os.waitpid(pid, 0)
    (executed,) = of(pid, connector.drain(), Executed)
    assert (executed.facts.suid, executed.facts.sgid) == (65534, 65534)


def test_threads_are_not_processes(connector: Source) -> None:
    """Threads that start and end cause no event."""
    code = (
        "import threading\n"
        "for _ in range(20): t = threading.Thread(target=int); t.start(); t.join()"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    process.wait()
    events = with_ends(connector, {process.pid})
    assert len(of(process.pid, events, Forked)) == len(of(process.pid, events, Exited)) == 1


def test_overrun_is_counted(truth: Truth, kernel_lock: None) -> None:
    """Lost messages are counted from gaps in the kernel's sequence numbers."""
    source: Any = open_source("proc_connector", Procfs())[0]
    source.drain()
    source._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    truth.run("spawn", 300)
    events: list[ProcessEvent] = []

    def lost() -> int:
        events.extend(source.drain())
        truth.run("spawn", 1)  # after the gap, on any CPU
        return sum(event.number for event in events if isinstance(event, Lost))

    assert lost() > 0
    until(lambda: lost() > 500, 10, "the numbers of both CPUs")
    source.close()
    assert len([event for event in events if isinstance(event, Forked)]) < 300


def test_a_dead_socket_is_an_error() -> None:
    """Any error except a loss of messages ends the source, instead of being retried forever."""
    source: Any = open_source("proc_connector", Procfs())[0]
    source.drain()
    with open(os.devnull, "rb") as null:
        os.dup2(null.fileno(), source.fileno())
    with pytest.raises(OSError, match="non-socket"):
        source.drain()
    source.close()


def test_snapshot_comes_first() -> None:
    """The first drain has the older processes, and the resnapshot has them again."""
    source, _ = open_source("proc_connector", Procfs())
    for events in (source.drain(), source.resnapshot()):
        assert os.getpid() in [event.facts.pid for event in events if isinstance(event, Observed)]
    source.close()
