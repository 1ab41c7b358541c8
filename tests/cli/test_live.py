"""``run --output -`` on a terminal: what the daemon writes is shown by a process of its own."""

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
    except OSError:  # the terminal has no other side any longer
        pass
    return text.decode()


def test_events_are_shown_and_the_terminal_is_given_back() -> None:
    """A line for each, then what the command itself prints."""
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
def test_a_daemon_on_a_terminal(audit_state: AuditState, tmp_path: Path) -> None:
    """Ctrl-C ends it; with --json lines are those of a pipe."""
    config = tmp_path / "sessiond.yml"
    config.write_text(f"state_directory: {tmp_path}/state\nruntime_directory: {tmp_path}/run\n")
    config.chmod(0o600)
    for more, wanted in (
        ((), rb"root +\d+ .*/bin/true live"),
        (("--json",), rb'"/bin/true","live"'),
    ):
        controller, side = pty.openpty()
        os.set_blocking(controller, False)
        command = [sys.executable, "-m", "sessiond", "run", "-c", config, "--output", "-", *more]
        log = (tmp_path / "log").open("wb")
        running = subprocess.Popen(command, stdin=side, stdout=side, stderr=log)
        os.close(side)
        text = b""

        def shown(wanted: bytes = wanted, controller: int = controller) -> bool:
            nonlocal text
            subprocess.run(["/bin/true", "live"], check=True)
            try:
                text += os.read(controller, 1 << 20)
            except BlockingIOError:
                return False
            return re.search(wanted, text) is not None

        until(shown, 60, "the event on the terminal")
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
        os.close(controller)
        log.close()
