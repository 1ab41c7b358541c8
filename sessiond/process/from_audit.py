"""Process events from audit events alone, for hosts without a tracer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypedDict

from sessiond.audit.reassembler import AuditEvent
from sessiond.audit.record import CWD, arguments, decode, hex_number, number
from sessiond.process.argv import join_args
from sessiond.process.events import DELETED, Executed, Facts, Forked, Program
from sessiond.process.table import Process
from sessiond.units import UNSET_ID

_CLONE_THREAD: Final = 0x10000  # include/uapi/linux/sched.h
_MAX_PTS: Final = 1 << 20  # NR_UNIX98_PTY_MAX
_TTY: Final = re.compile(rb"(pts|ttyS|tty)(\d{1,7})$")


# Bytes of an argv that are kept of a process.
MAX_ARGS_KEPT: Final = 32_768


def shortened(args: list[bytes], limit: int) -> list[bytes]:
    """Return the first arguments, at most ``limit`` bytes with NULs; the last may be cut."""
    size = 0
    for index, argument in enumerate(args):
        size += len(argument) + 1
        if size > limit:
            rest = argument[: max(0, limit - (size - len(argument)))]
            return [*args[:index], rest] if rest else args[:index]
    return args


def kept_args(args: list[bytes]) -> bytes:
    """Return the kept part of an argv, joined: at most ``MAX_ARGS_KEPT`` bytes."""
    shown = shortened(args, MAX_ARGS_KEPT)
    kept = join_args(shown)
    # A cut argument has no NUL.
    return kept if shown is args else kept[: min(len(kept) - 1, MAX_ARGS_KEPT)]


def terminal(name: bytes) -> tuple[int, int]:
    """Return the device numbers of a tty= field, 0 and 0 for none.

    All pts have the major number 136, also those beyond 255 (UNIX98_PTY_SLAVE_MAJOR); 4 is tty and,
    from 64 on, ttyS (Documentation/admin-guide/devices.txt).
    """
    match = _TTY.match(name)
    if match is None:
        return (5, 1) if name == b"console" else (0, 0)
    kind, line = match[1], int(match[2])
    if kind == b"pts":
        return (136, line) if line < _MAX_PTS else (0, 0)
    return 4, line + 64 if kind == b"ttyS" else line


def working_directory(event: AuditEvent) -> bytes | None:
    """Return the directory of an event's CWD record."""
    for record in event.records:
        if record.type == CWD:
            return decode(record.text.partition(b"cwd=")[2])
    return None


def contradicts(fields: Mapping[str, bytes], known: Process, time: int, *, executed: bool) -> bool:
    """Return whether a SYSCALL record of ``time`` can't belong to ``known``, a holder of its pid.

    If so, another process has reused the pid. A login user and a session, once set, stay; the
    parent changes only to an ancestor, when it ends; a terminal changes only by setsid(2); a
    program only by an exec, which ``executed`` says the record is.
    """
    state = known.at(time)
    facts = state.facts
    for before, now in ((facts.loginuid, "auid"), (facts.audit_session, "ses")):
        if before not in (None, UNSET_ID) and now in fields and before != number(fields[now]):
            return True
    # Facts looked up after the record may have a later parent or program.
    looked_up_later = state.observed is not None and state.observed > time
    parent = number(fields.get("ppid"))
    if parent and not looked_up_later and not _may_be_parent(parent, known, facts.ppid):
        return True
    device = facts.tty_major, facts.tty_minor
    if (0, 0) not in (device, found := terminal(fields.get("tty", b""))) and device != found:
        return True
    before_it, executable = state.program.executable, decode(fields.get("exe", b""))
    if executed or looked_up_later or before_it is None or executable is None:
        return False
    return executable.removesuffix(DELETED) != before_it


def _may_be_parent(pid: int, known: Process, before: int) -> bool:
    """Return whether a process whose parent was ``before`` can have the parent ``pid``."""
    if pid in (before, 1):
        return True
    ancestor = known.creator
    if isinstance(ancestor, Process) and ancestor.end is not None:
        return True
    while isinstance(ancestor, Process):
        if pid in (ancestor.pid, ancestor.state.facts.ppid):
            return True
        ancestor = ancestor.creator
    return False


def forked(event: AuditEvent, time: int, creator: Process) -> Forked | None:
    """Return the fork of a fork, vfork or clone record, None if it created a thread."""
    fields = event.syscall
    child = number(fields.get("exit"))
    if not child or hex_number(fields.get("a0")) & _CLONE_THREAD:
        return None
    before = creator.at(time)
    facts = before.facts._replace(
        pid=child, start=time, ppid=creator.pid, parent_start=creator.start, vpid=None
    )
    return Forked(time, facts, creator.pid, creator.start, before.program.comm, None)


def execution(
    event: AuditEvent, time: int, known: Process | None, parent: Process | None
) -> Executed:
    """Return the exec of an audit event, at ``time`` in ns since boot.

    ``known`` is the process with the pid, if any; otherwise the process is assumed to have started
    with this exec, as a child of ``parent``.
    """
    fields = event.syscall
    args, whole, count = arguments(event.records, MAX_ARGS_KEPT)
    size = sum(map(len, args)) + len(args)
    executable = decode(fields.get("exe", b"")) or b""
    deleted = executable.endswith(DELETED)
    program = Program(
        decode(fields.get("comm", b"")) or b"",
        executable.removesuffix(DELETED) or None,
        kept_args(args) if args else None,
        size if whole else size + 1,  # the size of a lost part is unknown
        deleted,
        _known(fields, "euid"),
        args_count=count or None,
    )
    facts = _known_facts(fields, known) if known is not None else _new_facts(fields, parent, time)
    return Executed(time, facts, program, working_directory(event))


def _known_facts(fields: Mapping[str, bytes], known: Process) -> Facts:
    before = known.state.facts
    device = before.tty_major, before.tty_minor
    major, minor = terminal(fields["tty"]) if "tty" in fields else device
    ppid = _known(fields, "ppid")
    return before._replace(
        ppid=before.ppid if ppid is None else ppid,
        tty_major=major,
        tty_minor=minor,
        **_ids(fields, before),
    )


def _new_facts(fields: Mapping[str, bytes], parent: Process | None, time: int) -> Facts:
    major, minor = terminal(fields.get("tty", b""))
    return Facts(
        pid=number(fields.get("pid")),
        start=time,
        ppid=number(fields.get("ppid")),
        parent_start=parent.start if parent is not None else None,
        pgid=None,
        sid=None,
        vpid=None,
        tty_major=major,
        tty_minor=minor,
        cap_permitted=None,
        cap_effective=None,
        loginuid=_known(fields, "auid"),
        audit_session=_known(fields, "ses"),
        pid_namespace=None,
        mount_namespace=None,
        user_namespace=None,
        network_namespace=None,
        cgroup_id=None,
        kernel_thread=False,
        **_ids(fields, None),
    )


def _known(fields: Mapping[str, bytes], name: str) -> int | None:
    """Return a number of a record; None without it: a limit may have cut the record."""
    value = fields.get(name)
    return number(value) if value is not None and value.isdigit() else None


class _Ids(TypedDict):
    uid: int
    euid: int
    suid: int
    fsuid: int
    gid: int
    egid: int
    sgid: int
    fsgid: int


def _ids(fields: Mapping[str, bytes], before: Facts | None) -> _Ids:
    """Return the ids of a record; without one of them that of ``before``, else UNSET_ID."""

    def of(name: str) -> int:
        found = _known(fields, name)
        known: int = UNSET_ID if before is None else getattr(before, name)
        return known if found is None else found

    return {
        "uid": of("uid"),
        "euid": of("euid"),
        "suid": of("suid"),
        "fsuid": of("fsuid"),
        "gid": of("gid"),
        "egid": of("egid"),
        "sgid": of("sgid"),
        "fsgid": of("fsgid"),
    }
