"""Nothing is lost unseen: what is missing from the output is what the account says."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon, Document, value
from support.kernel import AuditState, kernel_lost
from support.spawns import USER, Spawns, finished
from support.stream import Stream, agree, inconsistent, losses, malformed, nanoseconds
from support.truth import Truth, images, read, until

from sessiond.audit.kernel.client import AuditClient
from sessiond.cli.status import query

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]

# Only what the test's own user does, and of each event the SYSCALL record alone: the kernel counts
# an event whose first record finds no room as one lost record, so that a count of records is exact
# where each event has one.
RULES = f"""\
-a always,exclude -F msgtype=EXECVE
-a always,exclude -F msgtype=CWD
-a always,exclude -F msgtype=PATH
-a always,exclude -F msgtype=PROCTITLE
-a always,exclude -F msgtype=EOE
-a always,exit -F arch=b64 -S execve,execveat -F uid={USER}
-a always,exit -F arch=b64 -S exit_group -F uid={USER}
"""


def ledger_of(daemon: Daemon) -> Document:
    """Ask for the ledger, by no process of its own: that would be in it."""
    ledger: Document = query(daemon.directory / "run/status.sock")["ledger"]
    assert ledger["balanced"], ledger
    return ledger


def settled(daemon: Daemon) -> Document:
    """Wait until all has been read that was on its way; return the ledger."""
    before: list[Any] = []

    def quiet() -> Document | None:
        nonlocal before
        time.sleep(0.5)
        ledger = ledger_of(daemon)
        counts = [ledger[hop]["lost"] for hop in ("kernel", "tracer")]
        counts.append(ledger["socket"]["received"])
        same = counts == before and not ledger["audit_events"]["in_flight"]
        before = counts
        return ledger if same else None

    found: Document = until(quiet, 30, "a quiet daemon")
    return found


def stopped(daemon: Daemon, work: Callable[[], object], limit: int) -> None:
    """Do something while the daemon doesn't read and the kernel's backlog is ``limit`` records."""
    daemon.send(signal.SIGSTOP)
    try:
        with AuditClient.open() as client:
            client.set("backlog_limit", limit)
        work()
    finally:
        daemon.send(signal.SIGCONT)
    # It finds that somebody changed its limit, and sets it again.
    until(lambda: AuditState.read().status["backlog_limit"] == "8192", 10, "the limit we set")


class Account:
    """How many records one piece of work brings, and how many it loses."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def of(self, work: Callable[[], object]) -> tuple[int, int]:
        """Return how many records were received and how many lost, by all that ``work`` does."""
        received, lost = settled(self._daemon)["socket"]["received"], kernel_lost()
        work()
        ledger = settled(self._daemon)
        return ledger["socket"]["received"] - received, kernel_lost() - lost


def at_once(spawns: Spawns) -> None:
    """Make 5,000 processes from two spawners, which are processes as well."""
    for each in [spawns.start(2499), spawns.start(2499)]:
        finished(each)


def test_what_the_kernel_lost_is_what_is_missing(make_daemon: MakeDaemon, spawns: Spawns) -> None:
    """Records made = received + lost, to the record; a quiet run afterwards has lost exactly 0."""
    settings = {
        "auditd": {"audit_rules": RULES},
        "session_metadata": {"ring_buffer": "64MiB"},  # room for all of them
        "canary": {"interval": 0},
    }
    daemon = make_daemon(settings).start()
    account = Account(daemon)
    # An exec and an exit of each, the spawner included.
    assert account.of(lambda: spawns.run(100)) == (2 * 101, 0)
    around, lost = account.of(lambda: stopped(daemon, lambda: None, 1))
    assert lost == 0

    received, lost = account.of(lambda: stopped(daemon, lambda: at_once(spawns), 1))
    assert lost > 0
    assert received + lost == 2 * 5000 + around
    assert ledger_of(daemon)["kernel"] == {"lost": lost, "hint_serials_unseen": 0}
    told = [found for found in losses(daemon.documents()) if value(found, "sessiond.loss")]
    assert {value(found, "sessiond.loss.hop") for found in told} == {"kernel"}
    assert sum(value(found, "sessiond.loss.count") for found in told) == lost
    assert all(found["event"]["start"] < found["event"]["end"] for found in told)

    assert account.of(lambda: spawns.run(100)) == (2 * 101, 0)
    until(lambda: daemon.status()["health"]["problems"] == [], 10, "a healthy daemon")
    agree(malformed(daemon))


def test_what_a_full_socket_costs(make_daemon: MakeDaemon, spawns: Spawns) -> None:
    """A stop with no room: what the kernel doesn't count shows as a hint, and nothing else does."""
    settings = {"audit_rules": RULES, "receive_buffer": "64KiB"}
    daemon = make_daemon({"auditd": settings, "canary": {"interval": 0}}).start()
    account = Account(daemon)
    around, lost = account.of(lambda: stopped(daemon, lambda: None, 8))
    assert lost == 0
    received, lost = account.of(lambda: stopped(daemon, lambda: at_once(spawns), 8))
    assert lost > 5000
    unseen = ledger_of(daemon)["kernel"]["hint_serials_unseen"]
    # Some of those that never came were counted as lost as well, so the hint is no count.
    missing = 2 * 5000 + around - received
    assert lost <= missing <= lost + unseen
    assert account.of(lambda: spawns.run(20)) == (2 * 21, 0)


def test_after_a_loss_of_the_tracer_nothing_false_is_said(
    make_daemon: MakeDaemon, truth: Truth
) -> None:
    """The loss is reported with its window; the table is checked; unknown fields are absent."""
    daemon = make_daemon({"session_metadata": {"ring_buffer": "64KiB"}}).start()
    stream = Stream(daemon)
    before = time.time_ns()
    daemon.send(signal.SIGSTOP)
    runs = {way: truth.file() for way in ("spawn", "chain", "orphan", "setsid", "signal", "code")}
    try:
        for way, file in runs.items():
            truth.run_into(file, way, 300)
    finally:
        daemon.send(signal.SIGCONT)
    after = time.time_ns()
    ledger = settled(daemon)
    assert ledger["tracer"]["lost"] > 0
    told = [found for found in losses(daemon.documents()) if value(found, "sessiond.loss")]
    assert sum(value(found, "sessiond.loss.count") for found in told) == ledger["tracer"]["lost"]
    # Others on this machine may have been lost as well before the ring was empty again.
    assert nanoseconds(told[0]["event"]["start"]) < after
    assert all(nanoseconds(found["event"]["end"]) > before for found in told)
    agree(inconsistent(daemon.documents()))
    agree(malformed(daemon))
    agree(_false(daemon.documents(), runs))
    agree(_endless(daemon.documents()))
    file = truth.file()
    for way in ("spawn", "orphan", "setsid", "daemon"):
        file = truth.file()
        truth.run_into(file, way, 20)
        daemon.settle()
        agree(f"{way}: {problem}" for problem in stream.untrue(read(file), file))


def _false(documents: list[Document], runs: dict[str, Path]) -> list[str]:
    """Say what the execs of these runs claim that isn't so; what they leave out is no matter."""
    told = {_shown(one.argv): one for file in runs.values() for one in images(read(file))}
    problems = []
    for document in documents:
        one = told.get(tuple(value(document, "process.args") or ()))
        if document["event"]["action"] != "exec" or one is None:
            continue
        claims = {"pid": one.pid, "group_leader.pid": one.pgid, "session_leader.pid": one.sid}
        for name, truly in claims.items():
            claimed = value(document, f"process.{name}")
            if claimed not in (None, truly):
                problems.append(f"{name} of {one.token} is {claimed}, not {truly}")
    return problems


def _shown(argv: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(argument.decode() for argument in argv)


def _endless(documents: list[Document]) -> list[str]:
    """Return started processes that are gone and have no end event."""
    started: dict[str, int] = {}
    for document in documents:
        identity = value(document, "process.entity_id")
        if document["event"]["action"] == "end":
            started.pop(identity, None)
        elif identity is not None:
            started[identity] = document["process"]["pid"]
    return [f"{pid} has no end" for pid in started.values() if not Path(f"/proc/{pid}").exists()]
