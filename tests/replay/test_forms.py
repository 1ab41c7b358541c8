"""All kinds of events, intact and damaged, are the same in every form of a log."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from support.auditlog import DATA
from support.compiled import interpreted
from support.damage import damaged, forwarded, kinds_of_events
from support.replayed import documents

GOLDEN = DATA.parent / "ecs" / "golden"
LOGS = [*DATA.glob("*.log"), *GOLDEN.glob("*.log"), *(DATA / "replay").glob("*.log")]
EVENTS = kinds_of_events(log for log in sorted(LOGS) if not log.name.startswith("as-"))
LINES = [line for event in damaged(EVENTS) for line in event.lines]


@cache
def plain(form: str) -> list[dict[str, Any]]:
    """Return the documents of the same events as auditd writes them."""
    return in_form(form)


def in_form(form: str) -> list[dict[str, Any]]:
    found = documents(forwarded(LINES, form))
    assert len({each["event"]["id"] for each in found}) == len(found) > 5_000
    return found


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("crlf", "as it is"),
        ("glued", "as it is"),
        ("blanks", "as it is"),
        ("kernel", "without names"),
        ("audispd", "node"),
        ("rfc5424", "node"),
        ("escaped", "node"),
    ],
)
def test_the_form_of_a_log_does_not_matter(form: str, expected: str) -> None:
    """Each document is the same, its ids included."""
    for found, wanted in zip(in_form(form), plain(expected), strict=True):
        assert found == wanted


def test_separators_do_not_matter() -> None:
    """Lines come in blocks, and where a block ends does not matter."""
    for found, wanted in zip(in_form("ausearch"), plain("as it is"), strict=True):
        assert found == wanted


@interpreted
@pytest.mark.parametrize("size", [5, 100])
def test_where_a_pipe_pauses_does_not_matter(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived so far is a block."""
    wanted = plain("as it is")
    monkeypatch.setattr("sessiond.replay.replay._BATCH", size)
    assert in_form("as it is") == wanted


@pytest.mark.parametrize("form", ["journal", "export"])
def test_the_journal_has_the_same_events(form: str) -> None:
    """journald names the host."""
    for found, wanted in zip(in_form(form), plain("without names"), strict=True):
        assert found["host"].pop("name") == found["host"].pop("hostname") == "web1"
        assert _without_ids(found) == _without_ids(wanted)


def _without_ids(document: Any) -> Any:
    """Return a document without the ids that are made from the host."""
    if isinstance(document, dict):
        ids = {"entity_id", "id"} if "sequence" in document or "pid" in document else {"entity_id"}
        return {name: _without_ids(value) for name, value in document.items() if name not in ids}
    if isinstance(document, list):
        return [_without_ids(each) for each in document]
    return document
