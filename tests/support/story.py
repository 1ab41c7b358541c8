"""A pipeline with a simulated host, and a random history of processes."""

from __future__ import annotations

from typing import Any

from support.scripted import Actor, Host, Records, documents, pipeline

from sessiond.pipeline.pipeline import Pipeline
from sessiond.process.events import ProcessEvent
from sessiond.units import SECOND

T = 10 * SECOND


class Bench:
    """A pipeline that has read the host's snapshot, and all its lines so far."""

    def __init__(self, **options: Any) -> None:
        """Start the host and the pipeline."""
        self.host = Host()
        self.pipeline: Pipeline = pipeline(**options)
        self.pipeline.feed_process(self.host.snapshot())
        self.written: list[dict[str, Any]] = []
        self.now = T

    def tell(self, *events: ProcessEvent, audit: Records | None = None, after: int = 0) -> None:
        """Feed the input of one turn of the daemon, ``after`` ns later than the last one."""
        self.now += after
        self.pipeline.feed_process(list(events))
        self.pipeline.feed_audit(audit or [], now=self.now)
        self.written += documents(self.pipeline.poll(self.now))

    def settle(self) -> list[dict[str, Any]]:
        """Let every deadline pass; return all lines."""
        for _ in range(4):
            self.tell(after=3 * SECOND)
        return self.written

    def actions(self) -> list[str]:
        """Return the actions of all lines."""
        return [each["event"]["action"] for each in self.settle()]

    def child(self, pid: int = 61, time: int = T + 1) -> Actor:
        """Fork a child of the shell, already written."""
        child, forked = self.host.shell.fork(pid, time)
        self.tell(forked)
        return child


class Story:
    """Some processes that fork, execute, set sessions, fail and end, with both kinds of events.

    ``audit`` holds each record with the number of process events that precede it: a fork and an
    exec precede their audit records, a setsid and an end follow them.
    """

    def __init__(self, host: Host) -> None:
        """Simulate six processes."""
        self.events: list[ProcessEvent] = []
        self.audit: list[tuple[int, tuple[int, bytes]]] = []
        for pid in range(61, 67):
            self._live(host, pid, T + pid * 5_000_000)

    def _live(self, host: Host, pid: int, time: int) -> None:
        child, forked = host.shell.fork(pid, time)
        self._tell(forked)
        if pid % 2:
            changed, records = child.set_session(time + 1_000_000)
            self._record(records)
            self._tell(changed)
        self._record(child.fail_to_execute(time + 1_500_000))
        executed, records = child.execute("ls", time + 2_000_000, str(pid))
        self._tell(executed)
        self._record(records)
        if pid % 3:
            exited, records = child.exit(pid % 256, time + 3_000_000)
            self._record(records)
            self._tell(exited)
        else:
            self._tell(child.die(11, time + 3_000_000))

    def _tell(self, event: ProcessEvent) -> None:
        self.events.append(event)

    def _record(self, records: Records) -> None:
        self.audit += [(len(self.events), record) for record in records]

    def turn(self, events: int, records: int) -> tuple[list[ProcessEvent], Records]:
        """Return the input of a turn: at most so many records, and the events before them."""
        read, self.audit = self.audit[:records], self.audit[records:]
        told = len(self.events)
        needed = max((before for before, _ in read), default=0) - (_EVENTS - told)
        number = max(events, needed, 0)
        first, self.events = self.events[:number], self.events[number:]
        return first, [record for _, record in read]


_EVENTS = len(Story(Host()).events)
