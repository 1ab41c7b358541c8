"""Whole lines: the encoded parts, composed once."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.auditlog import FixedNames, SmallTables

from sessiond import __version__
from sessiond.ecs.audit_cache import AuditEventCache
from sessiond.ecs.audit_event import AuditEventEncoder
from sessiond.ecs.line import DocumentEncoder, identity, renumbered
from sessiond.units import AuditStamp

DATE = "2026-05-01T10:00:10.000000Z"
VALUES = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.text(), lambda inner: st.lists(inner, max_size=3)
)


def encoder(identity: str = "paper boot") -> DocumentEncoder:
    return DocumentEncoder(host={"name": "paper"}, identity=identity)


def line(made_by: DocumentEncoder, document: dict[str, Any], **more: Any) -> bytes:
    descriptions = AuditEventCache(AuditEventEncoder(FixedNames(), SmallTables()))
    return made_by.line(
        descriptions.encode({**document}, [], enriched=True),
        date=DATE,
        event_id="id-1",
        providers=b'["auditd"]',
        **more,
    )


EVENT = {"event": {"action": "exec", "category": ["process"], "type": ["start"]}}


def test_a_line_begins_with_its_date_and_says_who_made_it() -> None:
    """The parts that are the same in every line come last."""
    made = line(encoder(), EVENT, process=b'{"pid":1}', more={"container": {"id": "c"}})
    assert made.startswith(b'{"@timestamp":"2026-05-01T10:00:10.000000Z","event":{')
    document = json.loads(made)
    assert document["event"] == {
        "kind": "event",
        "action": "exec", "category": ["process"], "type": ["start"], "id": "id-1", "sequence": 1,
        "module": "auditd", "provider": ["auditd"],
    }  # fmt: skip
    assert document["process"] == {"pid": 1}
    assert document["container"] == {"id": "c"}
    assert document["host"] == {"name": "paper"}
    assert document["agent"] == {"type": "sessiond", "version": __version__}


def test_lines_are_numbered() -> None:
    """The numbers continue from the caller's number."""
    numbered = encoder()
    numbered.sequence = 41
    numbers = [json.loads(line(numbered, EVENT))["event"]["sequence"] for _ in range(3)]
    assert numbers == [42, 43, 44]


@given(st.text() | st.just('","sequence":7,'), st.integers(0, 2**40))
def test_only_the_number_of_a_line_changes(text: str, before: int) -> None:
    """Whatever its texts are, and those of the event come first."""
    document = {"event": {**EVENT["event"], "original": text}, "auditd": {"sequence": 7}}
    made = line(encoder(), document, more={"message": text})
    expected = json.loads(made)
    expected["event"]["sequence"] += before
    assert json.loads(renumbered(made, before)) == expected


@given(st.dictionaries(st.text(), VALUES), st.dictionaries(st.text("abc", min_size=1), VALUES))
def test_whatever_is_in_it_a_line_is_one_line_of_json(
    data: dict[str, Any], more: dict[str, Any]
) -> None:
    """No text can end the line or its own string."""
    made = line(encoder(), {**EVENT, "auditd": {"data": data}}, more=more)
    assert made.count(b"\n") == 1
    assert made.endswith(b"}\n")
    document = json.loads(made)
    assert document["auditd"]["data"] == data
    assert {name: document[name] for name in more} == more


def test_ids_are_the_same_whenever_they_are_made() -> None:
    """The ids depend on host and boot."""
    assert encoder().audit_id(AuditStamp(1777630272123), 7) == encoder().audit_id(
        AuditStamp(1777630272123), 7
    )
    ids = {
        encoder().audit_id(AuditStamp(1), 2),
        encoder().audit_id(AuditStamp(2), 1),
        encoder().self_event_id("1-2"),
        encoder("paper boot 2").audit_id(AuditStamp(1), 2),
    }
    assert len(ids) == 4


def test_labels_are_on_every_line() -> None:
    """Short lines have them too."""
    labelled = DocumentEncoder(host={"name": "paper"}, identity="x", labels={"env": "prod"})
    for brief in (False, True):
        assert json.loads(line(labelled, EVENT, brief=brief))["labels"] == {"env": "prod"}


@given(st.text(), st.lists(st.text()))
def test_a_line_is_known_by_its_id(text: str, tags: list[str]) -> None:
    """The members before the id may contain any text."""
    event = {**EVENT["event"], "original": text, "type": tags}
    assert identity(line(encoder(), {"event": event})) == (b"id-1", 1)


def test_a_line_of_another_program_has_none() -> None:
    """Neither does a line with similar text."""
    assert identity(b'{"message":"\\"event\\":{\\"id\\":\\"x\\",\\"sequence\\":1"}') is None
    assert identity(b'{"event":{"id":"x"}}') is None
