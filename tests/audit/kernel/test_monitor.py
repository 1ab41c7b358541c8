"""The monitor finds changes by other programs, and lists the rules only after a change."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from sessiond.audit.kernel.client import AuditClient, Counters, KernelAuditStatus
from sessiond.audit.kernel.controller import AuditController
from sessiond.audit.kernel.monitor import LISTING, REPAIRS, AuditMonitor
from sessiond.audit.rules import parser
from sessiond.config.schema import AuditdSettings

OURS = 4711
OTHER = "-a always,exit -F arch=b64 -S mkdir -k other"
STATUS = KernelAuditStatus(1, 1, OURS, 0, 8192, 0, 0, 0, 0, 0)


class Kernel:
    """An audit client with a simulated kernel; some of its state can't be restored."""

    multicast = False

    def __init__(self, loaded: list[bytes]) -> None:
        self.loaded = loaded
        self.now = STATUS
        self.counters = Counters()
        self.lists = 0

    def status(self) -> KernelAuditStatus:
        """Return the current status."""
        return self.now

    def list_rules(self) -> list[bytes]:
        """Return the loaded rules."""
        self.lists += 1
        return list(self.loaded)

    def add_rule(self, rule: bytes) -> None:
        """Load a rule."""
        self.loaded.append(rule)


def rule(text: str) -> bytes:
    """Return a rule in the kernel's format."""
    (found,) = parser.parse(text, "test").rules
    return found.data


@pytest.fixture
def kernel() -> Kernel:
    """A kernel with two of our rules."""
    execs = rule("-a always,exit -F arch=b64 -S execve -k exec")
    return Kernel([execs, rule("-a always,exit -F arch=b64 -S setsid -k setsid")])


@pytest.fixture
def controller(kernel: Kernel, tmp_path: Path) -> AuditController:
    """The controller of that kernel."""
    controller = AuditController(cast("AuditClient", kernel), tmp_path, "boot")
    controller.on_progress = lambda: None
    controller.owner = OURS
    controller.ours = list(kernel.loaded)
    controller.expected = {"enabled": 1, "backlog_limit": 8192}
    return controller


@pytest.fixture
def monitor(controller: AuditController) -> AuditMonitor:
    """A monitor after one check, at 0 s, without a finding."""
    monitor = AuditMonitor(controller, AuditdSettings())
    assert monitor.find(STATUS, 0, lost=False) == []
    return monitor


def found(monitor: AuditMonitor, kernel: Kernel, now: float, *, lost: bool = False) -> list[str]:
    """Return the differences at ``now``, in seconds."""
    return [finding.what for finding in monitor.find(kernel.now, now, lost=lost)]


def test_rules_are_listed_only_now_and_then(monitor: AuditMonitor, kernel: Kernel) -> None:
    """Without a record of a change, the rules are listed once in LISTING seconds."""
    kernel.loaded.pop()
    assert found(monitor, kernel, LISTING - 1) == []
    assert kernel.lists == 2
    assert found(monitor, kernel, LISTING) == ["audit rules"]


def test_a_record_of_a_change_has_them_listed(monitor: AuditMonitor, kernel: Kernel) -> None:
    """A CONFIG_CHANGE record makes only the next check list the rules."""
    kernel.loaded.pop()
    kernel.counters.config_changes += 1
    assert found(monitor, kernel, 1) == ["audit rules"]
    assert found(monitor, kernel, 2) == ["audit rules"]
    assert kernel.lists == 3


def test_a_loss_may_have_been_such_a_record(monitor: AuditMonitor, kernel: Kernel) -> None:
    """The rules are listed after records were lost, which may have included such a record."""
    kernel.loaded.pop()
    assert found(monitor, kernel, 1, lost=True) == ["audit rules"]


@pytest.mark.parametrize("blind", [{"enabled": 0}, {"pid": 1}])
def test_what_happens_while_we_are_blind_is_found(
    monitor: AuditMonitor, kernel: Kernel, blind: dict[str, int]
) -> None:
    """The rules are listed while auditing is off or another process is registered."""
    kernel.now = replace(STATUS, **blind)
    found(monitor, kernel, 1)
    kernel.loaded.pop()
    kernel.now = STATUS
    assert found(monitor, kernel, 2) == ["audit rules"]
    assert found(monitor, kernel, 3) == ["audit rules"]
    assert kernel.lists == 4


def test_where_a_rule_hides_changes_they_are_listed_always(
    monitor: AuditMonitor, kernel: Kernel
) -> None:
    """A rule that excludes CONFIG_CHANGE suppresses the records of later changes."""
    kernel.loaded.append(rule("-a always,exclude -F msgtype=CONFIG_CHANGE"))
    kernel.counters.config_changes += 1
    assert found(monitor, kernel, 1) == ["audit exclusion"]
    kernel.loaded.pop(0)
    assert found(monitor, kernel, 2) == ["audit rules", "audit exclusion"]


def test_a_repair_is_looked_at(
    monitor: AuditMonitor, kernel: Kernel, controller: AuditController
) -> None:
    """A reloaded rule is present at the next check; after REPAIRS the monitor gives up."""
    for second in range(1, REPAIRS + 2):
        kernel.loaded.pop(0)
        kernel.counters.config_changes += 1
        (finding,) = monitor.find(kernel.now, second, lost=False)
        done = monitor.repair(finding, second)
        assert (done is not None) == (second <= REPAIRS)
        assert bool(controller.missing(kernel.loaded)) == (done is None)


def test_a_lock_is_told_and_nothing_is_tried(monitor: AuditMonitor, kernel: Kernel) -> None:
    """After -e 2 differences can't be repaired before the next boot, only reported."""
    kernel.now = replace(STATUS, enabled=2, backlog_limit=64)
    findings = monitor.find(kernel.now, 1, lost=False)
    assert [each.what for each in findings] == ["audit backlog_limit", "audit lock"]
    assert "until reboot" in findings[1].reason
    assert [monitor.repair(each, 1) for each in findings] == [None, None]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("-a never,exit -F arch=b64 -S execve", 0),
        ("-a never,exit -F arch=b64 -S setsid -F uid=4242", 1),
        ("-a never,exit -S all -F exe=/usr/bin/true", 0),
        ("-a never,task", 2),
        ("-a never,user -F uid=4242", 2),
        ("-a always,exclude -F msgtype=EXECVE", 2),
        ("-a always,exclude -F uid=4242", 2),
    ],
)
def test_a_new_rule_that_withholds_records_is_found_at_once(
    monitor: AuditMonitor, kernel: Kernel, text: str, place: int
) -> None:
    """The rule stays, since it is another program's, and so does the finding."""
    kernel.loaded.insert(place, rule(text))
    kernel.counters.config_changes += 1
    (finding,) = monitor.find(kernel.now, 1, lost=False)
    assert finding.what == "audit exclusion"
    assert text.split()[1].partition(",")[0] in finding.reason
    assert monitor.repair(finding, 1) is None
    assert found(monitor, kernel, 2) == ["audit exclusion"]
    kernel.loaded.pop(place)
    kernel.counters.config_changes += 1
    assert found(monitor, kernel, 3) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("-a never,exit -F arch=b64 -S execve", 2),  # behind ours
        ("-a never,exit -F arch=b64 -S mkdir", 0),
        ("-a never,exit -F arch=b32 -S all", 0),  # ours are of the other architecture
        ("-a never,filesystem -F fstype=tracefs", 0),
        (OTHER, 0),
    ],
)
def test_a_rule_that_withholds_nothing_of_ours_is_no_finding(
    monitor: AuditMonitor, kernel: Kernel, text: str, place: int
) -> None:
    """Other programs may add rules."""
    kernel.loaded.insert(place, rule(text))
    kernel.counters.config_changes += 1
    assert found(monitor, kernel, 1) == []


def test_a_rule_that_was_there_at_the_start_is_accepted(
    kernel: Kernel, controller: AuditController
) -> None:
    """The administrator has put it there; a reload starts again."""
    kernel.loaded.insert(0, rule("-a never,exit -F arch=b64 -S execve -F uid=4242"))
    for _ in ("a start", "a reload"):
        monitor = AuditMonitor(controller, AuditdSettings())
        assert found(monitor, kernel, 1) == []
        kernel.counters.config_changes += 1
        assert found(monitor, kernel, 2) == []
