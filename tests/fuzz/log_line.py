"""A log of any bytes is replayed: records are written, other lines refused and counted.

Every written line is JSON in one line of UTF-8, and the same log yields the same lines.
"""

from __future__ import annotations

import json

from fuzz.seeds import LOGS
from support.replayed import replayed

SEEDS = LOGS


def one(data: bytes) -> None:
    """Replay ``data`` twice."""
    assert _replayed(data) == _replayed(data)


def _replayed(data: bytes) -> list[bytes]:
    lines = data.splitlines(keepends=True)
    written, replay = replayed(lines)
    assert (replay.outcome.read, replay.outcome.written) == (len(lines), len(written))
    for line in written:
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        json.loads(line)
    return written
