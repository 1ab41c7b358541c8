"""Any records of an event yield a valid ECS document, and never an exception.

The content of user space's messages is marked as such.
"""

from __future__ import annotations

import orjson
from fuzz.seeds import EVENTS, framed, frames

from sessiond.audit.reassembler import AuditEvent
from sessiond.audit.record import Record
from sessiond.audit.rules import libaudit
from sessiond.ecs.audit_event import AuditEventEncoder, Options
from sessiond.system.account_names import NoAccountNames
from sessiond.units import AuditStamp

SEEDS = [
    framed([(kind, payload.partition(b"): ")[2]) for kind, payload in event]) for event in EVENTS
]
OPTIONS = Options(include_raw_message=True, include_warnings=True)


def one(data: bytes) -> None:
    """Describe an event that has the records of ``data``, with and without its process."""
    records = [Record(kind, text) for kind, text in frames(data)]
    if not records:
        return
    event = AuditEvent(AuditStamp(1_700_000_000_000), 1, 0)
    event.records = records
    encoder = AuditEventEncoder(NoAccountNames(), libaudit, OPTIONS)
    for enriched in (False, True):
        document, _ = encoder.describe(event, enriched=enriched)
        orjson.dumps(document)
        assert document["event"]["action"]
        if all(1100 <= record.type < 1300 for record in records):
            assert document["auditd"]["origin"] == "user"
