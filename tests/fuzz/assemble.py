"""Records in any order and number: each is in one event, and the open events are bounded.

Records fed = records in events + records without a stamp + ends of events.
"""

from __future__ import annotations

from fuzz.seeds import EVENTS, framed, frames

from sessiond.audit.reassembler import Reassembler
from sessiond.audit.record import EOE

SEEDS = [framed([*event, (EOE, event[0][1][:30])]) for event in EVENTS]
MAX_IN_FLIGHT = 4


def one(data: bytes) -> None:
    """Feed records one by one, while time passes."""
    assembler = Reassembler(timeout=10, max_in_flight=MAX_IN_FLIGHT)
    events, ends, now = [], 0, 0
    records = frames(data)
    for kind, payload in records:
        now += len(payload) % 5
        malformed = assembler.malformed
        events += assembler.feed([(kind, payload)], now)
        ends += kind == EOE and assembler.malformed == malformed
        events += assembler.expire(now)
        assert assembler.in_flight <= MAX_IN_FLIGHT
        due = assembler.deadline()
        assert due is None or due > now
    events += assembler.flush()
    assert assembler.in_flight == 0
    assert assembler.records == len(records)
    left_out = assembler.malformed + assembler.late + ends
    assert sum(len(e.records) for e in events) + left_out == len(records)
