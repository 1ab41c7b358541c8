"""The kernel's proc connector: fork, exec, exit and changes of ids, without BPF.

The connector (linux/cn_proc.h) reports the pid of an event; the source reads the rest from procfs
at once. For a process that has ended by then it reports the values inherited at the fork.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sessiond.errors import SourceUnavailableError
from sessiond.process.events import (
    Changed,
    Executed,
    Exited,
    Facts,
    Forked,
    Lost,
    Observed,
    ProcessEvent,
    Program,
)
from sessiond.sources.lookup import ProcessLookup, same_process
from sessiond.system.netlink import (
    PROC_EVENT_EXEC,
    PROC_EVENT_EXIT,
    PROC_EVENT_FORK,
    PROC_EVENT_GID,
    PROC_EVENT_NONE,
    PROC_EVENT_SID,
    PROC_EVENT_UID,
    ProcEventSocket,
)
from sessiond.units import TICK

# struct nlmsghdr (16 bytes), struct cn_msg (idx, val, seq, ack, len, flags), then struct proc_event
# (what, cpu, timestamp_ns) and up to six numbers of its union.
_MESSAGE = struct.Struct("=16x8xI8xIIQ")
_NUMBERS = struct.Struct("=6I")
_RECEIVE_BUFFER = 8 << 20
_DATAGRAM = 4096
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; needs CAP_NET_ADMIN


class _Message(NamedTuple):
    what: int
    time: int  # ns of CLOCK_BOOTTIME
    numbers: tuple[int, ...]


@dataclass(slots=True)
class _Alive:
    """A process as last known, with the number of its threads when they were counted.

    ``announced`` says that its fork was reported, or preceded the subscription: until then, events
    of its pid up to ``counted`` belong to the previous holder of the pid.
    """

    seen: Observed
    threads: int = 1
    counted: int = 0
    announced: bool = True

    def came_after(self, when: int) -> bool:
        """Return whether an event at ``when`` belongs to an earlier holder of the pid."""
        return not self.announced and when <= self.counted


# The resolution of dates, in which two starts must differ.
_MICROSECOND = 1000
# Number of ended processes that are kept, besides those of the last two ticks.
_MAX_ENDED = 4096
UNKNOWN_GROUP = 0  # process group unknown
_UNKNOWN_PROGRAM = Program(b"", None, None, None)


class ProcConnectorSource:
    """Every fork, exec and exit from the proc connector, completed from procfs.

    Start times come from procfs, in ticks; a process that reuses a pid within the same tick still
    gets a different start. The connector reports the creator as the parent, also under
    CLONE_PARENT, and does not report changes of a process group. A process that ends before procfs
    is read has no program.
    """

    name = "proc_connector"
    exact = True
    set_aside = ""
    remark = ""
    adopted = False
    passes_input = False
    unread = 0
    degraded = (
        "what a process that ends at once executed is unknown",
        "start times are exact to a clock tick only",
        "changes of the process group are seen at the next exec",
    )

    def __init__(self, procfs: ProcessLookup, *, proc: Path = Path("/proc")) -> None:
        """Subscribe, then take the snapshot. Raises SourceUnavailableError."""
        self._procfs = procfs
        self._proc = proc
        self._socket = _subscription()
        self._socket.setblocking(False)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except PermissionError:  # then limited by net.core.rmem_max
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self.malformed = 0
        self._expected: dict[int, int] = {}  # cpu -> the next sequence number
        self._ahead = 0  # losses reported before the sequence numbers showed them
        self._alive: dict[int, _Alive] = {}
        self._ended: dict[int, int] = {}  # pid -> start of its last holder
        self._subscribed = _now()
        self._pending = self.resnapshot()

    @property
    def descriptors(self) -> list[int]:
        """Return none: a new subscription is cheap, and the socket's buffer small."""
        return []

    def fileno(self) -> int:
        """Return the socket's descriptor. Drain once before you wait for it."""
        return self._socket.fileno()

    def drain(self) -> list[ProcessEvent]:
        """Return the events since the last call, in the kernel's order; never block.

        Raises OSError if the socket is unusable.
        """
        events, self._pending = self._pending, []
        messages, lost = self._receive()
        # The procfs data of a pid belongs to its last fork or exec in this batch.
        last_exec = {
            message.numbers[3 if message.what == PROC_EVENT_FORK else 1]: index
            for index, message in enumerate(messages)
            if message.what in (PROC_EVENT_EXEC, PROC_EVENT_FORK)
        }
        for index, message in enumerate(messages):
            event = self._event(message, last_exec.get(message.numbers[1]) == index)
            if event is not None:
                events.append(event)
        if lost:
            events.append(Lost(_now(), "event", lost))
        return events

    def check(self) -> None:
        """Do nothing: a read of the socket fails if it is gone."""

    def resnapshot(self) -> list[ProcessEvent]:
        """Return every process as procfs shows it now: for the start, and after a loss."""
        snapshot = self._procfs.snapshot()
        known, self._alive = self._alive, {}
        for index, seen in enumerate(snapshot):
            pid, start = seen.facts.pid, seen.facts.start
            before = known.get(pid)
            announced = start < self._subscribed - TICK
            if before is not None and same_process(before.seen.facts.start, start):
                announced = before.announced
                facts = seen.facts._replace(start=before.seen.facts.start)
                snapshot[index] = seen = seen._replace(facts=facts)
            self._alive[pid] = _Alive(seen, self._threads(pid), _now(), announced)
        return list(snapshot)

    def close(self) -> None:
        """Unsubscribe by closing the socket."""
        self._socket.close()

    def _threads(self, pid: int) -> int:
        try:
            return sum(1 for _ in (self._proc / str(pid) / "task").iterdir())
        except OSError:
            return 1  # ended, or hidden

    def _receive(self) -> tuple[list[_Message], int]:
        messages: list[_Message] = []
        lost = 0
        # The connector uses CLOCK_MONOTONIC, which stops while the host is suspended.
        ahead = _now() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        while True:
            try:
                data = self._socket.recv(_DATAGRAM)
            except BlockingIOError:
                return messages, lost
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise  # the socket is unusable
                # At least one message is lost; the sequence numbers will show how many.
                lost, self._ahead = lost + 1, self._ahead + 1
                continue
            if len(data) < _MESSAGE.size + _NUMBERS.size:
                self.malformed += 1
                continue
            sequence, what, cpu, monotonic = _MESSAGE.unpack_from(data)
            if what == PROC_EVENT_NONE:
                continue
            gap = (sequence - self._expected.get(cpu, sequence)) & 0xFFFFFFFF
            known = min(gap, self._ahead)
            lost, self._ahead = lost + gap - known, self._ahead - known
            self._expected[cpu] = (sequence + 1) & 0xFFFFFFFF
            numbers = _NUMBERS.unpack_from(data, _MESSAGE.size)
            messages.append(_Message(what, monotonic + ahead, numbers))

    def _event(self, message: _Message, newest_exec: bool) -> ProcessEvent | None:
        what, when, numbers = message
        if what == PROC_EVENT_FORK:
            return self._forked(when, *numbers[1:4])
        pid, tgid = numbers[:2]
        if what == PROC_EVENT_EXEC:
            return self._executed(when, tgid, newest_exec)
        if what == PROC_EVENT_EXIT:
            return self._thread_ended(when, pid, tgid, numbers[2])
        known = self._alive.get(tgid)
        if known is None or pid != tgid or known.came_after(when):
            return None
        if what not in (PROC_EVENT_SID, PROC_EVENT_UID, PROC_EVENT_GID):
            return None
        seen = self._lookup(tgid, known.seen.facts.start) or known.seen
        facts = seen.facts
        if what == PROC_EVENT_SID:
            facts = facts._replace(sid=tgid, pgid=tgid, tty_major=0, tty_minor=0)
        elif what == PROC_EVENT_UID:
            facts = facts._replace(uid=numbers[2], euid=numbers[3])
        else:
            facts = facts._replace(gid=numbers[2], egid=numbers[3])
        known.seen = seen._replace(facts=facts)
        return Changed(when, facts, "session" if what == PROC_EVENT_SID else "ids")

    def _lookup(self, pid: int, start: int) -> Observed | None:
        """Return the process from procfs, if it is the one with that ``start``."""
        seen = self._procfs.lookup(pid)
        if seen is None or not same_process(start, seen.facts.start):
            return None
        return seen._replace(facts=seen.facts._replace(start=start))

    def _start_of(self, pid: int, start: int) -> int:
        """Return the start of a new process, different from an earlier holder's in this tick."""
        before = self._ended.get(pid)
        if before is not None and before // TICK == start // TICK:
            return before + _MICROSECOND
        return start

    def _forked(self, when: int, parent: int, child_pid: int, child: int) -> ProcessEvent | None:
        if child_pid != child:
            known = self._alive.get(child)
            if known is not None and when > known.counted:
                known.threads += 1
            return None
        creator = self._alive.get(parent)
        # The process started just before the message: in the same tick, except for one in about
        # 500.
        seen = self._procfs.lookup(child)
        if seen is not None and seen.facts.start // TICK not in (when // TICK, when // TICK - 1):
            seen = None
        if seen is None:
            if creator is None:
                return None
            seen = _inherited(creator.seen, child, when)
        elif creator is not None:
            seen = _in_session(seen, creator.seen.facts.sid)
        own_start = self._start_of(child, seen.facts.start)
        seen = seen._replace(facts=seen.facts._replace(start=own_start))
        self._alive[child] = _Alive(seen)
        start = creator.seen.facts.start if creator else None
        return Forked(when, seen.facts, parent, start, seen.program.comm, seen.working_directory)

    def _executed(self, when: int, pid: int, newest: bool) -> ProcessEvent | None:
        known = self._alive.get(pid)
        if known is None:
            seen = self._procfs.lookup(pid)
            if seen is not None and seen.facts.start > when:
                return None  # the process received its pid after that
        elif known.came_after(when):
            return None
        else:
            seen = self._lookup(pid, known.seen.facts.start)
        if known is not None and seen is None:
            facts = known.seen.facts
            facts = facts._replace(
                pgid=UNKNOWN_GROUP if _may_be_a_job(known.seen) else None,
                suid=facts.euid,  # execve(2) copies the effective ids to the others
                fsuid=facts.euid,
                sgid=facts.egid,
                fsgid=facts.egid,
            )
            seen = known.seen._replace(program=_UNKNOWN_PROGRAM, facts=facts)
        if seen is None:
            return None
        if known is not None:
            seen = _in_session(seen, known.seen.facts.sid)
        if not newest:  # procfs shows a later exec
            seen = seen._replace(program=_UNKNOWN_PROGRAM)
        self._alive[pid] = _Alive(seen)
        return Executed(when, seen.facts, seen.program, seen.working_directory)

    def _thread_ended(self, when: int, pid: int, tgid: int, status: int) -> ProcessEvent | None:
        known = self._alive.get(tgid)
        if known is None or known.came_after(when):
            return None
        if when <= known.counted and (pid != tgid or known.threads > 1):
            return None  # the thread was not counted
        known.threads -= 1
        if known.threads > 0:
            return None
        del self._alive[tgid]
        if len(self._ended) > _MAX_ENDED:
            self._ended = {pid: at for pid, at in self._ended.items() if at > when - 2 * TICK}
        self._ended[tgid] = known.seen.facts.start
        # The last thread has the group's status: exit_group(2) and signals set it for all threads.
        return Exited(when, known.seen.facts, status)


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _may_be_a_job(process: Observed) -> bool:
    """Return whether a shell may have moved a new process to another group (it has a terminal).

    Otherwise its group is that of the process that forked it.
    """
    return bool(process.facts.tty_major or process.facts.tty_minor)


def _in_session(seen: Observed, sid: int | None) -> Observed:
    """Return a looked-up process as it was before a setsid whose event is still to come."""
    if seen.facts.sid == sid or sid is None:
        return seen
    return seen._replace(facts=seen.facts._replace(sid=sid, pgid=UNKNOWN_GROUP))


def _inherited(creator: Observed, pid: int, when: int) -> Observed:
    """Return a child that has already ended, with its inherited values."""
    facts: Facts = creator.facts._replace(
        pid=pid,
        start=when // TICK * TICK,
        ppid=creator.facts.pid,
        parent_start=creator.facts.start,
        vpid=None,
        pid_namespace=None,
        mount_namespace=None,
        user_namespace=None,
        network_namespace=None,
    )
    return creator._replace(time=when, facts=facts)


def _subscription() -> socket.socket:
    # pyroute2's sockets run their own event loop, which can't run inside the daemon's: hence the
    # thread. The subscription belongs to the kernel's socket, which the duplicate keeps open.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_subscribe).result()


def _subscribe() -> socket.socket:
    control = ProcEventSocket()
    try:
        control.bind()
        _check_answer(control.control(listen=True))
        return socket.socket(fileno=socket.dup(control.fileno()))
    except OSError as error:
        raise SourceUnavailableError(
            "proc_connector",
            f"the kernel refused to report processes ({error.strerror or error})",
            "grant CAP_NET_ADMIN (not needed since Linux 6.6) in the host's network namespace",
        ) from None
    finally:
        control.close()


def _check_answer(answers: Iterable[object]) -> None:
    if not tuple(answers):
        raise OSError(0, "no answer to the subscription")
