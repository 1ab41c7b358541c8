"""Start, stop, crash and reload: the host's audit state and the output files in each case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.daemon import Daemon, value
from support.kernel import BUILT_IN_RULES, AuditState, auditctl
from support.stream import Stream, agree, inconsistent
from support.truth import Truth, read, until

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]

FOREIGN = ["-a", "always,exit", "-F", "arch=b64", "-S", "swapon", "-F", "key=somebody-else"]
EXEC = "-a always,exit -F arch=b64 -S execve,execveat -k exec"
MKDIR = "-a always,exit -F arch=b64 -S mkdir,mkdirat -k directories"


@pytest.fixture
def foreign_rule(audit_state: AuditState) -> Iterator[str]:
    """A rule loaded by another program, as auditctl -l prints it."""
    auditctl(*FOREIGN)
    (rule,) = AuditState.read().rules
    yield rule
    auditctl("-d", *FOREIGN[1:])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_stop_leaves_audit_as_it_was(
    make_daemon: MakeDaemon, foreign_rule: str, number: signal.Signals
) -> None:
    """Settings, registration and rules are as before, including rules of other programs."""
    found = AuditState.read()
    daemon = make_daemon().start()
    running = AuditState.read()
    assert running.status["enabled"] == "1"
    assert running.owner == daemon.pid
    assert len(running.rules) == 1 + BUILT_IN_RULES
    assert daemon.stop(number) == 0
    assert AuditState.read() == found
    assert AuditState.read().rules == (foreign_rule,)


def test_ctrl_c_leaves_no_error_of_a_helper(make_daemon: MakeDaemon) -> None:
    """A terminal signals the whole process group: the daemon ends without an error message."""
    daemon = make_daemon()
    daemon.prefix = ["setsid"]
    daemon.start()
    os.killpg(daemon.pid, signal.SIGINT)
    assert daemon.stop(signal.SIGINT) == 0
    assert "Traceback" not in daemon.log.read_text()


def test_a_restart_after_a_crash_cleans_up(make_daemon: MakeDaemon, foreign_rule: str) -> None:
    """After SIGKILL the rules stay until the next start, whose stop removes them."""
    found = AuditState.read()
    daemon = make_daemon().start()
    loaded = AuditState.read().rules
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    assert AuditState.read().rules == loaded
    daemon.start()
    assert AuditState.read().rules == loaded
    daemon.stop()
    assert AuditState.read() == found


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"auditd": {"audit_rules": "-a always,exit -S nonsense"}}, 3),
        ({"auditd": {"backlog_limit": "many"}}, 2),
    ],
    ids=["rule", "type"],
)
def test_a_permanent_failure_after_a_crash_cleans_up(
    make_daemon: MakeDaemon, foreign_rule: str, settings: dict[str, object], code: int
) -> None:
    """A crashed run's changes are undone if the service is not restarted."""
    found = AuditState.read()
    daemon = make_daemon()
    daemon = make_daemon(RUNTIME_DIRECTORY=str(daemon.directory.with_name("daemon-1") / "run"))
    daemon.start()
    daemon.stop(signal.SIGKILL)
    daemon.configure(settings)
    daemon.spawn()
    assert daemon.wait() == code
    assert "taken away" in daemon.log.read_text()
    assert AuditState.read() == found
    assert AuditState.read().rules == (foreign_rule,)


def test_a_bad_start_leaves_a_running_daemon_alone(make_daemon: MakeDaemon) -> None:
    """A failed start in the same directories, with invalid rules, removes nothing."""
    daemon = make_daemon().start()
    running = AuditState.read()
    daemon.configure({"auditd": {"audit_rules": "-a always,exit -S nonsense"}})
    assert daemon.command("run").returncode == 3
    assert AuditState.read() == running


@pytest.mark.parametrize("fallback", [True, False])
def test_an_unavailable_source(make_daemon: MakeDaemon, fallback: bool) -> None:
    """The next source is used and reported; without session_metadata.fallback the start fails."""
    # Too few descriptors: the kernel's programs can't be handed over.
    settings = {"session_metadata": {"backend": "ebpf", "fallback": fallback}}
    daemon = make_daemon(settings, BCC_KERNEL_SOURCE="/nowhere")
    daemon.prefix = ["prlimit", "--nofile=24:24"]
    daemon.spawn()
    if not fallback:
        assert daemon.wait() == 5
        return
    daemon.wait_notified("READY=1")
    status = daemon.status()
    assert status["source"] == "proc_connector"
    assert list(status["declined"]) == ["ebpf"]


def test_a_start_without_proc_is_one_line(make_daemon: MakeDaemon) -> None:
    """A chroot or container may lack /proc."""
    daemon = make_daemon()
    daemon.prefix = ["unshare", "-m", "sh", "-c", 'umount -l /proc && exec "$@"', "sh"]
    daemon.spawn()
    assert daemon.wait() == 5
    assert "mount -t proc proc /proc" in daemon.log.read_text()
    assert "a bug" not in daemon.log.read_text()


def test_a_restart_with_other_rules_after_a_crash(
    make_daemon: MakeDaemon, audit_state: AuditState
) -> None:
    """The new configuration's start removes the crashed daemon's rules that it lacks."""
    daemon = make_daemon().start()
    daemon.stop(signal.SIGKILL)
    daemon.configure({"auditd": {"audit_rules": MKDIR}})
    daemon.start()
    (rule,) = AuditState.read().rules
    assert "mkdir" in rule
    daemon.stop()
    assert AuditState.read() == audit_state


def test_a_second_daemon_listens_beside_the_first(make_daemon: MakeDaemon, truth: Truth) -> None:
    """One instance is the audit daemon; the other one listens and writes the same events."""
    first, second = make_daemon().start(), make_daemon().start()
    assert first.status()["role"] == "unicast"
    assert second.status()["role"] == "multicast"
    file = truth.file()
    truth.run_into(file, "spawn", 10)
    for daemon in (first, second):
        daemon.settle()
        agree(Stream(daemon).untrue(read(file), file))
    assert second.stop() == 0
    assert AuditState.read().owner == first.pid


def test_a_second_daemon_that_insists_is_refused(make_daemon: MakeDaemon) -> None:
    """With socket_type unicast it ends with one line and exit code 4, and changes nothing."""
    make_daemon().start()
    running = AuditState.read()
    second = make_daemon({"auditd": {"socket_type": "unicast"}})
    second.spawn()
    assert second.wait() == 4
    assert len(second.log.read_text().splitlines()) == 1
    assert AuditState.read() == running


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"auditd": {"audit_rules": "-a always,exit -S nonsense"}}, 3),
        ({"auditd": {"backlog_limit": "many"}}, 2),
        ({"session_metadata": {"backend": "crystal ball"}}, 2),
    ],
    ids=["rule", "type", "backend"],
)
def test_a_bad_configuration_touches_nothing(
    make_daemon: MakeDaemon, audit_state: AuditState, settings: dict[str, object], code: int
) -> None:
    """The start ends with one line that names the file or the rule, and the right exit code."""
    daemon = make_daemon(settings)
    daemon.spawn()
    assert daemon.wait() == code
    (line,) = daemon.log.read_text().splitlines()
    assert line.startswith("sessiond: ")
    assert AuditState.read() == audit_state


# --- reload ---


def test_a_reload_changes_the_rules(make_daemon: MakeDaemon, foreign_rule: str) -> None:
    """New rules are loaded, old ones removed, foreign ones left, and their events follow."""
    daemon = make_daemon({"auditd": {"audit_rules": EXEC}}).start()
    daemon.configure({"auditd": {"audit_rules": MKDIR}})
    daemon.reload()
    rules = AuditState.read().rules
    assert foreign_rule in rules
    assert ["mkdir" in rule for rule in rules if rule != foreign_rule] == [True]
    made = daemon.directory / "made"
    # The kernel audits no process that started before auditing was first enabled, perhaps this one.
    made_by = subprocess.Popen(["mkdir", made])
    assert made_by.wait() == 0
    event = daemon.await_one(event__action="created-directory", file__path=str(made))
    assert event["tags"] == ["directories"]
    assert value(event, "process.pid") == made_by.pid


@pytest.mark.parametrize(
    ("text", "blamed"),
    [
        ("auditd: {audit_rules: '-a always,exit -S nonsense'}", "auditd.audit_rules:1: "),
        ("auditd: {no_such_setting: 1}", "no_such_setting"),
        ("auditd: [", "sessiond.yml"),
        ("output: {file: {path: relative}}", "output.file.path"),
    ],
    ids=["rule", "setting", "yaml", "output"],
)
def test_a_bad_reload_keeps_everything(
    make_daemon: MakeDaemon, truth: Truth, text: str, blamed: str
) -> None:
    """Rules, output and the stream stay; the log has one line with the reason."""
    daemon = make_daemon().start()
    before = AuditState.read()
    daemon.config.write_text(text)
    daemon.reload()
    assert AuditState.read() == before
    refused = [line for line in daemon.log.read_text().splitlines() if "reload_refused" in line]
    assert len(refused) == 1
    assert blamed in refused[0]
    file = truth.file()
    truth.run_into(file, "spawn", 5)
    daemon.settle()
    agree(Stream(daemon).untrue(read(file), file))
    agree(inconsistent(daemon.documents()))


def test_an_output_that_is_refused_leaves_the_old_one(
    make_daemon: MakeDaemon, truth: Truth
) -> None:
    """The error occurs only when the output is opened; lines continue to go to the old one."""
    daemon = make_daemon().start()
    elsewhere = daemon.directory / "a-directory"
    elsewhere.mkdir()
    daemon.configure({"output": {"file": {"path": str(elsewhere)}}})
    daemon.reload()
    (refused,) = [line for line in daemon.log.read_text().splitlines() if "reload_refused" in line]
    assert f"{elsewhere}: is not a regular file" in refused
    file = truth.file()
    truth.run_into(file, "spawn", 5)
    daemon.settle()
    agree(Stream(daemon).untrue(read(file), file))
    agree(inconsistent(daemon.documents()))
    assert daemon.status()["ledger"]["balanced"]


def test_a_reload_moves_the_output(make_daemon: MakeDaemon, truth: Truth) -> None:
    """Lines continue in the new file, without a missing or repeated number."""
    daemon = make_daemon().start()
    with _spawning(truth):
        until(lambda: len(daemon.documents()) > 50, 10, "the first lines")
        old, new = daemon.output, daemon.directory / "elsewhere.ndjson"
        daemon.configure({"output": {"file": {"path": str(new)}}})
        daemon.reload()
        until(lambda: new.exists() and new.stat().st_size > 50_000, 10, "lines in the new file")
    daemon.stop()
    assert _numbers(old) + _numbers(new) == list(range(1, _numbers(new)[-1] + 1))


def test_a_file_that_was_moved_away_is_made_anew(make_daemon: MakeDaemon, truth: Truth) -> None:
    """As with logrotate: rename, SIGHUP, and no line is lost or in both files."""
    daemon = make_daemon().start()
    moved = daemon.directory / "events.ndjson.1"
    with _spawning(truth):
        until(lambda: len(daemon.documents()) > 50, 10, "the first lines")
        daemon.output.rename(moved)
        daemon.reload()
        until(lambda: daemon.output.stat().st_size > 50_000, 10, "lines in the new file")
    daemon.stop()
    assert _numbers(moved) + _numbers(daemon.output) == list(
        range(1, _numbers(daemon.output)[-1] + 1)
    )


def test_a_reload_applies_what_is_live(make_daemon: MakeDaemon, truth: Truth) -> None:
    """A reload applies the settings that their descriptions mark as live."""
    daemon = make_daemon({"event": {"fork_events": "none"}}).start()
    truth.run("fork")
    daemon.settle()
    assert not daemon.find(event__action="fork")
    daemon.configure(
        {"event": {"fork_events": True, "event_actions": "auditbeat", "include_cgroup": True}}
    )
    daemon.reload()
    truth.run("fork")
    daemon.await_one(event__action="fork")
    executed = daemon.await_one(event__action="executed")
    assert value(executed, "sessiond.cgroup")


@contextmanager
def _spawning(truth: Truth) -> Iterator[None]:
    """Start 400 processes per second, until the end."""
    with subprocess.Popen(truth.command(truth.file(), "spawn", 10**6, 400)) as spawner:
        try:
            yield
        finally:
            spawner.terminate()


def _numbers(file: Path) -> list[int]:
    return [json.loads(line)["event"]["sequence"] for line in file.read_bytes().splitlines()]


def test_a_start_that_fails_after_the_rules_are_loaded_leaves_nothing(
    make_daemon: Callable[..., Daemon], audit_state: AuditState, tmp_path: Path
) -> None:
    """One line says what is wrong; rules and settings are as before."""
    patterns = tmp_path / "patterns"
    patterns.write_text("(\n")
    patterns.chmod(0o600)
    daemon = make_daemon({"event": {"redact": {"enabled": True, "pattern_files": [str(patterns)]}}})
    daemon.spawn()
    assert daemon.wait() == 2
    assert f"{patterns}:1: " in daemon.log.read_text()
    assert "a bug" not in daemon.log.read_text()
    assert AuditState.read() == audit_state
