"""AuditEventCache: a cached event gives the same document as a newly encoded one."""

import re
from pathlib import Path

import orjson
import pytest
from support.auditlog import FixedNames, SmallTables, events

from sessiond.audit.reassembler import AuditEvent
from sessiond.ecs.audit_cache import AuditEventCache, EncodedAuditEvent
from sessiond.ecs.audit_event import AuditEventEncoder
from sessiond.units import AuditStamp

GOLDEN = Path(__file__).parent / "golden"
CALLS = [
    event
    for log in sorted(GOLDEN.glob("*.log"))
    for event in events(log)
    if event.syscall.get("syscall") in (b"59", b"231") and b"c000003e" in event.syscall["arch"]
]


def descriptions() -> AuditEventCache:
    return AuditEventCache(AuditEventEncoder(FixedNames(), SmallTables()))


def document(description: EncodedAuditEvent) -> object:
    pieces = b'{"event":{%b},"auditd":{%b}%b}' % (
        description.event,
        description.auditd,
        description.rest,
    )
    return orjson.loads(pieces), description.title, description.action


def again(event: AuditEvent, **numbers: bytes) -> AuditEvent:
    """Return the same event with other numbers."""
    copy = AuditEvent(AuditStamp(event.time + 1), event.serial + 7, 0)
    copy.complete = True
    for record in event.records:
        text = record.text
        for name, value in numbers.items():
            old = event.syscall.get(name)
            if old is not None:
                text = text.replace(
                    b" %b=%b " % (name.encode(), old), b" %b=%b " % (name.encode(), value)
                )
        copy.records.append(record._replace(text=text))
    return copy


@pytest.mark.parametrize("event", CALLS, ids=lambda event: str(event.serial))
def test_a_cached_event_equals_a_new_one(event: AuditEvent) -> None:
    """Pid, serial and arguments are those of each event; the other parts are cached."""
    remembering = descriptions()
    remembering.recall(event)
    other = again(event, pid=b"4242", ppid=b"4241", a0=b"7f", a1=b"55")
    expected = document(descriptions().describe(other, enriched=True))
    assert document(remembering.recall(other)) == expected


def test_an_argument_that_the_record_lacks_is_absent() -> None:
    """Some exports leave fields out, also of an event that is cached."""
    remembering = descriptions()
    remembering.recall(CALLS[0])
    other = again(CALLS[0])
    other.records = [r._replace(text=re.sub(rb" a3=\w+", b"", r.text)) for r in other.records]
    expected = document(descriptions().describe(other, enriched=True))
    assert b'"a3"' not in descriptions().describe(other, enriched=True).auditd
    assert document(remembering.recall(other)) == expected


def test_the_cache_distinguishes_users() -> None:
    """Every value that affects the document is part of the cache key."""
    event = CALLS[0]
    remembering = descriptions()
    first = document(remembering.recall(event))
    other = again(event, uid=b"12345")
    assert document(remembering.recall(other)) != first
    assert document(remembering.recall(other)) == document(
        descriptions().describe(other, enriched=True)
    )


@pytest.mark.parametrize("event", CALLS[:3], ids=lambda event: str(event.serial))
def test_tags_of_the_configuration_follow_those_of_the_rule(event: AuditEvent) -> None:
    """Each tag is written once, on cached and on other events."""
    keys = orjson.loads(b"{%b}" % descriptions().recall(event).rest[1:]).get("tags", [])
    tagging = AuditEventCache(
        AuditEventEncoder(FixedNames(), SmallTables()), tags=("prod", *keys, "prod")
    )
    for made in (
        tagging.recall(event),
        tagging.recall(event),
        tagging.describe(event, enriched=True),
    ):
        assert orjson.loads(b"{%b}" % made.rest[1:])["tags"] == [*keys, "prod"]
