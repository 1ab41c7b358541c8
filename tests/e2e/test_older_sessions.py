"""Sessions older than the daemon are written as if it had been running.

Sessions of all kinds run a program while an older daemon watches, and again under a newer one. The
newer daemon's lines equal those of the older one, except for data that they list as unknown.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import kernel
from support.daemon import Daemon, Document, value
from support.older import KINDS, MARKER, OlderSessions
from support.stream import agree, inconsistent, malformed, nanoseconds, orphans

from sessiond.units import MILLISECOND

pytestmark = pytest.mark.kernel


class Told(NamedTuple):
    """The lines about a session: of a program that it ran, and of its own exec afterwards."""

    child: Document
    itself: Document


class Watched(NamedTuple):
    """The lines of both daemons, by kind of session; ``missing`` has reasons for missing kinds."""

    warm: dict[str, Told]
    cold: dict[str, Told]
    missing: dict[str, str]
    documents: list[Document]  # all lines of the later daemon
    problems: list[str]


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """Run all sessions under one daemon, then under the other."""
    with tempfile.TemporaryDirectory(prefix="sessiond-older-") as name, kernel.lock():
        directory = Path(name)
        directory.chmod(0o1777)
        sessions = OlderSessions(directory)
        early, late = (Daemon(directory / each) for each in ("early", "late"))
        with kernel.after_boot() as clean:
            try:
                early.start()
                sessions.start()
                # The later daemon could not see the first exec of a session.
                _run_all(early, sessions)
                warm = _run_all(early, sessions)
                early.stop()
                late.start()
                cold = _run_all(late, sessions)
                documents = late.settle()
                problems = inconsistent(documents) + malformed(late)
            finally:
                early.end()
                late.end()
                sessions.stop()
            clean.restore()
        yield Watched(warm, cold, sessions.missing, documents, problems)


def _run_all(daemon: Daemon, sessions: OlderSessions) -> dict[str, Told]:
    words = {kind: str(uuid.uuid4()) for kind in sessions.kinds}
    for kind, word in words.items():
        sessions.run(kind, word)
    told = {}
    for kind, word in words.items():
        child = daemon.await_one(event__action="exec", process__args=[MARKER, word])
        itself = daemon.await_one(
            event__action="exec",
            process__entity_id=value(child, "process.parent.entity_id"),
            process__args=sessions.command(kind),
        )
        told[kind] = Told(child, itself)
    return told


# Fields that differ in each exec.
_OWN = (
    "@timestamp",
    "event.",
    "auditd.sequence",
    "auditd.data.",
    "host.",
    "process.args",
    "process.command_line",
    "process.entity_id",
    "process.pid",
    "process.vpid",
    "process.start",
    "process.title",
    "sessiond.incomplete",
    # A process's directory is revealed by its next fork or exec (chdir is not traced).
    "process.parent.working_directory",
    "process.session_leader.working_directory",
    "process.group_leader.working_directory",
    "process.entry_leader.working_directory",
)
# Fields that depend on an unknown field.
_ALSO = {
    "process.parent": ("sessiond.reparented_to",),
    "process.group_leader": ("process.parent.group_leader",),
    **{
        f"process.{name}.args": (f"process.{name}.args_count", f"process.{name}.command_line")
        for name in ("parent", "group_leader", "session_leader", "entry_leader")
    },
    "sessiond.ancestors": ("process.Ext.ancestry",),
}


def _unlike(warm: Document, cold: Document) -> Iterator[str]:
    """Return the fields that differ, unless the later document lists them as unknown."""
    said = [str(note).partition(":")[0] for note in value(cold, "sessiond.incomplete") or []]
    known = [*said, *(also for name in said for also in _ALSO.get(name, ()))]
    before, after = dict(_flat(warm)), dict(_flat(cold))
    for name in sorted(before.keys() | after.keys()):
        if name.startswith(_OWN) or _is_same(name, before.get(name), after.get(name)):
            continue
        if not any(name == each or name.startswith(f"{each}.") for each in known):
            yield f"{name} was {before.get(name)!r:.200}, is {after.get(name)!r:.200}"


def _is_same(name: str, before: Any, after: Any) -> bool:
    """Compare two values; the wall clock is adjusted between the starts of the daemons."""
    if name.endswith(".start") and before is not None and after is not None:
        return abs(nanoseconds(before) - nanoseconds(after)) < MILLISECOND
    return bool(before == after)


def _flat(document: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(document, dict):
        for key, each in document.items():
            yield from _flat(each, f"{name}.{key}" if name else key)
    else:
        yield name, document


@pytest.mark.parametrize("kind", KINDS)
def test_both_daemons_write_the_same_fields(watched: Watched, kind: str) -> None:
    """All fields of the program's exec and of the session's own exec are equal."""
    if kind in watched.missing:
        pytest.skip(watched.missing[kind])
    assert watched.warm[kind]
    for warm, cold in zip(watched.warm[kind], watched.cold[kind], strict=True):
        agree(_unlike(warm, cold))


@pytest.mark.parametrize("kind", KINDS)
def test_an_older_session_has_leaders_and_an_entry(watched: Watched, kind: str) -> None:
    """Entry type, address and login user equal those of the earlier daemon."""
    if kind in watched.missing:
        pytest.skip(watched.missing[kind])
    for warm, cold in zip(watched.warm[kind], watched.cold[kind], strict=True):
        for name in ("group_leader.pid", "session_leader.pid"):
            assert value(cold, f"process.{name}") == value(warm, f"process.{name}")
        assert value(cold, "user.audit.id") == value(warm, "user.audit.id")
        assert value(cold, "process.entry_leader.start") <= cold["@timestamp"]
        entry = value(cold, "process.entry_leader.entry_meta")
        if kind == "double fork":  # The test's own process may have no login.
            assert entry == {"type": "init"}
        else:
            assert entry == value(warm, "process.entry_leader.entry_meta")


def test_session_view_draws_whole_trees(watched: Watched) -> None:
    """All processes that an analyst sees are connected, and none is outside all sessions."""
    assert len(watched.cold) >= 10
    agree(watched.problems)
    agree(orphans(watched.documents))
