"""The two sides of one thing that happened: the process source's and audit's, each in its time.

Each join has the same five verbs. ``hold`` keeps the side that came first. ``match`` takes it out
when the other side comes. ``expire`` takes out what has waited long enough, ``flush`` everything,
and ``snapshot`` returns what a restart needs.

Times are ns since boot. The process source's side waits for audit until ``Hearing`` says that audit
has nothing more to tell about that moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from sessiond.audit.reassembler import AuditEvent
from sessiond.audit.record import Arguments, arguments, number
from sessiond.process.events import Program, join_args
from sessiond.process.table import Process, State
from sessiond.units import MILLISECOND, SECOND, TICK

# How long one side waits for the other. Both leave the kernel within microseconds of each other;
# what takes time is how they are read.
HOLD: Final = 250 * MILLISECOND
# How long it waits at the most while the audit socket is behind.
HOLD_BEHIND: Final = 10 * SECOND
# An exit_group can precede the end of its last thread by as long as that takes to unwind.
HOLD_EXIT_GROUP: Final = 5 * SECOND
# How much of an argv tells one exec of a process from the next, in bytes.
COMPARED_ARGS: Final = 4096


class Hearing:
    """How far audit has been heard: up to when it has told all that it will tell.

    The kernel queues records in the order in which they are made. So everything of a moment has
    come when the socket was seen empty after it, or when an event that is younger has come.
    """

    __slots__ = ("drained", "latest")

    def __init__(self) -> None:
        """Begin with nothing heard."""
        self.drained = 0  # when the socket was last seen empty
        self.latest = 0  # the stamp of the youngest event that came

    def heard(self, now: int) -> int:
        """Return until when audit was heard: ``now``, but for a socket that is behind."""
        return min(now, max(self.drained, now - HOLD_BEHIND))

    def is_done(self, time: int, now: int) -> bool:
        """Tell whether audit has, at ``now``, nothing more to tell about ``time``."""
        due = time + HOLD
        return due <= now and (
            self.drained >= time or self.latest >= due or time + HOLD_BEHIND <= now
        )


class Waiting:
    """An audit event that waits for the process source until ``due``."""

    __slots__ = ("due", "event")

    def __init__(self, due: int, event: AuditEvent) -> None:
        """Hold ``event`` until ``due`` at the latest."""
        self.due = due
        self.event = event


class ExecJoin:
    """Execs that one side has told."""

    def __init__(self) -> None:
        """Begin with none."""
        self._events: deque[Waiting] = deque()
        self._execs: dict[State, Process] = {}

    def __len__(self) -> int:
        """Return how many audit events wait."""
        return len(self._events)

    def hold(self, process: Process, state: State) -> None:
        """Keep an exec that the source told: the process, and the state that it led to."""
        self._execs[state] = process

    def hold_event(self, event: AuditEvent, due: int) -> None:
        """Keep an exec that audit told before the source did, until ``due``."""
        self._events.append(Waiting(due, event))

    def match(
        self, event: AuditEvent, holders: Iterable[Process], begin: int, *, any_args: bool = False
    ) -> tuple[Process, State] | None:
        """Return the state that an audited exec led to, and its process, None if none is known yet.

        ``holders`` are those that had the pid; without a stamp to compare, the state began after
        ``begin``. Execs of one process can bear the same stamp, and records of one of them be lost:
        so the argv must be the same, too, unless ``any_args``. Each state is matched once.
        """
        found: tuple[Process, State] | None = None
        argv = None if any_args else arguments(event.records, COMPARED_ARGS)
        for process in holders:
            # The oldest that fits: audit events come in the order of the execs.
            for state in reversed(process.states):
                if not state.executed or state.claimed:
                    continue
                if state.audit_time is None:
                    if state.time >= begin:
                        found = process, state
                elif state.audit_time == event.time and (
                    argv is None or _may_have(state.program, argv)
                ):
                    found = process, state
        if found is not None:
            found[1].claimed = True
            self._execs.pop(found[1], None)
        return found

    def take_events(self) -> list[Waiting]:
        """Take out the audit events: the source has told something new that may match them."""
        if not self._events:
            return []
        events, self._events = list(self._events), deque()
        return events

    def of(self, process: Process, before: int | None = None) -> list[State]:
        """Take out the execs of one process that wait, those ``before`` a time, oldest first."""
        if not self._execs:
            return []
        states = [
            state
            for state in process.states
            if state in self._execs and (before is None or state.time < before)
        ]
        for state in states:
            del self._execs[state]
        return states

    def events_of(self, pid: int) -> list[AuditEvent]:
        """Take out the audit events of a pid: the source has told more, and not their execs."""
        if not self._events:
            return []
        found = [each for each in self._events if number(each.event.call.pid) == pid]
        for waiting in found:
            self._events.remove(waiting)
        return [waiting.event for waiting in found]

    def expire(self, now: int, hearing: Hearing) -> list[tuple[Process, State]]:
        """Take out the execs about which audit has nothing more to tell."""
        done = []
        for state, process in self._execs.items():
            if not hearing.is_done(state.time, now):
                break
            done.append((process, state))
        for _, state in done:
            del self._execs[state]
        return done

    def expire_events(self, now: int) -> list[AuditEvent]:
        """Take out the audit events that the source has not told in time."""
        events = []
        while self._events and self._events[0].due <= now:
            events.append(self._events.popleft().event)
        return events

    def flush(self) -> tuple[list[AuditEvent], list[tuple[Process, State]]]:
        """Take out everything: audit's events, and the source's execs."""
        execs = [(process, state) for state, process in self._execs.items()]
        self._execs.clear()
        return [waiting.event for waiting in self.take_events()], execs

    def snapshot(self) -> tuple[list[Waiting], list[tuple[Process, State]]]:
        """Return the audit events and the execs that wait."""
        return list(self._events), [(process, state) for state, process in self._execs.items()]

    def is_overdue(self, now: int) -> bool:
        """Whether an exec has waited for audit for longer than usual at ``now``."""
        return any(state.time + HOLD <= now for state in islice(self._execs, 1))

    def deadline(self) -> int | None:
        """Return when ``expire`` or ``expire_events`` has something to do, None for never."""
        first = next((state.time + HOLD for state in self._execs), None)
        if not self._events:
            return first
        return self._events[0].due if first is None else min(first, self._events[0].due)


def _may_have(program: Program, argv: Arguments) -> bool:
    """Tell whether an argv, of which either side may know a part only, is that of a program."""
    known = program.args
    if not known or not argv.values:
        return True
    told = join_args(argv.values)
    if not argv.whole:
        told = told[:-1]
    return known.startswith(told) or told.startswith(known)


class EndJoin:
    """Ends of processes, and the exit_group events that announce them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._ends: dict[Process, int] = {}
        self._events: dict[Process, Waiting] = {}

    def __len__(self) -> int:
        """Return how many audit events wait."""
        return len(self._events)

    def hold(self, process: Process, time: int) -> None:
        """Keep an end that the source told of ``time``.

        What audit has to tell about the process is told before its end, however it ended.
        """
        self._ends[process] = time

    def hold_event(self, process: Process, event: AuditEvent, now: int) -> None:
        """Keep an exit_group of a process that has not ended yet."""
        self._events[process] = Waiting(now + HOLD_EXIT_GROUP, event)

    def awaits(self, process: Process) -> bool:
        """Whether the end of the process waits for audit."""
        return process in self._ends

    def is_announced(self, process: Process) -> bool:
        """Whether an exit_group of the process waits for its end."""
        return process in self._events

    def caller(self, holders: Iterable[Process], time: int) -> Process | None:
        """Return who called exit_group at ``time``: of several with the pid the first unmatched."""
        found = None
        for process in holders:
            if process.start > time + TICK or (process.end is not None and process.end < time):
                continue
            if process in self._events:
                continue
            if found is None or process.end is None or self._awaits_event(process):
                found = process
        return found

    def _awaits_event(self, process: Process) -> bool:
        """Tell whether an ended process called exit_group, and the audit event is yet to come."""
        killed = (process.status or 0) & 0x7F
        return process in self._ends and process.group_exit is not False and not killed

    def match(self, process: Process) -> bool:
        """Take out the end that an exit_group has announced; return whether it was there."""
        return self._ends.pop(process, None) is not None

    def match_event(self, process: Process) -> AuditEvent | None:
        """Take out the exit_group that has announced an end, None where none has."""
        waiting = self._events.pop(process, None)
        return None if waiting is None else waiting.event

    def expire(self, now: int, hearing: Hearing) -> list[Process]:
        """Take out the ends about whose processes audit has nothing more to tell."""
        done = []
        for process, time in self._ends.items():
            if not hearing.is_done(time, now):
                break
            done.append(process)
        for process in done:
            del self._ends[process]
        return done

    def expire_events(self, now: int) -> list[tuple[Process, AuditEvent]]:
        """Take out the exit_groups whose ends have not come in time."""
        done = []
        for process, waiting in self._events.items():
            if waiting.due > now:
                break
            done.append((process, waiting.event))
        for process, _ in done:
            del self._events[process]
        return done

    def flush(self) -> tuple[list[tuple[Process, AuditEvent]], list[Process]]:
        """Take out everything: the exit_groups without an end, and the ends without one."""
        events = [(process, waiting.event) for process, waiting in self._events.items()]
        ends = list(self._ends)
        self._events.clear()
        self._ends.clear()
        return events, ends

    def snapshot(self) -> tuple[dict[Process, int], dict[Process, Waiting]]:
        """Return the ends with their times, and the exit_groups."""
        return self._ends, self._events

    def is_overdue(self, now: int) -> bool:
        """Whether an end has waited for audit for longer than usual at ``now``."""
        return any(time + HOLD <= now for time in islice(self._ends.values(), 1))

    def restore(self, ends: dict[Process, int], events: dict[Process, Waiting]) -> None:
        """Hold what ``snapshot`` returned."""
        self._ends, self._events = ends, events

    def deadline(self) -> int | None:
        """Return when ``expire`` or ``expire_events`` has something to do, None for never."""
        end = next((time + HOLD for time in self._ends.values()), None)
        event = next((waiting.due for waiting in self._events.values()), None)
        if end is None or event is None:
            return event if end is None else end
        return min(end, event)


class SessionJoin:
    """Sessions that the source has seen begin; audit's setsid is matched by process and time."""

    def __init__(self) -> None:
        """Begin with none."""
        self._sessions: dict[Process, int] = {}

    def hold(self, process: Process, time: int) -> None:
        """Keep a session that the source saw begin at ``time``."""
        self._sessions[process] = time

    def caller(self, holders: Iterable[Process], time: int) -> Process | None:
        """Return who called setsid at ``time``: of several with the pid the first unmatched."""
        found = None
        for process in holders:
            # An event's stamp can be a tick too early, and the clocks differ by up to a ms.
            if (
                process.start <= time + TICK
                and self._sessions.get(process, 0) >= time - MILLISECOND
            ):
                found = process
        return found

    def match(self, process: Process) -> int | None:
        """Take out the session of a process, which is told now; return when it began, if it was."""
        return self._sessions.pop(process, None)

    def expire(self, now: int, hearing: Hearing) -> list[tuple[Process, int]]:
        """Take out the sessions about which audit has nothing more to tell, with their times."""
        done = []
        for process, time in self._sessions.items():
            if not hearing.is_done(time, now):
                break
            done.append((process, time))
        for process, _ in done:
            del self._sessions[process]
        return done

    def flush(self) -> list[tuple[Process, int]]:
        """Take out everything."""
        sessions = list(self._sessions.items())
        self._sessions.clear()
        return sessions

    def snapshot(self) -> dict[Process, int]:
        """Return the sessions with their times."""
        return self._sessions

    def is_overdue(self, now: int) -> bool:
        """Whether a session has waited for audit for longer than usual at ``now``."""
        return any(time + HOLD <= now for time in islice(self._sessions.values(), 1))

    def restore(self, sessions: dict[Process, int]) -> None:
        """Hold what ``snapshot`` returned."""
        self._sessions = sessions

    def deadline(self) -> int | None:
        """Return when ``expire`` has something to do, None for never."""
        return next((time + HOLD for time in self._sessions.values()), None)
