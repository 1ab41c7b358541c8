"""The other commands, while the daemon runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from support.daemon import Daemon, token_of, value
from support.kernel import BUILT_IN_RULES, AuditState, auditctl
from support.truth import Truth, ends, images, read

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]


def test_status_shows_the_running_daemon(daemon: Daemon, truth: Truth) -> None:
    """The JSON has role, source, rules, and counters that agree with the stream."""
    truth.run("spawn", 20)
    documents = daemon.settle()
    status = daemon.status()
    assert status["health"] == {"state": "healthy", "problems": [], "told": 0}
    assert (status["role"], status["source"], status["rules"]) == (
        "unicast",
        "ebpf",
        BUILT_IN_RULES,
    )
    assert status["kernel"]["pid"] == daemon.pid
    lines = status["pipeline"]["lines"]
    assert sum(lines.values()) >= len(documents)
    assert lines["exec"] >= 20
    hops = ("kernel", "socket", "record", "tracer", "output")
    assert [status["ledger"][hop]["lost"] for hop in hops] == [0] * 5


def test_status_reads_well(daemon: Daemon) -> None:
    """The text has the state first, and readable numbers."""
    asked = daemon.command("status")
    assert asked.returncode == 0
    assert asked.stdout.startswith("health\n  state  healthy\n")
    assert f" {daemon.pid}\n" in asked.stdout


def test_status_without_a_daemon(make_daemon: MakeDaemon) -> None:
    """It prints one line and exits with 7."""
    asked = make_daemon().command("status")
    assert asked.returncode == 7
    assert len(asked.stderr.splitlines()) == 1


def test_rules_compares_wanted_and_loaded(make_daemon: MakeDaemon) -> None:
    """All rules are loaded; a rule that another program deletes is shown as missing."""
    daemon = make_daemon({"auditd": {"reconcile": False}}).start()
    asked = daemon.command("rules")
    assert asked.returncode == 0
    assert [line[0] for line in asked.stdout.splitlines() if line[:1] in "=+~"] == [
        "="
    ] * BUILT_IN_RULES
    auditctl("-d", "always,exit", "-F", "arch=b64", "-S", "setsid", "-F", "key=setsid")
    asked = daemon.command("rules")
    assert asked.returncode == 1
    assert [line for line in asked.stdout.splitlines() if line[:1] == "+" and "setsid" in line]


def test_check_says_what_would_be_done(make_daemon: MakeDaemon, audit_state: AuditState) -> None:
    """It changes nothing, and finds no problem on this host."""
    asked = make_daemon().command("check")
    assert asked.returncode == 0, asked.stdout
    assert "execve" in asked.stdout
    assert AuditState.read() == audit_state


def test_check_sees_the_daemon_that_runs(daemon: Daemon) -> None:
    """A message names the process that owns the audit socket."""
    asked = daemon.command("check")
    assert str(daemon.pid) in asked.stdout


def to_standard_output(daemon: Daemon, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start the daemon with a pipe as its standard output."""
    return subprocess.Popen(
        [sys.executable, "-m", "sessiond", "run", "-c", str(daemon.config), "--output", "-"],
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


def test_run_writes_to_standard_output(make_daemon: MakeDaemon, truth: Truth) -> None:
    """With ``--output -`` every line goes to standard output and none to the configured file."""
    daemon = make_daemon()
    process = to_standard_output(daemon)
    assert process.stdout is not None
    try:
        first = json.loads(process.stdout.readline() if truth.run("spawn", 1) else b"")
        while token_of(first) is None or not str(token_of(first)).startswith("spawn-"):
            truth.run("spawn", 1)
            first = json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert first["event"]["action"] in ("exec", "end")
    assert not daemon.output.exists()


def test_replay_agrees_with_the_daemon(make_daemon: MakeDaemon, truth: Truth) -> None:
    """A replay of the recorded records yields the same execs and exit codes."""
    daemon = make_daemon({"auditd": {"include_raw_message": True}}).start()
    file = truth.file()
    truth.run_into(file, "code", 10)
    documents = daemon.settle()
    daemon.stop()
    log = daemon.directory / "audit.log"
    messages = [line for document in documents for line in value(document, "auditd.messages") or []]
    log.write_text("".join(line + "\n" for line in messages))
    asked = daemon.command("replay", str(log))
    assert asked.returncode == 0, asked.stderr
    told = read(file)
    replayed = [json.loads(line) for line in asked.stdout.splitlines()]
    by_pid = {
        (document["event"]["action"], value(document, "process.pid")): document
        for document in replayed
    }
    for image in images(told):
        document = by_pid["exec", image.pid]
        assert value(document, "process.args") == [os.fsdecode(one) for one in image.argv]
        assert value(document, "process.executable") == os.fsdecode(image.exe)
    for end in ends(told):
        assert value(by_pid["end", end.pid], "process.exit_code") == end.exit_code


def test_run_ends_when_the_reader_exits(make_daemon: MakeDaemon, truth: Truth) -> None:
    """As in ``sessiond run --output - | head``; audit is restored as always."""
    daemon = make_daemon()
    process = to_standard_output(daemon, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stderr:
        if b"started" in line:
            break
    process.stdout.close()
    truth.run("spawn", 3)
    assert process.wait(20) == 141
    process.stderr.close()


def test_a_directory_that_can_not_be_made_is_one_clear_line(make_daemon: MakeDaemon) -> None:
    """For a user other than root, the line has the directory, the reason, and the remedy."""
    ended = make_daemon({"state_directory": "/sys/sessiond"}).command("run")
    assert ended.returncode == 6
    (said,) = [line for line in ended.stderr.splitlines() if line.startswith("sessiond: ")]
    assert said == (
        "sessiond: /sys/sessiond: can't create this directory: Operation not permitted; "
        "run this as root, or create it for this user"
    )
