"""The shared kernel is restored, and only one test uses it at a time."""

from __future__ import annotations

import fcntl

import pytest
from support.kernel import LOCK, AuditState, auditctl

pytestmark = pytest.mark.kernel


def test_the_lock_is_held(kernel_lock: None) -> None:
    """No other process gets the lock while the test runs."""
    with LOCK.open("w") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_changed_state_is_seen_and_restored(audit_state: AuditState) -> None:
    """Rules, the backlog limit and the wait time are restored."""
    auditctl("-a", "always,exit", "-F", "arch=b64", "-S", "swapon", "-k", "sessiond-test")
    auditctl("-b", "1234")
    auditctl("--backlog_wait_time", "1")
    changed = AuditState.read()
    assert changed != audit_state
    assert changed.status["backlog_limit"] == "1234"
    assert any("swapon" in rule for rule in changed.rules)
    audit_state.restore()
    assert AuditState.read() == audit_state
