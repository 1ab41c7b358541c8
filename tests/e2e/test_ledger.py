"""No loss is unnoticed: the account shows what is missing from the output."""

from __future__ import annotations

import signal
import subprocess
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

# Rules for the test's own user, and only the SYSCALL record of each event: the kernel counts an
# event whose first record finds no room as one lost record, so that counts of records are exact if
# each event has one.
RULES = f"""\
-a always,exclude -F msgtype!=SYSCALL
-a always,exit -F arch=b64 -S execve,execveat -F uid={USER}
-a always,exit -F arch=b64 -S exit_group -F uid={USER}
"""


def ledger_of(daemon: Daemon) -> Document:
    """Ask for the ledger without starting a process, which would be counted."""
    ledger: Document = query(daemon.directory / "run/status.sock")["ledger"]
    assert ledger["balanced"], ledger
    return ledger


def settled(daemon: Daemon) -> Document:
    """Wait until all pending input has been read; return the ledger."""
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
    """Do something while the daemon does not read and the kernel's backlog is ``limit`` records."""
    daemon.send(signal.SIGSTOP)
    try:
        with AuditClient.open() as client:
            client.set("backlog_limit", limit)
        work()
    finally:
        daemon.send(signal.SIGCONT)
    # The daemon finds that its limit was changed, and restores it.
    until(lambda: AuditState.read().status["backlog_limit"] == "8192", 10, "the limit we set")


class Account:
    """The number of records that a piece of work causes, and of those lost."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def of(self, work: Callable[[], object]) -> tuple[int, int]:
        """Return the numbers of records received and lost by ``work``."""
        received, lost = settled(self._daemon)["socket"]["received"], kernel_lost()
        work()
        ledger = settled(self._daemon)
        return ledger["socket"]["received"] - received, kernel_lost() - lost


def at_once(spawns: Spawns) -> None:
    """Make 5,000 processes from two spawners, which are processes as well."""
    for each in [spawns.start(2499), spawns.start(2499)]:
        finished(each)


def test_the_kernel_s_losses_are_exact(make_daemon: MakeDaemon, spawns: Spawns) -> None:
    """Records made = received + lost, to the record; a quiet run afterwards loses exactly 0."""
    settings = {
        "auditd": {"audit_rules": RULES},
        "session_metadata": {"ring_buffer": "64MiB"},  # space for all of them
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


def test_a_full_socket_is_reported(make_daemon: MakeDaemon, spawns: Spawns) -> None:
    """A stop with full buffers: the hint shows what the kernel does not count."""
    settings = {"audit_rules": RULES, "receive_buffer": "64KiB"}
    daemon = make_daemon({"auditd": settings, "canary": {"interval": 0}}).start()
    account = Account(daemon)
    around, lost = account.of(lambda: stopped(daemon, lambda: None, 8))
    assert lost == 0
    received, lost = account.of(lambda: stopped(daemon, lambda: at_once(spawns), 8))
    assert lost > 5000
    unseen = ledger_of(daemon)["kernel"]["hint_serials_unseen"]
    # Some of these records were also counted as lost, so the hint is not a count.
    missing = 2 * 5000 + around - received
    assert lost <= missing <= lost + unseen
    assert account.of(lambda: spawns.run(20)) == (2 * 21, 0)


def test_no_false_field_follows_a_loss_of_the_tracer(make_daemon: MakeDaemon, truth: Truth) -> None:
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

    def reads_again() -> list[Document]:
        subprocess.run(["/bin/true", "after-the-loss"], check=True)
        return daemon.find(event__action="end", process__args=["/bin/true", "after-the-loss"])

    until(reads_again, 60, "a process after the loss")
    daemon.settle()
    ledger = ledger_of(daemon)
    assert ledger["tracer"]["lost"] > 0
    told = [found for found in losses(daemon.documents()) if value(found, "sessiond.loss")]
    assert sum(value(found, "sessiond.loss.count") for found in told) == ledger["tracer"]["lost"]
    # Other processes of this host may have been lost before the ring was empty again.
    assert nanoseconds(told[0]["event"]["start"]) < after
    assert all(nanoseconds(found["event"]["end"]) > before for found in told)
    agree(inconsistent(daemon.documents()))
    agree(malformed(daemon))
    agree(_false(daemon.documents(), runs))
    endless = _endless(daemon.documents())
    # The ends of some that have ended just now are on their way.
    until(lambda: not endless & _endless(daemon.documents()), 10, f"the ends of {endless}")
    file = truth.file()
    for way in ("spawn", "orphan", "setsid", "daemon"):
        file = truth.file()
        truth.run_into(file, way, 20)
        daemon.settle()
        agree(f"{way}: {problem}" for problem in stream.untrue(read(file), file))


def _false(documents: list[Document], runs: dict[str, Path]) -> list[str]:
    """Return the wrong claims of the execs of these runs; missing fields are ignored."""
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


def _endless(documents: list[Document]) -> set[tuple[str, int]]:
    """Return started processes that are gone and have no end event, with their pids."""
    started: dict[str, int] = {}
    for document in documents:
        identity = value(document, "process.entity_id")
        if document["event"]["action"] == "end":
            started.pop(identity, None)
        elif identity is not None and document["event"]["action"] != "sessiond-folded":
            started[identity] = document["process"]["pid"]
    return {each for each in started.items() if not Path(f"/proc/{each[1]}").exists()}
