"""``sessiond record``: the events of one command, and its unchanged exit status."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.kernel import AuditState

from sessiond.cli import main


def record(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sessiond", "record", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
    )


def documents(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.kernel
def test_a_command_is_recorded(audit_state: AuditState, tmp_path: Path) -> None:
    """The recording has only the events of the command and its descendants, and a page."""
    other = subprocess.Popen(["sh", "-c", "while :; do /bin/true; sleep 0.05; done"])
    try:
        done = record(tmp_path, "--", "sh", "-c", "/bin/echo said; (/bin/false; :); exit 3")
    finally:
        other.kill()
        other.wait()
    assert (done.returncode, done.stdout) == (3, "said\n")
    assert "sh: 4 processes, 2 failed" in done.stderr
    assert "sessiond-sh.ndjson and sessiond-sh.html" in done.stderr
    found = documents(tmp_path / "sessiond-sh.ndjson")
    execs = [each["process"]["args"] for each in found if each["event"]["action"] == "exec"]
    assert [args[0] for args in execs] == ["sh", "/bin/echo", "/bin/false"]
    sequence = [each["event"]["sequence"] for each in found]
    assert sequence == list(range(1, len(found) + 1))
    assert b"Content-Security-Policy" in (tmp_path / "sessiond-sh.html").read_bytes()
    # As another user, with other file names, without page and summary; ended by a signal.
    done = record(
        tmp_path, "-q", "--no-page", "-o", "k", "-u", "nobody", "--", "sh", "-c", "kill $$"
    )
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
    found = documents(tmp_path / "k.ndjson")
    (executed,) = (each["process"] for each in found if each["event"]["action"] == "exec")
    assert executed["user"]["name"] == "nobody"
    assert not (tmp_path / "k.html").exists()


@pytest.mark.kernel
def test_ctrl_c_reaches_the_command(audit_state: AuditState, tmp_path: Path) -> None:
    """The command decides how Ctrl-C affects it; the recording is kept."""
    controller, side = pty.openpty()
    script = "trap 'echo trapped; exit 7' INT; echo ready; while :; do sleep 0.1; done"
    running = subprocess.Popen(
        [
            "setsid",
            "-c",
            "-w",
            sys.executable,
            "-m",
            "sessiond",
            "record",
            "--",
            "sh",
            "-c",
            script,
        ],
        cwd=tmp_path,
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    text = b""
    deadline = time.monotonic() + 60
    while b"ready" not in text and time.monotonic() < deadline:
        text += os.read(controller, 4096)
    os.write(controller, b"\x03")
    while b"sessiond tree" not in text and time.monotonic() < deadline:
        text += os.read(controller, 4096)
    assert running.wait(30) == 7
    os.close(controller)
    assert b"trapped" in text
    assert (tmp_path / "sessiond-sh.ndjson").stat().st_size > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "no command given"),
        (("--", "no-such-command"), 127, "no such command"),
        (("--", "/etc/passwd"), 126, "can't be executed"),
        (("-u", "no-such-user", "--", "true"), 2, "no such user"),
        (("-o", "/no/such/place", "--", "true"), 6, "no such directory"),
    ],
)
def test_what_can_not_be_recorded_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    """The error is reported before anything is started."""
    assert main.run(["record", *arguments]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
