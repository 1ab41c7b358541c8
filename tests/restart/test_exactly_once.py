"""Whenever a run is killed, the file has each event once, in order, and without a gap.

Two further sockets, which accept lines irregularly, receive each event at least once.
"""

from __future__ import annotations

import json
import pickle
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from support.scripted import Actor, Host, Records
from support.scripted import pipeline as scripted_pipeline

from sessiond.pipeline.pipeline import Pipeline
from sessiond.process.events import Observed, ProcessEvent
from sessiond.restart.resume import Restart
from sessiond.restart.write_ahead import PERIOD
from sessiond.restart.written_lines import WrittenLines
from sessiond.units import SECOND


def unpickle(chunks: Iterable[bytes]) -> list[ProcessEvent]:
    """The scripted ring's pieces are pickled events."""
    return [event for chunk in chunks for event in pickle.loads(chunk)]


# The older processes: init and the shell.
OLDER = ("p1-", "p60-")


class _Source:
    """Reports the living processes, then the events in its ring."""

    passes_input = True

    def __init__(self, events: list[ProcessEvent]) -> None:
        self._events = events

    def drain(self) -> list[ProcessEvent]:
        return self._events


class _Socket:
    """Another output: its waiting lines are lost with the run, received ones are not."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.received: list[bytes] = []

    def deliver(self, number: int) -> None:
        self.received += self.waiting[:number]
        del self.waiting[:number]


def is_loss(document: dict[str, Any]) -> bool:
    """Whether it says what was lost."""
    return bool(document["event"]["action"] == "sessiond-lost")


class Life(RuleBasedStateMachine):
    """Processes run while runs of the daemon read, write, save and are killed."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name)
        self.file = self.path / "events"
        self.host = Host()
        self.time = 10 * SECOND
        self.pid = 100
        self.living: list[Actor] = []
        self.ring: list[ProcessEvent] = []  # the kernel's side, which survives a run
        self.socket: Records = []
        self.happened: Counter[str] = Counter()
        self.lost = 0  # records
        self.unwritten: list[bytes] = []  # lines that the run has made
        self.sockets: list[_Socket] = []
        self.start()

    # The daemon

    def start(self) -> None:
        """Start a run, which continues where the last one ended."""
        self.restart = Restart(
            self.path,
            "boot",
            lambda: self.time / SECOND,
            boot_clock=lambda: self.time,
            decode=unpickle,
        )
        self.pipeline: Pipeline = scripted_pipeline(fork_events=True)
        there = [
            Observed(self.time, each.facts, each.program, b"/srv", None) for each in self.living
        ]
        source: Any = _Source([*self.host.snapshot(), *there, *self.take_ring()])
        tail = self.restart.resume(self.pipeline, source, self.time, output=self.written_lines)
        for socket in self.sockets:
            socket.waiting += tail

    @initialize(number=st.integers(0, 2))
    def configure(self, number: int) -> None:
        """Configure further outputs beside the file."""
        self.sockets = [_Socket() for _ in range(number)]

    def written_lines(self, after: int | None) -> WrittenLines:
        """Read the lines of the file."""
        return WrittenLines(self.file, after=after, max_tail=1 << 24)

    def give(self, lines: list[bytes]) -> None:
        """Pass lines to every output."""
        self.unwritten += lines
        for socket in self.sockets:
            socket.waiting += lines

    def take_ring(self) -> list[ProcessEvent]:
        """Read the ring, and save the events before they are processed."""
        events, self.ring = self.ring, []
        if events:
            self.restart.keep_chunk(pickle.dumps(events))
        return events

    @rule(number=st.integers(1, 40))
    def read(self, number: int) -> None:
        """Read records and the whole ring, and make lines."""
        records, self.socket = self.socket[:number], self.socket[number:]
        self.restart.keep_records(records)
        self.pipeline.feed_process(self.take_ring())
        drained = not self.socket
        self.pipeline.feed_audit(records, now=self.time, drained=drained)
        self.restart.keep_losses(self.pipeline)
        self.give(self.pipeline.poll(self.time))
        self.restart.settle(self.pipeline)

    @rule(share=st.floats(0, 1))
    def write(self, share: float) -> None:
        """Write some of the ready lines."""
        number = round(len(self.unwritten) * share)
        with self.file.open("ab") as file:
            file.writelines(self.unwritten[:number])
        del self.unwritten[:number]

    @precondition(lambda self: self.sockets)
    @rule(which=st.integers(0, 1), number=st.integers(0, 30))
    def deliver(self, which: int, number: int) -> None:
        """Let a socket accept some lines, or none."""
        self.sockets[which % len(self.sockets)].deliver(number)

    @property
    def all_written(self) -> bool:
        """Whether every output has every line."""
        waiting = self.unwritten or any(socket.waiting for socket in self.sockets)
        return not waiting and not self.pipeline.waiting

    @rule()
    def save(self) -> None:
        """Save the state, like the daemon: only when everything is written."""
        if self.restart.is_due(all_written=self.all_written):
            self.restart.save(self.pipeline, all_written=self.all_written)

    @rule()
    def turn(self) -> None:
        """Do all that a turn of the daemon does."""
        self.save()
        self.read(40)
        self.write(1.0)

    @rule()
    def confirm(self) -> None:
        """Check once a second whether the lines of losses are written, as the daemon does."""
        if self.all_written:
            self.pipeline.losses.confirm()

    @rule(number=st.integers(1, 9))
    def lose(self, number: int) -> None:
        """The kernel has no room for some records."""
        self.time += 1_000_000
        self.pipeline.lost(self.time, "kernel", number, "the backlog was full")
        self.restart.keep_losses(self.pipeline)
        self.lost += number

    @rule(read=st.booleans())
    def kill(self, *, read: bool) -> None:
        """Kill the run: between reading and processing, or at any other time."""
        if read:
            self.restart.keep_records(self.socket[:3])
            self.socket = self.socket[3:]
            self.take_ring()
        self.restart.close()
        self.unwritten.clear()
        for socket in self.sockets:
            socket.waiting.clear()
        self.start()

    # The host

    @rule(seconds=st.sampled_from((0.001, 0.1, 1.0, PERIOD)))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.time += int(seconds * SECOND)

    @rule()
    def fork(self) -> None:
        """Let the shell fork."""
        self.time += 1_000_000
        self.pid += 1
        child, event = self.host.shell.fork(self.pid, self.time)
        self.living.append(child)
        self.ring.append(event)
        self.happened["fork"] += 1

    @precondition(lambda self: self.living)
    @rule(which=st.integers(0, 50), late=st.booleans())
    def execute(self, which: int, *, late: bool) -> None:
        """Let a child execute a program; audit reports it, or its record is lost."""
        self.time += 5_000_000
        actor = self.living[which % len(self.living)]
        event, records = actor.execute("ls", self.time)
        self.ring.append(event)
        if not late:
            self.socket += records
        self.happened["exec"] += 1

    @precondition(lambda self: self.living)
    @rule(which=st.integers(0, 50), killed=st.booleans())
    def end(self, which: int, *, killed: bool) -> None:
        """Let a child end."""
        self.time += 5_000_000
        actor = self.living.pop(which % len(self.living))
        if killed:
            self.ring.append(actor.die(9, self.time))
        else:
            event, records = actor.exit(0, self.time)
            self.ring.append(event)
            self.socket += records
        self.happened["end"] += 1

    # The invariants

    @invariant()
    def nothing_is_there_twice(self) -> None:
        """Check that each id is in the file once, and that the numbers increase by one."""
        told = self.told()
        ids = [each["id"] for each in told]
        assert len(ids) == len(set(ids))
        assert [each["sequence"] for each in told] == list(range(1, len(told) + 1))

    def told(self) -> list[dict[str, Any]]:
        """Return the events in the file."""
        lines = self.file.read_bytes().splitlines() if self.file.exists() else []
        return [json.loads(line)["event"] for line in lines]

    def teardown(self) -> None:
        """Check at the end that no event is missing."""
        self.read(len(self.socket))
        self.give(self.pipeline.flush(self.time + 100 * SECOND))
        with self.file.open("ab") as file:
            file.writelines(self.unwritten)
        lines = self.file.read_bytes().splitlines(keepends=True)
        for socket in self.sockets:
            socket.deliver(len(socket.waiting))
            assert set(socket.received) >= set(lines)
        self.nothing_is_there_twice()
        documents = [json.loads(line) for line in lines]
        lost = [each["sessiond"]["loss"]["count"] for each in documents if is_loss(each)]
        assert sum(lost) == self.lost
        told = Counter(
            each["event"]["action"]
            for each in documents
            if not is_loss(each) and not each["event"]["id"].startswith(OLDER)
        )
        assert told == self.happened
        self.restart.close()
        self.directory.cleanup()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_a_loss_whose_line_precedes_the_saved_state_is_not_told_again() -> None:
    """The next run looks only for lines that are newer than the state."""
    life = Life()
    life.fork()
    life.lose(number=3)
    life.turn()
    life.wait(PERIOD)
    life.fork()
    life.turn()
    life.kill(read=False)
    life.turn()
    life.nothing_is_there_twice()
    life.teardown()
