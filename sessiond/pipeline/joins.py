"""Joins: the two reports of one action, by the process source and by audit, in either order.

Each join has the same five methods. ``hold`` keeps the report that came first, ``match`` removes it
when the other one arrives, ``expire`` removes reports that have waited long enough, ``flush``
removes everything, and ``snapshot`` returns the state for a restart.

Times are ns since boot. A report of the process source waits for audit until ``Hearing`` says that
audit has reported everything up to that time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from sessiond.audit.reassembler import AuditEvent
from sessiond.audit.record import EXECVE, Arguments, arguments, execve_text, number
from sessiond.process.argv import join_args
from sessiond.process.events import Program
from sessiond.process.table import Process, State
from sessiond.units import MILLISECOND, SECOND, TICK

# How long one report waits for the other. Both leave the kernel within microseconds; reading them
# takes the time.
HOLD: Final = 250 * MILLISECOND
# Maximum wait while the audit socket lags behind.
MAX_HOLD: Final = 10 * SECOND
# An exit_group precedes the end of the last thread by the time that the thread needs to exit.
HOLD_EXIT_GROUP: Final = 5 * SECOND
# How many of a kind expire at a time: after a loss of records thousands wait, and each is a line of
# up to 32 KiB, or ten if the execs of an ended process wait as well.
MAX_EXPIRED: Final = 20
# Bytes of an argv that distinguish one exec of a process from the next.
COMPARED_ARGS: Final = 4096


class Hearing:
    """The time up to which audit has reported everything.

    The kernel queues records in the order of their creation. All records of a moment have therefore
    arrived once the socket was empty after it, or once a younger event has arrived.
    """

    __slots__ = ("drained", "latest")

    def __init__(self) -> None:
        """Start with nothing heard."""
        self.drained = 0  # when the socket was last seen empty
        self.latest = 0  # the stamp of the youngest event received

    def heard(self, now: int) -> int:
        """Return the time up to which audit was heard: ``now``, unless the socket lags behind."""
        return min(now, max(self.drained, now - MAX_HOLD))

    def is_done(self, time: int, now: int) -> bool:
        """Return whether audit, at ``now``, has reported everything about ``time``."""
        due = time + HOLD
        return due <= now and (self.drained >= time or self.latest >= due or time + MAX_HOLD <= now)


class Waiting:
    """An audit event that waits for the process source until ``due``."""

    __slots__ = ("due", "event")

    def __init__(self, due: int, event: AuditEvent) -> None:
        """Hold ``event`` until ``due`` at the latest."""
        self.due = due
        self.event = event


class ExecJoin:
    """Execs that one side has reported."""

    def __init__(self) -> None:
        """Start empty."""
        self._events: deque[Waiting] = deque()
        self._execs: dict[State, Process] = {}

    def __len__(self) -> int:
        """Return how many audit events wait."""
        return len(self._events)

    def hold(self, process: Process, state: State) -> None:
        """Keep an exec of the source: the process, and the state after the exec."""
        self._execs[state] = process

    def hold_event(self, event: AuditEvent, due: int) -> None:
        """Keep an exec that audit told before the source did, until ``due``."""
        self._events.append(Waiting(due, event))

    def match(
        self, event: AuditEvent, holders: Iterable[Process], begin: int, *, any_args: bool = False
    ) -> tuple[Process, State] | None:
        """Return the state after an audited exec, and its process; None if it is not known yet.

        ``holders`` are the processes that had the pid; without a stamp to compare, the state began
        after ``begin``. Execs of one process can have the same stamp, and records of one of them
        can be lost, so the argv must match as well, unless ``any_args``. A state matches once.
        """
        found: tuple[Process, State] | None = None
        argv: Arguments | None = None
        for process in holders:
            # The oldest match: audit events arrive in the order of the execs.
            for state in reversed(process.states):
                if not state.executed or state.matched:
                    continue
                if state.audit_time is None:
                    if state.time >= begin:
                        found = process, state
                elif state.audit_time == event.time:
                    if not any_args and not _is_argv_of(event, state.program):
                        argv = argv or arguments(event.records, COMPARED_ARGS)
                        if not may_have(state.program, argv):
                            continue
                    found = process, state
        if found is not None:
            found[1].matched = True
            self._execs.pop(found[1], None)
        return found

    def take_events(self) -> list[Waiting]:
        """Remove and return the audit events, because new source events may match them."""
        if not self._events:
            return []
        events, self._events = list(self._events), deque()
        return events

    def of(self, process: Process, before: int | None = None) -> list[State]:
        """Remove and return the waiting execs of a process ``before`` a time, oldest first."""
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
        """Remove and return the audit events of a pid whose execs the source did not report."""
        if not self._events:
            return []
        found = [each for each in self._events if number(each.event.call.pid) == pid]
        for waiting in found:
            self._events.remove(waiting)
        return [waiting.event for waiting in found]

    def expire(self, now: int, hearing: Hearing) -> list[tuple[Process, State]]:
        """Remove and return the execs that audit can no longer report."""
        done = []
        for state, process in islice(self._execs.items(), MAX_EXPIRED):
            if not hearing.is_done(state.time, now):
                break
            done.append((process, state))
        for _, state in done:
            del self._execs[state]
        return done

    def expire_events(self, now: int) -> list[AuditEvent]:
        """Remove and return the audit events that the source did not report in time."""
        events = []
        while self._events and self._events[0].due <= now:
            events.append(self._events.popleft().event)
        return events

    def flush(self) -> tuple[list[AuditEvent], list[tuple[Process, State]]]:
        """Remove and return everything: audit's events, and the source's execs."""
        execs = [(process, state) for state, process in self._execs.items()]
        self._execs.clear()
        return [waiting.event for waiting in self.take_events()], execs

    def snapshot(self) -> tuple[list[Waiting], list[tuple[Process, State]]]:
        """Return the waiting audit events and execs."""
        return list(self._events), [(process, state) for state, process in self._execs.items()]

    def is_overdue(self, now: int) -> bool:
        """Return whether, at ``now``, an exec has waited for audit longer than usual."""
        return any(state.time + HOLD <= now for state in islice(self._execs, 1))

    def deadline(self) -> int | None:
        """Return the time of the next ``expire`` and ``expire_events``, None for never."""
        first = next((state.time + HOLD for state in self._execs), None)
        if not self._events:
            return first
        return self._events[0].due if first is None else min(first, self._events[0].due)


def _is_argv_of(event: AuditEvent, program: Program) -> bool:
    """Return whether the records have exactly a program's argv, as the tracer read it."""
    if not program.args:
        return False
    texts = [record.text for record in event.records if record.type == EXECVE]
    return texts == [execve_text(program.args)]


def may_have(program: Program, argv: Arguments) -> bool:
    """Return whether an argv can be a program's; either of them may be cut."""
    known = program.args
    if not known or not argv.values:
        return True
    given = join_args(argv.values)
    if not argv.whole:
        given = given[:-1]
    return known.startswith(given) or given.startswith(known)


class EndJoin:
    """Ends of processes, and the exit_group events that announce them."""

    def __init__(self) -> None:
        """Start empty."""
        self._ends: dict[Process, int] = {}
        self._events: dict[Process, Waiting] = {}

    def __len__(self) -> int:
        """Return how many audit events wait."""
        return len(self._events)

    def hold(self, process: Process, time: int) -> None:
        """Keep an end that the source reported for ``time``.

        Audit's events of the process must be written before its end, however it ended.
        """
        self._ends[process] = time

    def hold_event(self, process: Process, event: AuditEvent, now: int) -> None:
        """Keep an exit_group of a process that has not ended yet."""
        self._events[process] = Waiting(now + HOLD_EXIT_GROUP, event)

    def awaits(self, process: Process) -> bool:
        """Return whether the end of the process waits for audit."""
        return process in self._ends

    def is_announced(self, process: Process) -> bool:
        """Return whether an exit_group of the process waits for its end."""
        return process in self._events

    def caller(self, holders: Iterable[Process], time: int) -> Process | None:
        """Return the caller of exit_group at ``time``: the first unmatched process with the pid."""
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
        """Return whether an ended process called exit_group and its audit event is missing."""
        killed = (process.status or 0) & 0x7F
        return process in self._ends and process.group_exit is not False and not killed

    def match(self, process: Process) -> bool:
        """Remove the end that matches an exit_group; return whether there was one."""
        return self._ends.pop(process, None) is not None

    def match_event(self, process: Process) -> AuditEvent | None:
        """Remove and return the exit_group of an end, None if there is none."""
        waiting = self._events.pop(process, None)
        return None if waiting is None else waiting.event

    def expire(self, now: int, hearing: Hearing) -> list[Process]:
        """Remove and return the ends of processes about which audit has reported everything."""
        done = []
        for process, time in islice(self._ends.items(), MAX_EXPIRED):
            if not hearing.is_done(time, now):
                break
            done.append(process)
        for process in done:
            del self._ends[process]
        return done

    def expire_events(self, now: int) -> list[tuple[Process, AuditEvent]]:
        """Remove and return the exit_groups whose ends did not arrive in time."""
        done = []
        for process, waiting in self._events.items():
            if waiting.due > now:
                break
            done.append((process, waiting.event))
        for process, _ in done:
            del self._events[process]
        return done

    def flush(self) -> tuple[list[tuple[Process, AuditEvent]], list[Process]]:
        """Remove and return everything: exit_groups without ends, and the reverse."""
        events = [(process, waiting.event) for process, waiting in self._events.items()]
        ends = list(self._ends)
        self._events.clear()
        self._ends.clear()
        return events, ends

    def snapshot(self) -> tuple[dict[Process, int], dict[Process, Waiting]]:
        """Return the ends with their times, and the exit_groups."""
        return self._ends, self._events

    def is_overdue(self, now: int) -> bool:
        """Return whether, at ``now``, an end has waited for audit longer than usual."""
        return any(time + HOLD <= now for time in islice(self._ends.values(), 1))

    def restore(self, ends: dict[Process, int], events: dict[Process, Waiting]) -> None:
        """Hold what ``snapshot`` returned."""
        self._ends, self._events = ends, events

    def deadline(self) -> int | None:
        """Return the time of the next ``expire`` and ``expire_events``, None for never."""
        end = next((time + HOLD for time in self._ends.values()), None)
        event = next((waiting.due for waiting in self._events.values()), None)
        if end is None or event is None:
            return event if end is None else end
        return min(end, event)


class SessionJoin:
    """New sessions that the source reported; audit's setsid matches by process and time."""

    def __init__(self) -> None:
        """Start empty."""
        self._sessions: dict[Process, int] = {}

    def hold(self, process: Process, time: int) -> None:
        """Keep a session that, according to the source, began at ``time``."""
        self._sessions[process] = time

    def caller(self, holders: Iterable[Process], time: int) -> Process | None:
        """Return the caller of setsid at ``time``: the first unmatched process with the pid."""
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
        """Remove the session of a process; return its start, None if it was not held."""
        return self._sessions.pop(process, None)

    def expire(self, now: int, hearing: Hearing) -> list[tuple[Process, int]]:
        """Remove and return the sessions that audit can no longer report, with their times."""
        done = []
        for process, time in islice(self._sessions.items(), MAX_EXPIRED):
            if not hearing.is_done(time, now):
                break
            done.append((process, time))
        for process, _ in done:
            del self._sessions[process]
        return done

    def flush(self) -> list[tuple[Process, int]]:
        """Remove and return everything."""
        sessions = list(self._sessions.items())
        self._sessions.clear()
        return sessions

    def snapshot(self) -> dict[Process, int]:
        """Return the sessions with their times."""
        return self._sessions

    def is_overdue(self, now: int) -> bool:
        """Return whether, at ``now``, a session has waited for audit longer than usual."""
        return any(time + HOLD <= now for time in islice(self._sessions.values(), 1))

    def restore(self, sessions: dict[Process, int]) -> None:
        """Hold what ``snapshot`` returned."""
        self._sessions = sessions

    def deadline(self) -> int | None:
        """Return the time of the next ``expire``, None for never."""
        return next((time + HOLD for time in self._sessions.values()), None)
