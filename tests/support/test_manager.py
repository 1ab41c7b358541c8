"""The service manager of the tests runs services as pid 1 would."""

from __future__ import annotations

import sys

import pytest
from support.manager import UNIT, UserManager, adapted, service

pytestmark = pytest.mark.kernel

# Prints its attributes, stores a descriptor, then waits, in the shipped sandbox.
PROGRAM = """
import os, signal, sys, time
from systemd import daemon
print("uid", os.getuid(), flush=True)
print(*(line for line in open("/proc/self/status") if line.startswith(("CapEff", "NoNewPrivs"))))
print("kept", [name for name in daemon.listen_fds_with_names().values()], flush=True)
print("pids", sum(name.isdigit() for name in os.listdir("/proc")), flush=True)
daemon.notify("FDSTORE=1\\nFDNAME=sample", fds=[os.open("/dev/null", os.O_RDONLY)])
signal.signal(signal.SIGHUP, lambda *_: daemon.notify("RELOADING=1\\nREADY=1\\nSTATUS=reloaded"))
open(os.environ["LOGS_DIRECTORY"] + "/written", "w").close()
daemon.notify("READY=1\\nSTATUS=here")
while True:
    time.sleep(0.2)
    daemon.notify("WATCHDOG=1")
"""


def test_the_shipped_sandbox_starts_a_service(user_manager: UserManager) -> None:
    """User, capabilities, directories, readiness, reload, descriptor store and restart all work."""
    log = user_manager.directory / "out"
    script = user_manager.directory / "program.py"
    script.write_text(PROGRAM)
    script.chmod(0o644)
    command = f"{sys.executable} {script}"
    user_manager.install("sample.service", service(command, log))
    user_manager.systemctl("start", "sample.service")
    assert user_manager.show("sample.service", "StatusText") == "here"
    user_manager.systemctl("reload", "sample.service")
    assert user_manager.show("sample.service", "StatusText") == "reloaded"
    user_manager.systemctl("restart", "sample.service")
    user_manager.systemctl("stop", "sample.service")

    said = log.read_text()
    assert "uid 65534" in said
    assert "NoNewPrivs:\t1" in said
    assert f"{_shipped_capabilities():016x}" in said
    assert "kept []" in said
    assert "kept ['sample']" in said
    assert (user_manager.logs / "sessiond/written").exists()


def test_a_setting_that_is_not_there_cannot_be_changed() -> None:
    """A test that changes a missing setting fails."""
    assert "WatchdogSec=1\n" in adapted(UNIT.read_text(), {"WatchdogSec": "1"})
    assert "AmbientCapabilities" not in adapted(UNIT.read_text(), {"AmbientCapabilities": None})
    with pytest.raises(KeyError):
        adapted(UNIT.read_text(), {"NoSuchSetting": "1"})


def _shipped_capabilities() -> int:
    """Return the capabilities of the shipped unit as a mask."""
    return sum(1 << number for number in (2, 12, 19, 30, 37, 38, 39))
