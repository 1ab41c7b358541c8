"""Restarts under a real service manager: what happens meanwhile is in the output all the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.kernel import AuditState
from support.manager import UNIT, UserManager, adapted
from support.spawns import USER, Spawns
from support.truth import until

pytestmark = pytest.mark.kernel

NAME = "sessiond-restart.service"
RULES = f"""
-a always,exit -F arch=b64 -S execve,execveat -F uid={USER} -k exec
-a always,exit -F arch=b64 -S exit_group -F uid={USER} -k exit
"""


class Service:
    """The daemon as a service of a user's manager; it runs as root, outside the sandbox."""

    def __init__(self, manager: UserManager, directory: Path) -> None:
        self.manager = manager
        self.directory = directory
        self.output = directory / "events.ndjson"
        self.log = directory / "log"
        self.config = directory / "sessiond.yml"
        self.configure()
        command = f"{sys.executable} -m sessiond run -c {self.config}"
        text = adapted(UNIT.read_text(), {"ExecStart": command})
        # The sandbox has tests of its own; here it would hide this checkout and its directories.
        kept = (
            "Type NotifyAccess ExecStart ExecReload Restart RestartSec FileDescriptorStoreMax "
            "KillMode Environment RestartPreventExitStatus TimeoutStopSec"
        ).split()
        lines = [line for line in text.splitlines() if line.split("=")[0] in kept]
        lines += [f"StandardOutput=append:{self.log}", f"StandardError=append:{self.log}"]
        lines = [line.replace("RestartSec=1", "RestartSec=100ms") for line in lines]
        manager.install(NAME, "[Unit]\nStartLimitIntervalSec=0\n[Service]\n" + "\n".join(lines))

    def configure(self, **settings: Any) -> None:
        """Write the configuration file anew."""
        self.config.write_text(
            yaml.safe_dump(
                {
                    "auditd": {"audit_rules": RULES},
                    "output": {"file": {"path": str(self.output), "rotate": {"size": 0}}},
                    "state_directory": str(self.directory / "state"),
                    "runtime_directory": str(self.directory / "run"),
                    **settings,
                }
            )
        )
        self.config.chmod(0o600)

    @property
    def pid(self) -> int:
        """Of the daemon that runs now."""
        return int(self.manager.show(NAME, "MainPID"))

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.manager.systemctl("start", NAME)

    def restart(self) -> None:
        """Restart it, and wait until it is ready."""
        self.manager.systemctl("restart", NAME)

    def kill(self) -> None:
        """Kill it, and wait until the manager has started it again."""
        killed = self.pid
        os.kill(killed, signal.SIGKILL)

        def again() -> bool:
            return self.pid not in (0, killed) and (
                self.manager.show(NAME, "ActiveState") == "active"
            )

        until(again, 20, "the next start")

    def stop(self) -> None:
        """Stop it for good."""
        self.manager.systemctl("stop", NAME)

    def documents(self) -> list[dict[str, Any]]:
        """Return the documents of the output, of which none may be half."""
        data = self.output.read_bytes()
        assert data.endswith(b"\n")
        return [json.loads(line) for line in data.splitlines()]


@pytest.fixture
def service(
    audit_state: AuditState, user_manager: UserManager, tmp_path: Path
) -> Iterator[Service]:
    """The daemon, started by a service manager."""
    one = Service(user_manager, tmp_path)
    one.start()
    yield one
    user_manager.systemctl("stop", NAME, check=False)


def test_a_stop_gives_the_host_back(service: Service, audit_state: AuditState) -> None:
    """After restarts and a crash, a stop leaves audit as it was before the first start."""
    running = AuditState.read()
    service.restart()
    service.kill()
    assert AuditState.read().status["enabled"] == "1"
    assert len(AuditState.read().rules) >= len(running.rules)
    service.stop()
    assert AuditState.read() == audit_state


@pytest.mark.parametrize("times", [3])
def test_what_happens_during_restarts_is_told(service: Service, spawns: Spawns, times: int) -> None:
    """The exec and the end of each process are in the output once, through restarts and kills.

    Each line is whole, and says the same of the relatives whoever wrote it.
    """
    storm = spawns.start(2500 * times)
    for _ in range(times):
        service.kill()
        service.restart()
    storm.communicate(timeout=100)
    time.sleep(1)
    service.stop()
    log = service.log.read_text()
    everything = service.documents()
    documents = [each for each in everything if "exec" in each.get("tags", ())]
    documents += [
        each
        for each in everything
        if each["event"]["action"] == "end" and each["process"]["user"]["id"] == str(USER)
    ]
    told = Counter(
        (document["event"]["action"], document["process"]["entity_id"]) for document in documents
    )
    # The spawning program itself is one as well.
    expected = 2500 * times + 1
    assert Counter(action for action, _ in told) == {"exec": expected, "end": expected}, log
    assert told.total() == len(told), log
    assert {each["process"]["session_leader"]["entity_id"] for each in documents} == {
        documents[0]["process"]["session_leader"]["entity_id"]
    }
    parents = Counter(each["process"]["parent"]["entity_id"] for each in documents)
    assert sorted(parents.values()) == [2, 2 * (expected - 1)]
    numbers = [each["event"]["sequence"] for each in everything]
    assert numbers == sorted(set(numbers))
    assert "set_aside" not in log


SCRIPT = f"""
import os, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    time.sleep(1)
    os._exit(7)
while not os.path.exists({{flag!r}}):
    time.sleep(0.1)
os.setuid({USER})
os.execv("/bin/true", ["true", "last"])
"""


def test_an_ended_leader_is_known_after_restarts(service: Service) -> None:
    """What ended long before is told as before it: after a restart, a crash, and both."""
    flag = service.directory / "flag"
    command = [sys.executable, "-c", SCRIPT.format(flag=str(flag))]
    subprocess.run(command, check=True)
    time.sleep(2)  # the leader ends meanwhile
    service.restart()
    service.kill()
    service.restart()
    flag.touch()
    found: list[dict[str, Any]] = []

    def told() -> bool:
        found[:] = [
            each["process"]
            for each in service.documents()
            if each["process"].get("args") == ["true", "last"]
        ]
        return bool(found)

    until(told, 10, "the exec")
    process = found[0]
    assert process["session_leader"]["args"] == command
    assert process["session_leader"]["entity_id"] == process["parent"]["entity_id"]
    assert process["session_leader"]["pid"] != process["pid"]
    assert "incomplete" not in str(process)
