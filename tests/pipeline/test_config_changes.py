"""A change of the audit configuration is reported with its author."""

from __future__ import annotations

from sessiond.audit.reassembler import AuditEvent
from sessiond.audit.record import CONFIG_CHANGE, SYSCALL, Record
from sessiond.pipeline.config_changes import config_change, is_config_change
from sessiond.units import AuditStamp

REMOVED = b'auid=1000 ses=3 op=remove_rule key="exec" list=4 res=1'
CALL = (
    b"arch=c000003e syscall=44 success=yes exit=1056 a0=3 a1=7ffd a2=420 a3=0 items=0 ppid=5 pid=6"
    b" auid=1000 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=pts0 ses=3"
    b' comm="evil" exe="/tmp/evil" key=(null)'
)
ENABLED = b"op=set audit_enabled=0 old=1 auid=4294967295 ses=4294967295 res=1"


def nobody(_uid: int) -> None:
    """Return no name for any user."""


def event(*records: tuple[int, bytes]) -> AuditEvent:
    """Return an audit event of these records."""
    made = AuditEvent(AuditStamp(1000), 1, 0)
    made.records = [Record(kind, text) for kind, text in records]
    return made


def test_a_rule_that_was_removed_is_told_with_its_author() -> None:
    """The author is the login user, by name if known, and the program."""
    removed = event((CONFIG_CHANGE, REMOVED), (SYSCALL, CALL))
    assert is_config_change(removed)
    change = config_change(removed, {1000: "ann"}.get)
    assert change.text == 'op=remove_rule key="exec" list=4'
    assert (change.auid, change.user, change.pid, change.comm) == (1000, "ann", 6, "evil")


def test_a_change_without_a_login_user_has_none() -> None:
    """4294967295 is the kernel's value for unset."""
    change = config_change(event((CONFIG_CHANGE, ENABLED)), nobody)
    assert (change.text, change.auid, change.user) == ("op=set audit_enabled=0 old=1", None, None)


def test_other_events_are_no_changes() -> None:
    """Neither a system call nor an event without records is one."""
    assert not is_config_change(event((SYSCALL, CALL)))
    assert not is_config_change(event())
