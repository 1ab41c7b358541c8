"""The shipped unit under a real service manager: sandbox, readiness, reload, watchdog, stop."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.kernel import AuditState
from support.manager import UserManager, service, strict_drop_in
from support.truth import until

from sessiond.system.capabilities import capability_bits

pytestmark = pytest.mark.kernel

NAME = "sessiond.service"


class Service:
    """sessiond as in the unit, but as the user nobody and from this checkout."""

    def __init__(self, manager: UserManager) -> None:
        self.manager = manager
        self.config = manager.directory / "sessiond.yml"
        self.output = manager.logs / "sessiond/events.ndjson"
        self.log = manager.directory / "log"
        self.configure()

    def configure(self, **settings: Any) -> None:
        """Write the configuration; the manager creates the directories."""
        self.config.write_text(
            yaml.safe_dump(
                {
                    "output": {"file": {"path": str(self.output)}},
                    "state_directory": str(self.manager.state / "sessiond"),
                    "runtime_directory": str(self.manager.runtime / "sessiond"),
                    **settings,
                }
            )
        )
        self.config.chmod(0o644)

    def start(self, more: str = "", **unit: str) -> None:
        """Install the unit, start it, and wait until it is ready; ``more`` is that of a drop-in."""
        command = f"{sys.executable} -m sessiond run -c {self.config}"
        text = service(command, self.log, **unit).replace("[Install]", f"{more}\n[Install]")
        self.manager.install(NAME, text)
        self.manager.systemctl("start", NAME, check=False)
        assert self.show("ActiveState") == "active", self.log.read_text()

    def show(self, name: str) -> str:
        """Return a property of the running unit."""
        return self.manager.show(NAME, name)

    def documents(self) -> list[dict[str, Any]]:
        """Return the documents written so far."""
        data = self.output.read_bytes()
        return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]

    def executed(self, token: str) -> dict[str, Any]:
        """Execute a program with this argument, and wait for its line."""
        # In a separate session: the tests may run in session 0, which has no leader.
        subprocess.run(["/bin/true", token], check=True, start_new_session=True)
        found: list[dict[str, Any]] = []

        def told() -> bool:
            found[:] = [
                each
                for each in self.documents()
                if each["event"]["action"] == "exec"
                and each["process"].get("args") == ["/bin/true", token]
            ]
            return bool(found)

        until(told, 10, f"the exec: {self.log.read_text()}")
        return found[0]


@pytest.fixture
def unit(audit_state: AuditState, user_manager: UserManager) -> Iterator[Service]:
    """The service, not started yet."""
    yield Service(user_manager)
    user_manager.systemctl("stop", NAME, check=False)


def test_the_unit_works(unit: Service, audit_state: AuditState) -> None:
    """The unit works in its sandbox, as its user; when it is ready it sees everything."""
    unit.start()
    assert unit.show("ActiveState") == "active"
    assert unit.show("StatusText").startswith("unicast, 8 rules, ")
    assert unit.show("StatusText").endswith(" processes by ebpf")
    document = unit.executed(str(uuid.uuid4()))
    assert document["event"]["provider"] == ["auditd", "ebpf"]
    assert document["process"]["parent"]["pid"] == os.getpid()
    assert document["process"]["working_directory"] == os.getcwd()
    assert document["process"]["entry_leader"]["entity_id"]
    tokens = [str(uuid.uuid4()) for _ in range(100)]
    for token in tokens:
        subprocess.run(["/bin/true", token], check=True)
    began = time.monotonic()
    unit.manager.systemctl("stop", NAME)
    assert time.monotonic() - began < 15
    assert unit.show("Result") == "success"
    assert AuditState.read() == audit_state
    # Events in flight at the stop are written.
    executed = [each for each in unit.documents() if each["event"]["action"] == "exec"]
    last = [each["process"]["args"][-1] for each in executed]
    assert [each for each in last if each in tokens] == tokens
    assert "Traceback" not in unit.log.read_text()


def test_only_the_first_start_compiles(unit: Service) -> None:
    """The unit's own user keeps the programs where no other user can change them."""
    cached = unit.manager.cache / "sessiond/ebpf-programs"
    assert not cached.exists()
    unit.start()
    unit.manager.systemctl("stop", NAME)
    owner = (cached.stat().st_uid, cached.stat().st_mode & 0o777)
    assert owner == (cached.parent.stat().st_uid, 0o600)
    assert cached.parent.stat().st_mode & 0o777 == 0o700
    unit.manager.systemctl("start", NAME)
    assert unit.show("StatusText").endswith(" processes by ebpf")
    assert unit.log.read_text().count("the eBPF programs were compiled") == 1


def test_the_service_works_without_the_hosts_network(unit: Service) -> None:
    """With the strict drop-in it is the audit daemon as before, but knows no addresses."""
    unit.configure(
        auditd={"socket_type": "unicast"},
        session_metadata={"backend": "ebpf", "fallback": False},
    )
    unit.start(strict_drop_in())
    assert unit.show("StatusText").startswith("unicast, 8 rules, ")
    document = unit.executed(str(uuid.uuid4()))
    assert document["event"]["provider"] == ["auditd", "ebpf"]
    assert not {"ip", "mac"} & set(document["host"])
    status = Path(f"/proc/{unit.show('MainPID')}/status").read_text()
    (permitted,) = re.findall(r"CapPrm:\t(\w+)", status)
    kept = ("CAP_AUDIT_CONTROL", "CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE")
    assert int(permitted, 16) == capability_bits(kept)
    unit.manager.systemctl("stop", NAME)
    assert unit.show("Result") == "success"


def test_a_reload_applies_what_changed_or_says_why_not(unit: Service) -> None:
    """The status shows the active configuration; an invalid file changes nothing."""

    def reload(said: str) -> None:
        unit.manager.systemctl("reload", NAME)
        # systemctl sends the signal; the daemon notifies the manager when the reload is complete.
        until(lambda: said in unit.show("StatusText"), 10, said)
        until(lambda: unit.show("ActiveState") == "active", 10, "the end of the reload")

    unit.start()
    unit.configure(auditd={"audit_rules": "-a always,exit -F arch=b64 -S execve -k only\n"})
    reload("unicast, 1 rules, ")
    assert AuditState.read().rules == ("-a always,exit -F arch=b64 -S execve -F key=only",)
    unit.configure(auditd={"audit_rules": "-a always,exit -S no_such_call\n"})
    reload("no_such_call")
    assert AuditState.read().rules == ("-a always,exit -F arch=b64 -S execve -F key=only",)
    (refused,) = [line for line in unit.log.read_text().splitlines() if "reload_refused" in line]
    assert "no_such_call" in refused
    assert unit.executed(str(uuid.uuid4()))["tags"] == ["only"]
    unit.configure()
    reload("unicast, 8 rules, ")


def test_a_hanging_daemon_is_replaced_and_nothing_is_missed(unit: Service) -> None:
    """The watchdog ends it; the next one processes the collected input."""
    unit.start(WatchdogSec="2", RestartSec="100ms")
    pid = int(unit.show("MainPID"))
    os.kill(pid, signal.SIGSTOP)
    token = str(uuid.uuid4())
    subprocess.run(["/bin/true", token], check=True)

    def replaced() -> bool:
        return int(unit.show("MainPID")) not in (0, pid) and unit.show("ActiveState") == "active"

    until(replaced, 30, "another daemon")
    assert unit.show("NRestarts") == "1"
    assert unit.executed(str(uuid.uuid4()))["event"]["provider"] == ["auditd", "ebpf"]
    told = [each for each in unit.documents() if token in each["process"].get("args", ())]
    assert [each["event"]["action"] for each in told] == ["exec", "end"]
    assert "what='the audit socket'" in unit.log.read_text()
