"""A program that silences audit can't hide processes from the tracer."""

from __future__ import annotations

import platform
import secrets
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon, value
from support.kernel import auditctl
from support.truth import until

from sessiond.cli.status import query

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]

COMPAT = Path(__file__).parents[1] / "support" / "compat.c"
PROCESSES = 20


def run_named(number: int = PROCESSES) -> str:
    """Run /bin/true ``number`` times, each with a unique argument; return their common prefix."""
    mark = f"mark-{secrets.token_hex(4)}"
    script = f"for i in $(seq {number}); do /bin/true {mark}-$i; done"
    subprocess.run(["/bin/sh", "-c", script], check=True, timeout=60)
    return mark


def told(daemon: Daemon, mark: str) -> Counter[str]:
    """Return the number of lines of each action about the processes of a mark."""
    return Counter(
        document["event"]["action"]
        for document in daemon.settle()
        if (value(document, "process.args") or [""])[-1].startswith(f"{mark}-")
    )


@pytest.mark.parametrize(
    "rule",
    ["-a never,task", "-A never,exit -F arch=b64 -S execve"],
    ids=["no audit context", "a rule ahead of ours"],
)
def test_a_rule_that_silences_audit_hides_no_process(daemon: Daemon, rule: str) -> None:
    """The tracer reports each exec and each end once."""
    auditctl(*rule.split())
    try:
        mark = run_named()
        assert told(daemon, mark) == {"exec": PROCESSES, "end": PROCESSES}
    finally:
        auditctl("-d", *rule.split()[1:])
    lines = [line for line in daemon.find(event__action="exec") if mark in str(line["process"])]
    assert all(line["event"]["provider"] == ["ebpf"] for line in lines)
    assert daemon.status()["pipeline"]["execs_unaudited"]["missing"] >= PROCESSES


@pytest.mark.parametrize(
    ("rule", "cause"),
    [
        ("-a never,task", "task list"),
        ("-A never,exit -F arch=b64 -S execve", "a rule ahead"),
        ("-a exclude,always -F msgtype=SYSCALL", "excludes"),
    ],
)
def test_blindness_is_reported_with_its_cause(daemon: Daemon, rule: str, cause: str) -> None:
    """The problem is reported within 10 s of execs without audit events, until it is over."""
    auditctl(*rule.split())
    try:
        until(lambda: run_named(2) and problems(daemon, "audit events"), 10, "the problem")
        assert cause in problems(daemon, "audit events")[0]
    finally:
        auditctl("-d", *rule.split()[1:])
    until(lambda: not problems(daemon, "audit events"), 15, "its end")


def problems(daemon: Daemon, what: str) -> list[str]:
    """Return the current health problems about something."""
    found: list[str] = daemon.status()["health"]["problems"]
    return [each for each in found if each.startswith(f"{what}: ")]


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ("-a always,exit -F arch=b64 -S execve -F auid>=1000 -F auid!=unset", "conditional"),
        ("", "uncovered"),
    ],
    ids=["rules with conditions", "no rules"],
)
def test_the_tracer_reports_what_no_rule_covers(
    make_daemon: MakeDaemon, rules: str, reason: str
) -> None:
    """``event.processes: all`` is the default; the status says why audit reported nothing."""
    daemon = make_daemon({"auditd": {"audit_rules": rules}}).start()
    assert told(daemon, run_named()) == {"exec": PROCESSES, "end": PROCESSES}
    assert daemon.status()["pipeline"]["execs_unaudited"][reason] >= PROCESSES
    assert daemon.status()["ledger"]["balanced"]


def test_only_audited_processes_are_written_if_configured(make_daemon: MakeDaemon) -> None:
    """``event.processes: audited`` gives the administrator's rules the last word."""
    settings: dict[str, Any] = {
        "auditd": {"audit_rules": "-a always,exit -F arch=b64 -S execve -F auid=4242"},
        "event": {"processes": "audited"},
    }
    daemon = make_daemon(settings).start()
    assert told(daemon, run_named()) == {}


@pytest.fixture
def compat() -> Iterator[Path]:
    """A program that any user may run; it executes another one by the 32-bit system call."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        program = Path(directory) / "compat"
        subprocess.run(["gcc", "-O1", "-o", program, COMPAT], check=True, timeout=60)
        yield program


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs the system calls of i386")
def test_the_32_bit_system_calls_are_audited_as_well(daemon: Daemon, compat: Path) -> None:
    """Any user can make them from a 64-bit program."""
    mark = f"mark-{secrets.token_hex(4)}-1"
    command = [str(compat), "/bin/true", mark]
    subprocess.run(command, check=True, user=65534, group=65534, timeout=60)

    def actions() -> Counter[str]:
        return Counter(
            document["event"]["action"]
            for document in daemon.documents()
            if (value(document, "process.args") or [""])[-1] == mark
        )

    wanted = {"exec": 2, "setsid": 1, "end": 1}
    until(lambda: actions() == wanted, 10, f"{wanted}, not only {actions()}")
    (line,) = [
        document
        for document in daemon.find(event__action="exec")
        if value(document, "process.args") == ["/bin/true", mark]
    ]
    assert line["event"]["provider"] == ["auditd", "ebpf"]


def test_searches_along_path_make_no_records(daemon: Daemon) -> None:
    """By default a missing file causes no event, a file without permission does."""
    asked = daemon.directory / "run/status.sock"
    before = query(asked)["pipeline"]["audit_events"]
    mark = f"mark-{secrets.token_hex(4)}"
    script = (
        "import os\n"
        "for number in range(5000):\n"
        "    try: os.execv(f'/nonexistent/{number}', ['x'])\n"
        "    except FileNotFoundError: pass\n"
        f"try: os.execv('/etc/passwd', ['{mark}'])\n"
        "except PermissionError: pass\n"
    )
    subprocess.run(["/usr/bin/python3", "-c", script], check=True, timeout=60)
    until(lambda: mark in str(daemon.find(event__action="exec-failed")), 10, "the failed exec")
    # Other processes of the host have theirs.
    assert query(asked)["pipeline"]["audit_events"] - before < 4000
    documents = daemon.settle()
    failures = [each for each in documents if each["event"]["action"] == "exec-failed"]
    assert [value(each, "error.code") for each in failures if mark in str(each)] == ["EACCES"]
    assert not [each for each in failures if value(each, "error.code") == "ENOENT"]
