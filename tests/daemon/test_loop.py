"""The read loop: when it reads, and the order of the steps in one turn."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

from sessiond.audit.kernel.receive import BATCH
from sessiond.daemon.loop import (
    CALM_PERIOD,
    CALM_WORK,
    COALESCE_DELAY,
    MAX_BATCHES,
    MAX_POLLS,
    MIN_INTERVAL,
    SETTLE_DELAY,
    SMALL_READ,
    ReadLoop,
)

RECORD = (1300, b"audit(1.000:1): ")


class _Parts:
    """All parts of the loop in one, which notes the order of the calls."""

    def __init__(self, descriptor: int = -1) -> None:
        self.asked: list[str] = []
        self.batches: list[list[tuple[int, bytes]]] = []
        self.fed: list[tuple[int, bool]] = []
        self.written: list[bytes] = []
        self.due = False
        self.is_written = True
        self.backlog = 0
        self.waiting = 0  # lines
        self.passes_input = True
        self.unread = 0
        self.turns = 0
        self.left = 0  # polls until there is no deadline
        self.backlogged = 0  # polls until nothing is overdue
        self._descriptor = descriptor
        self.loop = ReadLoop(*([self] * 6))  # type: ignore[arg-type]

    @property
    def client(self) -> _Parts:
        return self

    @property
    def source(self) -> _Parts:
        return self

    def fileno(self) -> int:
        return self._descriptor

    def receive(self) -> list[tuple[int, bytes]]:
        self.asked.append("receive")
        return self.batches.pop(0) if self.batches else []

    def status(self) -> _Parts:
        return self

    def awaits_audit(self, _now: int) -> bool:
        return self.backlog > 0

    def drain(self) -> list[Any]:
        self.asked.append("drain")
        self.unread = max(0, self.unread - 1)
        return []

    def keep_losses(self, _pipeline: object) -> None:
        pass

    def follow(self, _pipeline: object) -> None:
        self.asked.append("follow")

    def feed_process(self, _events: list[Any]) -> None:
        self.asked.append("feed_process")

    def feed_audit(self, records: list[tuple[int, bytes]], *, drained: bool, **_: int) -> None:
        self.asked.append("feed_audit")
        self.fed.append((len(records), drained))

    def poll(self, _time: int) -> list[bytes]:
        self.asked.append("poll")
        self.turns += 1
        self.left = max(0, self.left - 1)
        self.backlogged = max(0, self.backlogged - 1)
        return [b"line\n"]

    @property
    def overdue(self) -> bool:
        return self.backlogged > 0

    def write(self, lines: list[bytes]) -> None:
        self.written += lines

    def deadline(self) -> int | None:
        return 0 if self.left else None

    def all_written(self) -> bool:
        return self.is_written

    def secure(self) -> bool:
        self.asked.append("secure")
        return True

    def is_due(self, *, all_written: bool) -> bool:
        return self.due and all_written

    def save(self, _pipeline: object, *, all_written: bool) -> None:
        self.asked.append("save")
        assert all_written

    def save_soon(self) -> None:
        self.asked.append("save_soon")

    def connect(self) -> None: ...

    def reconcile(self) -> None: ...

    def lookup(self) -> None: ...


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A descriptor to wait for, and one that makes it readable."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_turn_reads_records_before_the_ring() -> None:
    """The process of a record is then known when the record is processed."""
    parts = _Parts()
    parts.batches = [[RECORD]]
    assert parts.loop.turn() == 1
    assert parts.asked == ["receive", "drain", "follow", "feed_process", "feed_audit", "poll"]
    assert parts.fed == [(1, True)]
    assert parts.written == [b"line\n"]


@pytest.mark.parametrize(("overdue", "polls"), [(0, 1), (3, 3), (1000, MAX_POLLS)])
def test_a_turn_writes_what_is_overdue_in_parts(overdue: int, polls: int) -> None:
    """The lines of thousands of waiting events are not in memory at once; signals come through."""
    parts = _Parts()
    parts.backlogged = overdue
    parts.loop.turn()
    assert len(parts.written) == polls


def test_an_empty_socket_is_not_drained_while_the_kernel_has_a_backlog() -> None:
    """The event that an exec waits for may be in the backlog."""
    parts = _Parts()
    parts.backlog = 1
    parts.loop.turn()
    assert parts.fed == [(0, False)]


def test_a_state_is_saved_before_anything_new_is_read() -> None:
    """By then all lines of the last turn are written."""
    parts = _Parts()
    parts.due = True
    parts.loop.turn()
    assert parts.asked[0] == "save"


def test_a_state_need_not_wait_for_a_server() -> None:
    """Unconfirmed lines are put into the spool; only if there is a state to save."""
    parts = _Parts()
    parts.is_written = False
    parts.loop.turn()
    assert parts.asked[0] == "receive"
    parts.due = True
    parts.asked.clear()
    parts.loop.turn()
    assert parts.asked[:2] == ["secure", "save"]


def test_a_state_is_saved_once_procfs_is_read() -> None:
    """A restart then need not read the processes again."""
    parts = _Parts()
    parts.unread = 2
    parts.loop.turn()
    assert "save_soon" not in parts.asked
    parts.loop.turn()
    assert parts.asked.count("save_soon") == 1
    parts.loop.turn()
    assert parts.asked.count("save_soon") == 1


def test_a_turn_ends_though_records_keep_coming() -> None:
    """After MAX_BATCHES full batches outputs and signals are handled; the socket has more."""
    parts = _Parts()
    parts.batches = [[RECORD] * BATCH for _ in range(MAX_BATCHES + 1)]
    assert parts.loop.turn() == MAX_BATCHES * BATCH
    assert parts.fed == [(MAX_BATCHES * BATCH, False)]


def test_a_readable_descriptor_brings_one_turn(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The descriptor is watched again when the turn is over."""
    readable, end = pipe
    parts = _Parts(readable)
    monkeypatch.setattr(parts, "drain", lambda: list(os.read(readable, 1)))

    async def live() -> None:
        parts.loop.start()
        for turn in (1, 2):
            os.write(end, b"x")
            while parts.turns < turn:  # noqa: ASYNC110 -- the loop tells nobody
                await asyncio.sleep(0.001)
        await asyncio.sleep(COALESCE_DELAY * 2)
        parts.loop.stop()

    asyncio.run(live())
    assert parts.turns == 2


def test_a_busy_turn_is_followed_by_the_next(pipe: tuple[int, int]) -> None:
    """While more than a few records arrive at once, the loop reads without a wake-up."""
    parts = _Parts(pipe[0])
    parts.batches = [[RECORD] * (SMALL_READ + 1)] * 3

    async def live() -> None:
        parts.loop.wake()
        while parts.turns < 4:  # noqa: ASYNC110 -- the loop tells nobody
            await asyncio.sleep(0.001)
        parts.loop.stop()

    asyncio.run(live())
    assert parts.fed == [(SMALL_READ + 1, True)] * 3 + [(0, True)]


@pytest.mark.parametrize("made", ["records", "events", "lines"])
@pytest.mark.parametrize("share", [0.5, 2.0])
def test_turns_keep_a_distance_while_there_is_much_work(
    pipe: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    made: str,
    share: float,
) -> None:
    """Otherwise each comes as soon as the records of a process are complete."""
    planned: list[float] = []
    parts = _Parts(pipe[0])
    monkeypatch.setattr(parts.loop, "_plan", planned.append)
    number = int(CALM_WORK * CALM_PERIOD * share)
    if made == "records":
        everything = [RECORD] * number * 4
        parts.batches = [everything[at : at + BATCH] for at in range(0, len(everything), BATCH)]
        parts.batches.append([])
    elif made == "events":
        monkeypatch.setattr(parts, "drain", lambda: [None] * number)
    else:
        monkeypatch.setattr(parts, "poll", lambda _: [b"line\n"] * number)

    async def live() -> None:
        parts.loop._period = asyncio.get_running_loop().time() - CALM_PERIOD
        parts.loop.turn()
        parts.loop.wake()

    asyncio.run(live())
    assert planned[0] >= parts.loop._turned + SETTLE_DELAY
    assert (planned[0] >= parts.loop._turned + MIN_INTERVAL) is (share > 1)


def test_a_quiet_period_ends_the_distance(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process after it is written at once."""
    parts = _Parts(pipe[0])
    parts.loop._calm = False
    monkeypatch.setattr(parts, "poll", lambda _: [])
    parts.loop.turn()
    assert parts.loop._calm


def test_a_stopped_loop_plans_no_turn(pipe: tuple[int, int]) -> None:
    """``turn`` reads the rest; the daemon calls it at its end."""
    readable, end = pipe
    parts = _Parts(readable)

    async def live() -> None:
        parts.loop.start()
        parts.loop.stop()
        os.write(end, b"x")
        parts.loop.wake()
        await asyncio.sleep(COALESCE_DELAY * 2)

    asyncio.run(live())
    assert parts.turns == 0
    assert parts.loop.turn() == 0


def test_a_quiet_loop_is_read_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernel threads start and end without a wake-up."""
    parts = _Parts()
    parts.loop.turn()
    parts.loop.turn_if_idle()
    assert parts.turns == 1
    monkeypatch.setattr("sessiond.daemon.loop.IDLE_READ_INTERVAL", -1.0)
    parts.loop.turn_if_idle()
    assert parts.turns == 2


def test_what_is_due_at_the_start_is_done_though_nothing_comes(pipe: tuple[int, int]) -> None:
    """The first snapshot leaves an inventory: turns continue until it is written."""
    parts = _Parts(pipe[0])
    parts.left = 5

    async def run() -> None:
        parts.loop.start()
        await asyncio.sleep(COALESCE_DELAY * 2)
        parts.loop.stop()

    asyncio.run(run())
    assert parts.turns == 5
