"""``run --output -`` on a terminal: a separate process formats the daemon's lines."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.kernel import AuditState
from support.recording import LOGIN
from support.truth import until

from sessiond.cli import live

_SCRIPT = """
import gzip, os
from sessiond.cli import live
with live.Shown():
    for line in gzip.open({path!r}):
        os.write(1, line)
print("afterwards")
"""


def read_all(controller: int) -> str:
    text = b""
    try:
        while chunk := os.read(controller, 65536):
            text += chunk
    except OSError:  # the other end of the terminal is closed
        pass
    return text.decode()


def test_events_are_shown_and_the_terminal_is_given_back() -> None:
    """The terminal shows a line for each event, then the command's own output."""
    assert live.Shown.__doc__
    controller, side = pty.openpty()
    script = _SCRIPT.format(path=str(LOGIN))
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "160"}
    with subprocess.Popen([sys.executable, "-c", script], stdout=side, env=environment) as running:
        os.close(side)
        text = read_all(controller)
        assert running.wait(20) == 0
    os.close(controller)
    assert re.search(r"root +12331 +sshd 198.51.100.7 .*sudo -n id", text)
    assert text.splitlines()[-1] == "afterwards"


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("more", "wanted"),
    [((), rb"root +\d+ .*/bin/true live"), (("--json",), rb'"args":\["/bin/true","live"\]')],
    ids=["person", "program"],
)
def test_a_daemon_on_a_terminal(
    audit_state: AuditState, tmp_path: Path, more: tuple[str, ...], wanted: bytes
) -> None:
    """Ctrl-C ends it; with --json the lines are those of a pipe."""
    config = tmp_path / "sessiond.yml"
    config.write_text(f"state_directory: {tmp_path}/state\nruntime_directory: {tmp_path}/run\n")
    config.chmod(0o600)
    controller, side = pty.openpty()
    os.set_blocking(controller, False)
    command = [sys.executable, "-m", "sessiond", "run", "-c", str(config), "--output", "-"]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(
            [*command, *more], stdin=side, stdout=side, stderr=log, env=environment
        )
    os.close(side)
    text = b""

    def shown() -> bool:
        nonlocal text
        subprocess.run(["/bin/true", "live"], check=True)
        try:
            while chunk := os.read(controller, 1 << 16):
                text += chunk
        except BlockingIOError:
            pass
        return re.search(wanted, text) is not None

    try:
        until(shown, 60, f"the event on the terminal: {(tmp_path / 'log').read_text()}")
    finally:
        running.send_signal(signal.SIGINT)
        code = running.wait(30)
        os.close(controller)
    assert code == 0
