"""Blocks of records, and the pipelines that make lines of them.

A block has records of one boot of one host. Its lines do not depend on other boots, except for the
numbers in ``event.sequence``: a block's lines are numbered from 1, and whoever puts the lines of
all blocks together adds the number of lines before them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from sessiond.audit.auditd_log import EnrichedNames
from sessiond.pipeline.pipeline import Pipeline


class Identity(NamedTuple):
    """The host and boot of a pipeline; "" if the log does not contain them.

    ``number`` is that of the boot among all boots of a replay.
    """

    node: str
    machine: str
    boot: str
    number: tuple[int, int] = (0, 1)


class Block(NamedTuple):
    """Records of a boot: (type, payload), and the names behind them: (type, payload, names).

    ``now`` is the latest stamp of the boot, in ns; ``last`` says that its pipeline ends here.
    """

    boot: Identity
    now: int
    records: list[tuple[int, bytes]]
    names: list[tuple[int, bytes, bytes]]
    last: bool


class Made(NamedTuple):
    """What a block became: lines, the number of numbers used, and of events if it is the last."""

    lines: list[bytes]
    numbers: int
    events: int


MakePipeline = Callable[[Identity, EnrichedNames], Pipeline]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Selects the lines to write. All lines are made, because later ones refer to their processes.

    ``since`` and ``until`` are dates in the format of ``@timestamp``, ``session`` is the number of
    an audit session or the entity id of a session leader or an entry leader.
    """

    since: str = ""
    until: str = ""
    session: str = ""

    def takes(self, line: bytes) -> bool:
        """Return whether to write a line."""
        # {"@timestamp":"2026-05-01T10:00:10.002000Z", ...
        date = line[15:42].decode("ascii", "replace")
        if date < self.since or (self.until and date >= self.until):
            return False
        return not self.session or self.session in _sessions(line)


def _sessions(line: bytes) -> list[str]:
    # Not a generator: a compiled one does not support "in".
    document = orjson.loads(line)
    process = document.get("process", {})
    leaders = [process.get(name, {}) for name in ("session_leader", "entry_leader")]
    return [
        document.get("auditd", {}).get("session", ""),
        *(leader.get("entity_id", "") for leader in leaders),
    ]


class Pipelines:
    """The pipelines of boots; ``wanted`` selects their lines."""

    def __init__(self, make: MakePipeline, wanted: Filter | None = None) -> None:
        """Start without a boot; ``make`` makes the pipeline of one."""
        self._make = make
        self._wanted = wanted
        self.living: dict[tuple[int, int], tuple[Pipeline, EnrichedNames]] = {}

    def take(self, block: Block) -> Made:
        """Feed a block to the pipeline of its boot and return the lines."""
        pipeline, names = self._of(block.boot)
        for noted in block.names:
            names.note(*noted)
        pipeline.lines.sequence = 0
        lines: list[bytes] = []
        if block.records:
            pipeline.feed_audit(block.records, now=block.now)
            lines = pipeline.poll(block.now)
        if block.last:
            lines += pipeline.flush(block.now)
            del self.living[block.boot.number]
        if self._wanted is not None:
            lines = [line for line in lines if self._wanted.takes(line)]
        events = pipeline.counters.audit_events if block.last else 0
        return Made(lines, pipeline.lines.sequence, events)

    def _of(self, boot: Identity) -> tuple[Pipeline, EnrichedNames]:
        found = self.living.get(boot.number)
        if found is None:
            names = EnrichedNames()
            found = self.living[boot.number] = (self._make(boot, names), names)
        return found
