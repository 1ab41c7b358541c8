"""``sessiond replay`` with several hosts and several processes."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.truth import until
from support.web import Web, ndjson

DATA = Path(__file__).parents[1] / "data"
LOG = DATA / "debian-12-linux-6.18-stig-raw.log"
COMMAND = [sys.executable, "-m", "sessiond", "replay"]


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """A directory with the logs of two hosts, which do not name themselves."""
    lines = LOG.read_bytes().splitlines(keepends=True)
    for name, log in (("web7", lines), ("db3", lines[100:])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "audit.log").write_bytes(b"".join(log))
    return tmp_path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_directories_of_the_same_time_are_hosts(hosts: Path) -> None:
    """Neither the number of processes nor the way of naming the logs changes the output."""
    alone = run("--jobs", "1", f"{hosts}/*/audit.log")
    assert alone.returncode == 0
    assert alone.stderr.endswith(" 2 hosts, 2 boots\n")
    found = [json.loads(line) for line in alone.stdout.splitlines()]
    ids: dict[str, set[str]] = {"web7": set(), "db3": set()}
    for each in found:
        ids[each["host"]["name"]].add(each["event"]["id"])
        ids[each["host"]["name"]].add(each["process"].get("entity_id", each["event"]["id"]))
    assert not ids["web7"] & ids["db3"]
    assert [each["event"]["sequence"] for each in found] == list(range(1, len(found) + 1))
    shared = run("--jobs", "2", hosts / "db3", hosts / "web7")
    assert (shared.returncode, shared.stderr) == (0, alone.stderr)
    assert len(shared.stdout.splitlines()) == len(found)
    assert run("--jobs", "3", f"{hosts}/*/audit.log").stdout == alone.stdout
    one = run("--node", "db3", f"{hosts}/*/audit.log")
    assert {json.loads(line)["host"]["name"] for line in one.stdout.splitlines()} == {"db3"}


def test_a_log_that_is_given_twice_is_read_once(hosts: Path) -> None:
    """Its events would be written twice, as those of two boots."""
    whole = hosts / "web7" / "audit.log"
    early = hosts / "early.log"
    early.write_bytes(whole.read_bytes()[:50_000])
    once, twice = run(whole), run(early, whole, hosts / "web7")
    assert (twice.returncode, twice.stdout) == (0, once.stdout)
    note = f"sessiond: {early}: {whole} has the same records, which are read once\n"
    assert twice.stderr == note + once.stderr


def test_a_node_without_records_is_told_with_those_that_have_some(hosts: Path) -> None:
    """The records may name the host with its domain."""
    done = run("--node", "web7.example", hosts / "db3", hosts / "web7")
    assert (done.returncode, done.stdout) == (0, "")
    told = "sessiond: no record is of node web7.example; there are records of db3, web7\n"
    assert done.stderr.startswith(told)
    bare = run("--node", "web7", LOG).stderr
    assert "of node web7; there are records of hosts without a name\n" in bare


def test_lines_that_are_no_records_are_named_with_their_log(hosts: Path) -> None:
    """Logs are read side by side, but reported one by one."""
    for name in ("web7", "db3"):
        with (hosts / name / "audit.log").open("ab") as log:
            log.write(b"hello\n")
    done = run("--jobs", "2", hosts / "web7", hosts / "db3")
    assert done.returncode == 1
    told = done.stderr.splitlines()
    assert len(told) == 3
    for line, name in zip(sorted(told[:2]), ("db3", "web7"), strict=True):
        assert line.startswith(f"sessiond: {hosts / name}/audit.log: line ")
    assert "2 lines not understood" in told[2]


def test_several_outputs_get_all_lines(hosts: Path, tmp_path: Path) -> None:
    """Each is named with -o."""
    done = run("-o", tmp_path / "one", "-o", "-", "-o", tmp_path / "two", hosts / "db3")
    assert done.returncode == 0
    assert done.stdout
    assert done.stdout == (tmp_path / "one").read_text() == (tmp_path / "two").read_text()


def test_a_choice_without_events_is_told(hosts: Path) -> None:
    """A time that ends before it begins, and a session that the log does not have."""
    done = run("--since", "2026-05-02", "--until", "2026-05-01", hosts / "db3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sessiond: --until is not after --since")
    done = run("--session", "77777", "-q", hosts / "db3")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "sessiond: no event is of session 77777, or not in this time\n"


def test_lines_that_only_look_like_records_are_told(tmp_path: Path) -> None:
    """Another program may pass auditd's log on, or a user may have written them."""
    log = tmp_path / "messages"
    log.write_bytes(b"Apr  5 19:33:20 web7 my\x1btag: " + LOG.read_bytes().splitlines()[0] + b"\n")
    done = run(log)
    assert (done.returncode, done.stdout) == (0, "")
    assert "sessiond: 1 line of my\\x1btag: not taken for records" in done.stderr


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_log_is_never_overwritten(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """It may be the only copy: the output's name was forgotten, or is that of an input."""
    log, output = tmp_path / "audit.log", tmp_path / "events"
    data = pack(LOG.read_bytes())
    log.write_bytes(data)
    for arguments in (("-o", log, LOG), (log, "-o", log)):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"sessiond: -o {log}: a log of records; name another file\n"
        assert log.read_bytes() == data
    for _ in range(2):
        assert run(log, "-o", output).returncode == 0


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """A shell's <(zcat ...) is a pipe with a name: no part of it may be read in advance."""
    pipe, expected = tmp_path / "pipe", run(LOG)
    os.mkfifo(pipe)
    with (
        LOG.open("rb") as log,
        subprocess.Popen(["tee", pipe], stdin=log, stdout=subprocess.DEVNULL),
    ):
        done = run("--jobs", "2", pipe)
    assert (done.returncode, done.stdout) == (0, expected.stdout)


def test_an_output_of_the_configuration_gets_the_lines(hosts: Path, tmp_path: Path) -> None:
    """Here a server; several processes make the lines."""
    web = Web(ndjson)
    config = tmp_path / "sessiond.yml"
    config.write_text(f"output: {{http: {{url: 'http://127.0.0.1:{web.port}'}}}}\n")
    try:
        done = run("--jobs", "2", "-c", config, "-o", "output.http", hosts / "web7")
    finally:
        web.close()
    assert (done.returncode, done.stdout) == (0, "")
    expected = [json.loads(line) for line in run(hosts / "web7").stdout.splitlines()]
    assert web.kept == {each["event"]["id"]: 1 for each in expected}
    missing = run("-o", "output.socket", "-c", config, hosts / "web7")
    assert missing.returncode == 6
    assert missing.stderr.count("\n") == 1


@pytest.mark.parametrize("number", ["0", "9", "two", "-1"])
def test_the_number_of_processes_is_checked(number: str) -> None:
    """One line says what is allowed."""
    done = run("--jobs", number, LOG)
    assert done.returncode == 2
    assert "--jobs" in done.stderr.splitlines()[-1]


@pytest.fixture
def running() -> subprocess.Popen[bytes]:
    """A replay that waits for input, with two workers."""
    process = subprocess.Popen(
        [*COMMAND, "--jobs", "2", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while len(children(process)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def children(process: subprocess.Popen[bytes]) -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return list(map(int, text.split()))


def ignores_interrupts(pid: int) -> bool:
    """Return whether SIGINT is among a process's ignored signals (SigIgn of proc(5))."""
    _, _, ignored = Path(f"/proc/{pid}/status").read_text().partition("SigIgn:")
    return bool(int(ignored.split()[0], 16) & 1 << signal.SIGINT - 1)


def test_ctrl_c_ends_all_processes_quietly(running: subprocess.Popen[bytes]) -> None:
    """A terminal sends the signal to all of them."""
    workers = children(running)
    until(lambda: all(map(ignores_interrupts, workers)), 10, "workers that leave it to the reader")
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=30)
    assert (running.returncode, told) == (130, b"")
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_a_worker_that_ends_is_one_line(running: subprocess.Popen[bytes]) -> None:
    """The exit code says that the output is not complete."""
    for worker in children(running):
        os.kill(worker, signal.SIGKILL)
    _, told = running.communicate(LOG.read_bytes(), timeout=30)
    assert running.returncode == 1
    assert told.startswith(b"sessiond: a worker process of replay ended by SIGKILL")
    assert told.count(b"\n") == 1


def test_a_closed_pipe_is_no_error_of_a_worker(hosts: Path) -> None:
    """The reader has seen enough: the code is that of SIGPIPE, without a message."""
    with subprocess.Popen(
        [*COMMAND, "-q", "--jobs", "2", str(hosts / "web7"), str(hosts / "db3")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 141
