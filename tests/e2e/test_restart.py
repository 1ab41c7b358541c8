"""Restarts under a real service manager: no event is missing from the output."""

from __future__ import annotations

import contextlib
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
    """The daemon as a service of a user's manager, as root and without the sandbox."""

    def __init__(self, manager: UserManager, directory: Path) -> None:
        self.manager = manager
        self.directory = directory
        self.output = directory / "events.ndjson"
        self.log = directory / "log"
        self.config = directory / "sessiond.yml"
        self.configure()
        command = f"{sys.executable} -m sessiond run -c {self.config}"
        text = adapted(UNIT.read_text(), {"ExecStart": command})
        # The sandbox has its own tests; here it would hide this checkout and its directories.
        kept = (
            "Type NotifyAccess ExecStart ExecReload Restart RestartSec FileDescriptorStoreMax "
            "KillMode Environment RestartPreventExitStatus TimeoutStopSec"
        ).split()
        lines = [line for line in text.splitlines() if line.split("=")[0] in kept]
        lines += [f"StandardOutput=append:{self.log}", f"StandardError=append:{self.log}"]
        lines = [line.replace("RestartSec=1", "RestartSec=100ms") for line in lines]
        self.unit = "[Unit]\nStartLimitIntervalSec=0\n[Service]\n" + "\n".join(lines) + "\n"
        manager.install(NAME, self.unit)

    def forget_descriptors(self) -> None:
        """Make the manager store no descriptors, as most other ways to run a service."""
        text = "\n".join(
            line for line in self.unit.splitlines() if not line.startswith("FileDescriptorStoreMax")
        )
        self.manager.install(NAME, text)

    def configure(self, **settings: Any) -> None:
        """Rewrite the configuration file."""
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
        """Return the pid of the current daemon."""
        return int(self.manager.show(NAME, "MainPID"))

    def start(self) -> None:
        """Start the service, and wait until it is ready."""
        self.manager.systemctl("start", NAME)

    def restart(self) -> None:
        """Restart the service, and wait until it is ready."""
        self.manager.systemctl("restart", NAME)

    def kill(self) -> None:
        """Kill the daemon, and wait until the manager has restarted it."""
        killed = until(lambda: self.pid, 20, "a daemon")
        with contextlib.suppress(ProcessLookupError):
            os.kill(killed, signal.SIGKILL)

        def again() -> bool:
            return self.pid not in (0, killed) and (
                self.manager.show(NAME, "ActiveState") == "active"
            )

        until(again, 20, "the next start")

    def stop(self) -> None:
        """Stop the service permanently."""
        self.manager.systemctl("stop", NAME)

    def documents(self) -> list[dict[str, Any]]:
        """Return the documents of the output, each of which is complete."""
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


def test_a_stop_restores_the_host(service: Service, audit_state: AuditState) -> None:
    """After restarts and a crash, a stop leaves audit as before the first start."""
    running = AuditState.read()
    service.restart()
    service.kill()
    assert AuditState.read().status["enabled"] == "1"
    assert len(AuditState.read().rules) >= len(running.rules)
    service.stop()
    assert AuditState.read() == audit_state


# Seconds after which the daemon is killed again: also during its start.
KILLS = (1.0, 0.2, 0.05, 1.5, 0.2, 0.4)
NOBODY = {"type": "unix_stream", "address": "nobody.sock"}


@pytest.mark.parametrize(
    ("two_outputs", "forks"),
    [(False, False), (True, True)],
    ids=["one output", "two outputs, with forks"],
)
def test_every_event_is_written_once_through_restarts_and_kills(
    service: Service, spawns: Spawns, *, two_outputs: bool, forks: bool
) -> None:
    """Relatives are the same in lines of every run, and the numbers increase by one."""
    outputs: dict[str, Any] = {"file": {"path": str(service.output), "rotate": {"size": 0}}}
    if two_outputs:
        address = str(service.directory / NOBODY["address"])
        outputs["socket"] = {**NOBODY, "address": address}
    service.stop()
    service.output.unlink()
    service.configure(output=outputs, event={"fork_events": forks})
    service.start()
    storm = spawns.start(12_000)
    for seconds in KILLS:
        time.sleep(seconds)
        service.kill()
    service.restart()
    service.kill()
    service.restart()
    storm.communicate(timeout=100)
    time.sleep(1)
    service.stop()
    log = service.log.read_text()
    everything = service.documents()
    assert_each_once(everything)
    assert_all_known(everything)
    documents = [each for each in everything if of_spawns(each)]
    told = Counter(each["event"]["action"] for each in documents)
    # The spawning program is a process as well; root forked it.
    expected = {"exec": 12_001, "end": 12_001, **({"fork": 12_000} if forks else {})}
    assert {action: told[action] for action in expected} == expected, log
    lives = [each for each in documents if each["event"]["action"] in ("exec", "end")]
    assert {each["process"]["session_leader"]["entity_id"] for each in lives} == {
        lives[0]["process"]["session_leader"]["entity_id"]
    }
    parents = Counter(each["process"]["parent"]["entity_id"] for each in lives)
    assert sorted(parents.values()) == [2, 24_000]
    assert "set_aside" not in log


def test_kills_in_the_middle_of_a_reload_or_a_stop(service: Service, spawns: Spawns) -> None:
    """The daemon is killed in any phase, also twice in a row."""
    outputs: dict[str, Any] = {"file": {"path": str(service.output), "rotate": {"size": 0}}}
    outputs["socket"] = {**NOBODY, "address": str(service.directory / NOBODY["address"])}
    service.stop()
    service.output.unlink()
    service.configure(output=outputs)
    service.start()
    # As many as the tracer's ring holds, because they outrun a daemon that is always killed.
    storms = [spawns.start(2_500), spawns.start(2_500)]
    for verb in ("reload", "restart"):
        for seconds in (0.0, 0.02, 0.1, 0.3):
            service.manager.systemctl("--no-block", verb, NAME)
            time.sleep(seconds)
            pid = service.pid
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
            service.kill()
    for storm in storms:
        storm.communicate(timeout=100)
    time.sleep(1)
    service.stop()
    everything = service.documents()
    assert_each_once(everything)
    assert_all_known(everything)
    told = Counter(each["event"]["action"] for each in everything if of_spawns(each))
    assert (told["exec"], told["end"]) == (5_002, 5_002), service.log.read_text()[-3000:]


UID = str(USER)


def assert_all_known(documents: list[dict[str, Any]]) -> None:
    """Check that the tracer has reported every process of audit events."""
    lives = (each for each in documents if each["event"]["action"] in ("fork", "exec", "end"))
    assert [each for each in lives if not entity_id(each)] == []


def assert_each_once(documents: list[dict[str, Any]]) -> None:
    """Check that no event is in the output twice, and that the numbers increase by one."""
    ids = Counter(each["event"]["id"] for each in documents)
    assert [each for each, number in ids.most_common(3) if number > 1] == []
    numbers = [each["event"]["sequence"] for each in documents]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    steps = Counter(
        (each["event"]["action"], each["process"]["entity_id"])
        for each in documents
        if each["event"]["action"] in ("fork", "end", "already_running") and entity_id(each)
    )
    assert [each for each, number in steps.most_common(3) if number > 1] == []


@pytest.mark.parametrize("backend", ["ebpf", "proc_connector"])
def test_without_a_descriptor_store_only_gaps_are_missing(
    service: Service, spawns: Spawns, backend: str
) -> None:
    """The time between a kill and the next start is reported, and no event is repeated."""
    service.stop()
    service.output.unlink()
    service.configure(session_metadata={"backend": backend, "fallback": False})
    service.forget_descriptors()
    service.start()
    storm = spawns.start(12_000)
    for seconds in KILLS:
        time.sleep(seconds)
        service.kill()
    storm.communicate(timeout=100)
    time.sleep(1)
    service.stop()
    everything = service.documents()
    assert_each_once(everything)
    gaps = [
        each["event"]
        for each in everything
        if each.get("sessiond", {}).get("loss", {}).get("hop") == "gap"
    ]
    assert len(gaps) == len(KILLS)
    execs = {entity_id(each) for each in everything if each["event"]["action"] == "exec"}
    ends = [each for each in everything if each["event"]["action"] == "end"]
    assert execs <= {entity_id(each) for each in ends if of_spawns(each)} | {
        entity_id(each) for each in everything if not of_spawns(each)
    }
    for end in ends:
        if of_spawns(end) and entity_id(end) not in execs:
            assert any(
                gap["start"] <= end["process"]["start"] <= gap["end"]
                or gap["start"] <= end["@timestamp"] <= gap["end"]
                for gap in gaps
            )


def of_spawns(document: dict[str, Any]) -> bool:
    """Return whether an event is about a process of the spawning program."""
    user: dict[str, Any] = document.get("process", {}).get("user", {})
    return user.get("id") == UID


def entity_id(document: dict[str, Any]) -> str:
    """Return the process of an event; "" for events about sessiond."""
    return str(document.get("process", {}).get("entity_id", ""))


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
    """Processes that ended long ago are known after a restart, a crash, and both."""
    flag = service.directory / "flag"
    command = [sys.executable, "-c", SCRIPT.format(flag=str(flag))]
    subprocess.run(command, check=True)
    time.sleep(2)  # the leader ends in this time
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
