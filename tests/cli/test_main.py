"""The command line: its help, its exit codes, and that every failure is one line."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from support.kernel import AuditState, auditctl

from sessiond import __version__, errors
from sessiond.cli import check, declare, main
from sessiond.config import load, reference
from sessiond.daemon.status_server import StatusServer

LOG = Path(__file__).parents[1] / "data" / "debian-12-linux-6.18-stig-raw.log"
COMMANDS = ("run", "check", "replay", "rules", "status", "ps", "migrate")


def sessiond(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a separate process."""
    command = [sys.executable, "-m", "sessiond", *map(str, arguments)]
    options = {"capture_output": True, "text": True, "timeout": 60, "check": False} | options
    return subprocess.run(command, **options)


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the output of --help."""
    with pytest.raises(SystemExit) as ended:
        main.main([*arguments, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A configuration file without rules."""
    path = tmp_path / "sessiond.yml"
    path.write_text("auditd: {audit_rules: ''}\n")
    return path


# --- help ----------------------------------------------------------------------------------------


def test_the_help_names_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """A writer of scripts finds all codes in one place."""
    text = help_of(capsys)
    for command in COMMANDS:
        assert f"\n    {command} " in text
    table = text.partition("exit codes:")[2]
    for code in declare.EXIT_CODES:
        assert f"\n{code:>5}  " in table


def test_every_error_has_its_own_exit_code_in_the_table() -> None:
    """Each kind of error has its own code, and the help lists all."""
    kinds = [kind for kind in errors.SessiondError.__subclasses__() if "exit_code" in vars(kind)]
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes) == 7
    assert set(codes) < set(declare.EXIT_CODES)
    assert min(code for code, _ in check.TOPICS.values()) > max(codes)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each help has a description, examples, and exit codes."""
    text = help_of(capsys, command)
    assert f"examples:\n  sessiond {command}" in text
    assert "exit codes:\n    0  all is well\n" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_help_of_check_lists_what_a_host_may_lack(capsys: pytest.CaptureFixture[str]) -> None:
    """The help of check lists each topic of the host check with its code."""
    text = help_of(capsys, "check")
    for name, (code, _) in check.TOPICS.items():
        assert f"{code}  {name}:" in text


def test_help_and_version_import_nothing_heavy() -> None:
    """They import neither YAML, netlink nor asyncio."""
    program = (
        "import sys\nfrom sessiond.cli import main as cli\ntry: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'yaml', 'pyroute2', 'asyncio', 'structlog', 'msgspec'} & {*sys.modules}))"
    )
    for argument in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", program, argument], capture_output=True, text=True, check=True
        )
        assert done.stdout.endswith("[]\n")


def test_the_version_is_the_packages() -> None:
    """``--version`` prints name and version."""
    assert sessiond("--version").stdout == f"sessiond {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run", "--fast"], ["replay"]])
def test_a_wrong_command_line_ends_with_2(arguments: list[str]) -> None:
    """The exit code is that of an invalid configuration; the usage goes to standard error."""
    done = sessiond(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "sessiond" in done.stderr


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "check", "rules", "status"])
def test_a_wrong_configuration_is_one_line(command: str, tmp_path: Path) -> None:
    """Every command that reads it prints the same line and exits with 2, without any effect."""
    path = tmp_path / "sessiond.yml"
    path.write_text("auditd:\n  backlog_limit: lots\n")
    done = sessiond(command, "-c", path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"sessiond: {path}:2: auditd.backlog_limit: 'lots' is not valid; "
        "allowed: a whole number from 1 to 4294967295\n"
    )


def test_a_file_name_cannot_drive_the_terminal(tmp_path: Path) -> None:
    """The message escapes the file name."""
    done = sessiond("check", "-c", tmp_path / "\x1b[31m\n")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "\\x1b[31m\\n: no such file" in done.stderr


def test_a_wrong_rule_is_one_line(tmp_path: Path) -> None:
    """The line has the file, the line number, and the exit code is 3."""
    rules = tmp_path / "my.rules"
    rules.write_text("# fine\n-a always,exit -S no_such_call\n")
    path = tmp_path / "sessiond.yml"
    path.write_text(f"auditd: {{audit_rule_files: [{rules}]}}\n")
    for command in ("check", "rules"):
        done = sessiond(command, "-c", path)
        assert done.returncode == 3
        assert done.stderr.startswith(f"sessiond: {rules}:2: ")
        assert "no_such_call" in done.stderr


def test_an_unexpected_error_asks_to_be_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug is one line and exit code 70; its traceback requires --debug."""

    def fail(_path: Path | None) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(load, "load", fail)
    assert main.run(["check"]) == 70
    assert capsys.readouterr().err == (
        "sessiond: a bug in sessiond: ZeroDivisionError: division by zero; "
        "please report it with the output of --debug\n"
    )
    assert main.run(["check", "--debug"]) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("structlog", "python3-structlog"),
        ("yaml", "python3-yaml (Debian) or python3-pyyaml (Fedora)"),
        ("systemd", "python3-systemd"),
    ],
)
def test_a_missing_library_is_named_with_its_package(
    library: str, package: str, tmp_path: Path
) -> None:
    """It is no bug, and there is no traceback."""
    settings = tmp_path / "sessiond.yml"
    settings.write_text("# the defaults\n")
    program = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from sessiond.cli.main import main; main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "run", "-c", settings, "--output", "-"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"sessiond: {sys.executable} can't import {library}; install {package}\n"


def test_without_libaudit_the_rest_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every other problem of the host is named too."""
    monkeypatch.setattr(check, "_loadable", lambda _: False)
    main.run(["check"])
    told = capsys.readouterr()
    assert "rules: not checked, because libaudit is missing\n" in told.out
    assert "libaudit1 (Debian) or audit-libs (Fedora)" in told.out
    assert "service-manager" in told.out
    assert told.err == ""


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C prints no error."""

    def interrupt(_path: Path | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(load, "load", interrupt)
    assert main.run(["check"]) == 130


def test_a_reader_that_went_away_ends_it_quietly() -> None:
    """``sessiond ...

    head`` prints neither a message nor a traceback.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "sessiond", "check", "--settings"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


@pytest.mark.parametrize("arguments", [("check",), ("check", "--settings"), ("replay", LOG)])
def test_a_full_disk_under_the_output_is_one_line(arguments: tuple[str | Path, ...]) -> None:
    """It is not reported as a bug, and the interpreter exits cleanly."""
    with Path("/dev/full").open("w") as full:
        done = sessiond(*arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.endswith(": no space left on device\n")
    assert done.stderr.count("\n") == 1


# --- the commands --------------------------------------------------------------------------------


def test_check_prints_the_commented_configuration() -> None:
    """``check --settings`` is the shipped file, and needs no configuration at all."""
    done = sessiond("check", "--settings")
    assert done.returncode == 0
    assert done.stdout == reference.commented()


def test_check_says_what_would_be_loaded(tmp_path: Path) -> None:
    """It prints the settings that differ from the defaults, the rules, and the host's findings."""
    path = tmp_path / "sessiond.yml"
    path.write_text(
        "auditd:\n  backlog_limit: 64\n  audit_rules: |\n    -b 128\n    -w /etc/shadow -p wa\n"
    )
    done = sessiond("check", "-c", path)
    assert done.stdout.startswith(f"configuration: {path}\n")
    assert "\n  auditd.backlog_limit: 64\n" in done.stdout
    assert "\nrules: 1 would be loaded\n  -w /etc/shadow -p wa\n" in done.stdout
    assert "\n  backlog_limit = 128\n" in done.stdout
    assert "\nhost:\n  " in done.stdout
    findings = check.report()
    assert done.returncode == check.exit_code(findings)
    for name in {finding.name for finding in findings}:
        assert f"  {name} " in done.stdout


def test_check_knows_the_users_of_this_host(tmp_path: Path) -> None:
    """An unknown owner is found before the daemon starts."""
    path = tmp_path / "sessiond.yml"
    path.write_text("output: {file: {group: no-such-group}}\n")
    done = sessiond("check", "-c", path)
    assert done.returncode == 2
    assert "output.file.group: this host has no group 'no-such-group'" in done.stderr


def test_check_reads_the_keys_of_servers(tmp_path: Path) -> None:
    """Secrets in files are checked; a credential is available only to the service."""
    settings, key = tmp_path / "sessiond.yml", tmp_path / "key"
    settings.write_text(
        "output: {http: {url: 'https://es', secret_headers: "
        f"{{Authorization: {key}, X-Key: elastic}}}}}}\n"
    )
    missing = sessiond("check", "-c", settings)
    assert missing.returncode == 2
    assert f"output.http.secret_headers.Authorization: {key}: no such file" in missing.stderr
    key.write_text("ApiKey geheim\n")
    key.chmod(0o600)
    found = sessiond("check", "-c", settings)
    assert "secret_headers.X-Key: the credential elastic is not checked" in found.stdout
    assert "geheim" not in found.stdout + found.stderr


@pytest.mark.parametrize(
    ("output", "setting"),
    [
        ("http: {url: 'https://es', tls: {ca: /none.pem}}", "output.http.tls"),
        (
            "socket: {type: tcp, address: 'es:1', tls: {enabled: true, certificate: /none.pem}}",
            "output.socket.tls",
        ),
    ],
)
def test_check_reads_certificates(tmp_path: Path, output: str, setting: str) -> None:
    """Files that the daemon could not use."""
    settings = tmp_path / "sessiond.yml"
    settings.write_text(f"output: {{{output}}}\n")
    found = sessiond("check", "-c", settings)
    assert found.returncode == 2
    assert f"{setting}: /none.pem can't be used: No such file or directory" in found.stderr


@pytest.mark.kernel
def test_rules_shows_wanted_against_loaded(tmp_path: Path, audit_state: AuditState) -> None:
    """Each rule has its sign; a missing rule makes the exit code 1."""
    path = tmp_path / "sessiond.yml"
    path.write_text("auditd:\n  audit_rules: |\n    -w /etc/shadow -p wa\n    -w /etc/group -p r\n")
    try:
        auditctl("-w", "/etc/shadow", "-p", "wa")
        auditctl("-w", "/etc/hosts", "-p", "x")
        some = sessiond("rules", "-c", path)
        auditctl("-w", "/etc/group", "-p", "r")
        all_there = sessiond("rules", "-c", path)
    finally:
        auditctl("-D")
    assert some.stdout == "= -w /etc/shadow -p wa\n+ -w /etc/group -p r\n~ -w /etc/hosts -p x\n"
    assert some.returncode == 1
    assert all_there.returncode == 0


def test_status_asks_the_daemon() -> None:
    """Text, JSON, and different exit codes for an unhealthy and a dead daemon."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "status.sock"
        health: dict[str, Any] = {"state": "ok", "problems": []}
        server = StatusServer(path, lambda: {"health": health, "lost": 0})

        async def ask() -> list[subprocess.CompletedProcess[str]]:
            await server.start()
            as_text = await asyncio.to_thread(sessiond, "status", "--socket", path)
            health["problems"].append("blind")
            as_json = await asyncio.to_thread(sessiond, "status", "--socket", path, "--json")
            await server.close()
            return [as_text, as_json]

        well, sick = asyncio.run(ask())
        assert well.returncode == 0
        assert well.stdout.startswith("health\n  state  ok\n")
        assert sick.returncode == 1
        assert json.loads(sick.stdout)["health"]["problems"] == ["blind"]
        gone = sessiond("status", "--socket", path)
    assert gone.returncode == 7
    assert gone.stderr.startswith(f"sessiond: {path}: no daemon answers; start it")


def test_status_puts_metrics_where_node_exporter_reads_them(tmp_path: Path) -> None:
    """The file is replaced atomically; it also reports a daemon that does not answer."""
    socket, file = tmp_path / "status.sock", tmp_path / "sessiond.prom"
    server = StatusServer(socket, lambda: {"health": {"problems": []}, "rules": 8})
    write = ("status", "--socket", socket, "--prometheus", "-o", file)

    async def ask() -> subprocess.CompletedProcess[str]:
        await server.start()
        done = await asyncio.to_thread(sessiond, *write, umask=0o077)
        await server.close()
        return done

    done = asyncio.run(ask())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "\nsessiond_rules 8\n" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o644, "the user of node_exporter may read it"
    assert sessiond(*write).returncode == 7
    assert file.read_text().endswith("\nsessiond_up 0\n")
    assert list(tmp_path.iterdir()) == [file], "nothing else is left in the directory"
    done = sessiond(*write[:-1], tmp_path / "missing" / "sessiond.prom")
    assert done.returncode == 6
    assert done.stderr.endswith(
        f"sessiond.prom: can't be written: {tmp_path}/missing does not exist; create it, or name a"
        " file in another directory\n"
    )


def test_status_finds_the_socket_in_the_configuration(tmp_path: Path) -> None:
    """Without --socket the configuration defines the socket."""
    path = tmp_path / "sessiond.yml"
    path.write_text(f"runtime_directory: {tmp_path}/run\n")
    done = sessiond("status", "-c", path)
    assert done.returncode == 7
    assert f"{tmp_path}/run/status.sock: no daemon answers" in done.stderr


def test_replay_writes_events_of_a_log(settings: Path, tmp_path: Path) -> None:
    """The lines are the same for a file or standard input, to a file or standard output."""
    from_file = sessiond("replay", LOG, "-c", settings)
    assert from_file.returncode == 0, from_file.stderr
    assert re.fullmatch(r"sessiond: [\d,]+ records, .* 1 host, 1 boot\n", from_file.stderr)
    events = [json.loads(line) for line in from_file.stdout.splitlines()]
    assert "exec" in {event["event"]["action"] for event in events}
    with LOG.open() as source:
        piped = sessiond("replay", "-", "--output", tmp_path / "out", "-c", settings, stdin=source)
    assert piped.returncode == 0
    assert piped.stdout == ""
    assert sessiond("replay", "-q", LOG, "-c", settings).stderr == ""
    assert (tmp_path / "out").read_text() == from_file.stdout


def test_replay_names_lines_that_are_no_records(settings: Path, tmp_path: Path) -> None:
    """Invalid lines are skipped and reported; the rest is written; the exit code is 1."""
    log = tmp_path / "audit.log"
    log.write_bytes(b"hello\n" + LOG.read_bytes()[:100_000].rpartition(b"\n")[0] + b"\n")
    done = sessiond("replay", log, "-c", settings)
    assert done.returncode == 1
    assert done.stderr.startswith(f"sessiond: {log}: line 1: ")
    assert "1 line not understood" in done.stderr
    assert done.stdout.count("\n") > 10


def test_replay_of_a_missing_log_is_one_line(settings: Path, tmp_path: Path) -> None:
    """The same applies to an output that can't be written."""
    done = sessiond("replay", tmp_path / "no.log", "-c", settings)
    assert done.returncode == 1
    assert done.stderr.startswith(f"sessiond: {tmp_path}/no.log: no such file or directory\n")
    done = sessiond("replay", LOG, "--output", tmp_path / "no" / "out", "-c", settings)
    assert (done.returncode, done.stderr) == (
        1,
        f"sessiond: {tmp_path}/no/out: no such file or directory\n",
    )


def test_times_are_as_a_person_says_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the local time zone, in which times are shown; short forms are relative to now."""
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    try:
        assert declare.recent("2026-01-05T10:00") == "2026-01-05T09:00:00.000000Z"
        assert declare.recent("2026-01-05T10:00+00:00") == "2026-01-05T10:00:00.000000Z"
        assert declare.recent("1767600000") == "2026-01-05T08:00:00.000000Z"
        assert declare.date("2026-01-05T10:00") == "2026-01-05T10:00:00.000000Z"
        assert declare.date("1777630272.123") == "2026-05-01T10:11:12.123000Z"
        assert declare.recent("10:00").endswith("T09:00:00.000000Z")
        assert declare.recent("2d") < declare.recent("yesterday") < declare.recent("today")
        for wrong in ("soon", "25:00", "2x", "99999d", "-1h"):
            with pytest.raises(argparse.ArgumentTypeError, match="is not a time such as"):
                declare.recent(wrong)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_output_on_the_command_line_stands_alone() -> None:
    """``--output`` replaces all configured outputs; every other setting stays."""
    loaded = load.loads(
        "output: {file: {mode: 0640, rotate: {keep: 3}}, socket: {address: /run/r}, "
        "spool: {max_size: 0}, queue_size: 2MiB}\nevent: {include_cgroup: true}",
        "f.yml",
    )
    console = main.with_output(loaded, "-")
    assert (console.output.file, console.output.socket) == (None, None)
    assert console.output.console is not None
    assert (console.output.spool.max_size, console.output.queue_size) == (0, 2 << 20)
    assert console.event == loaded.event
    file = main.with_output(loaded, "events").output.file
    assert file is not None
    assert (file.path, file.mode, file.rotate.keep) == (Path.cwd() / "events", 0o640, 3)
    assert main.with_output(loaded, "events").output.socket is None
    assert main.with_output(loaded, None) is loaded


def test_check_warns_when_no_rule_is_configured(tmp_path: Path) -> None:
    """A glob without a matching file causes a warning that no rule is configured."""
    path = tmp_path / "sessiond.yml"
    path.write_text(f"auditd: {{audit_rule_files: ['{tmp_path}/*.rules']}}\n")
    done = sessiond("check", "-c", path)
    assert f"no file matches {tmp_path}/*.rules\n  warning: no rule is configured" in done.stdout
    path.write_text("auditd: {socket_type: multicast}\n")
    assert "no rule is configured" not in sessiond("check", "-c", path).stdout


def test_check_says_what_is_to_be_said_of_filters(tmp_path: Path) -> None:
    """What never matches, by line and column; who can hide; the rules that the kernel could use."""
    path = tmp_path / "sessiond.yml"
    path.write_text(
        f"runtime_directory: {tmp_path}/run\n"
        "filters:\n"
        "  - {name: probes, when: {process.user.id: 110}, then: drop}\n"
        "  - {name: later, when: {process.user.id: 110, process.name: x}, then: fold}\n"
        "  - {name: names, when: {process.name: x}, then: fold}\n"
    )
    path.chmod(0o600)
    told = sessiond("check", "-c", path).stdout
    assert f"  warning: {path}:4:5: filters: later: never matches: probes matches first\n" in told
    assert "  ok    probes: safe: no ordinary user fulfils process.user.id: 110\n" in told
    assert "  warn  names: unsafe: " in told
    assert "  rule  probes: audit can leave out what it drops; that saves 10 records" in told
    rule = "-a never,exit -F arch=b64 -S execve,execveat,exit_group,setsid -F euid=110 -F uid=110"
    assert f"            {rule}\n" in told
    assert "auditd.audit_rules replaces the built-in rules" in told
    assert "warn  filters" in told
    both = "\n".join(f"    {rule.replace('b64', arch)}" for arch in load.rule_arches())
    path.write_text(f"{path.read_text()}auditd:\n  audit_rules: |\n{both}\n")
    told = sessiond("check", "-c", path).stdout
    assert "  ok    probes: the kernel leaves out what it drops, too (a never rule)\n" in told
    path.write_text(f"{path.read_text()}session_metadata: {{backend: procfs}}\n")
    assert "never rule" not in sessiond("check", "-c", path).stdout
    path.write_text("filters:\n  - when: {process.nmae: x}\n    then: drop\n")
    wrong = sessiond("check", "-c", path)
    assert wrong.returncode == 2
    assert f"{path}:2:12: filters: process.nmae: unknown field; did you mean" in wrong.stderr
