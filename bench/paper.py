"""Synthetic processes, as audit and the tracer report them.

As a program it measures the pipeline of this process, with a table of PROCESSES others:

- ``python -m bench.paper PROCESSES LIVES [traced]`` prints the us of CPU that one process (fork,
  exec, end) costs, with audit records or without.
- ``python -m bench.paper instructions LIBRARY PROCESSES LIVES [traced]`` lets callgrind, which runs
  it, count the same; LIBRARY is the built ``callgrind.c``.
- ``python -m bench.paper save PROCESSES`` prints the seconds for saving and restoring a state.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from sessiond.audit.record import CWD, EOE, EXECVE, PATH, PROCTITLE, SYSCALL
from sessiond.config import load
from sessiond.daemon import factory
from sessiond.daemon.daemon import COLLECT
from sessiond.ecs.wall_clock import WallClock
from sessiond.pipeline.pipeline import Pipeline
from sessiond.process.argv import join_args
from sessiond.process.events import Executed, Exited, Facts, Forked, Observed, ProcessEvent, Program
from sessiond.system.account_names import AccountNames
from sessiond.system.host import HostFacts
from sessiond.units import SECOND

_MILLISECOND: Final = 1_000_000
_BOOT: Final = 1_767_261_600 * SECOND  # 2026-01-01T10:00:00Z
_BEGIN: Final = 1_000 * SECOND
# One process every 2 ms lives for 1 ms: 500 a second.
_PACE: Final = 2 * _MILLISECOND
# The number of processes that the daemon sees in one turn: 50 ms of them.
_TURN: Final = 25
_FIRST_PID: Final = 1_000
_FIRST_NEW_PID: Final = 1_000_000

_HOST: Final = HostFacts(
    hostname="paper", id="0" * 32, boot_id="0" * 32, architecture="x86_64", kernel="6.1.0",
    os_name="Debian GNU/Linux", os_version="12", os_full="Debian GNU/Linux 12 (bookworm)",
    os_family="debian", os_platform="debian", ip=("192.0.2.1",), mac=("00-00-5E-00-53-01",),
    pid_namespace=4026531836,
)  # fmt: skip

AuditRecord = tuple[int, bytes]


def facts(pid: int, start: int, ppid: int, parent_start: int | None, sid: int) -> Facts:
    """Return the facts of a process of root."""
    return Facts(
        pid=pid, start=start, ppid=ppid, parent_start=parent_start, pgid=pid, sid=sid, vpid=pid,
        tty_major=136, tty_minor=0, uid=0, euid=0, suid=0, fsuid=0, gid=0, egid=0, sgid=0, fsgid=0,
        cap_permitted=0x1FFFFFFFFFF, cap_effective=0x1FFFFFFFFFF, loginuid=0, audit_session=1,
        pid_namespace=4026531836, mount_namespace=4026531841, user_namespace=4026531837,
        network_namespace=4026531840, cgroup_id=1,
    )  # fmt: skip


def snapshot(number: int) -> list[Observed]:
    """Return that many processes: every hundredth leads a session, the others are its children."""
    seen = []
    for index in range(number):
        leader = _FIRST_PID + index // 100 * 100
        pid = _FIRST_PID + index
        start = SECOND + pid * 1_001
        parent, born = (1, 1) if pid == leader else (leader, SECOND + leader * 1_001)
        name = b"bash" if pid == leader else b"sleep"
        program = Program(name, b"/usr/bin/" + name, join_args((name, b"%d" % pid)), None)
        known = facts(pid, start, parent, born, leader)
        seen.append(Observed(900 * SECOND, known, program, b"/root", b"/user.slice"))
    return seen


def audit_records(index: int, *, shells: int) -> tuple[list[AuditRecord], list[AuditRecord]]:
    """Return the audit records of one process's exec and end."""
    pid, time_ = _FIRST_NEW_PID + index, _BEGIN + index * _PACE
    ppid = _FIRST_PID + index % shells * 100
    stamp = _stamp(time_)
    common = (
        f"items={{items}} ppid={ppid} pid={pid} auid=0 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 "
        'sgid=0 fsgid=0 tty=pts0 ses=1 comm="ls" exe="/usr/bin/ls" subj=unconfined key="exec"'
    )
    execution = _event(
        stamp,
        2 * index + 1,
        (
            SYSCALL,
            "arch=c000003e syscall=59 success=yes exit=0 a0=55d0c0de a1=55d0c0df a2=55d0c0e0 a3=8 "
            + common.format(items=2),
        ),
        (EXECVE, f'argc=4 a0="ls" a1="--color=auto" a2="-l" a3="/srv/{index}"'),
        (CWD, 'cwd="/root"'),
        (PATH, f'item=0 name="/usr/bin/ls" inode=393 {_FILE}'),
        (PATH, f'item=1 name="/lib64/ld-linux-x86-64.so.2" inode=917 {_FILE}'),
        (PROCTITLE, f"proctitle={b'ls'.hex()}00{b'--color=auto'.hex()}00{b'-l'.hex()}"),
        (EOE, ""),
    )
    end = _event(
        _stamp(time_ + _MILLISECOND),
        2 * index + 2,
        (SYSCALL, "arch=c000003e syscall=231 a0=0 a1=3c a2=e7 a3=0 " + common.format(items=0)),
        (PROCTITLE, f"proctitle={b'ls'.hex()}"),
        (EOE, ""),
    )
    return execution, end


_FILE: Final = (
    "dev=fe:00 mode=0100755 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL "
    "cap_fp=0 cap_fi=0 cap_fe=0 cap_fver=0 cap_frootid=0"
)


def _event(stamp: int, serial: int, *records: tuple[int, str]) -> list[AuditRecord]:
    head = f"audit({stamp // 1000}.{stamp % 1000:03d}:{serial}): "
    return [(kind, (head + text).encode()) for kind, text in records]


def _stamp(time_: int) -> int:
    # Audit uses the coarse clock, which advances with the kernel's ticks of 4 ms.
    return (_BOOT + time_) // (4 * _MILLISECOND) * 4


def life(index: int, *, shells: int) -> tuple[list[ProcessEvent], list[AuditRecord]]:
    """Return the fork, exec and end of one process, from the tracer and from audit."""
    pid, time_ = _FIRST_NEW_PID + index, _BEGIN + index * _PACE
    parent = _FIRST_PID + index % shells * 100
    known = facts(pid, time_, parent, SECOND + parent * 1_001, parent)
    argv = (b"ls", b"--color=auto", b"-l", b"/srv/%d" % index)
    program = Program(b"ls", b"/usr/bin/ls", join_args(argv), len(join_args(argv)), owner=0)
    events: list[ProcessEvent] = [
        Forked(time_, known, parent, SECOND + parent * 1_001, b"bash", b"/root"),
        Executed(time_ + 100_000, known, program, b"/root", _stamp(time_)),
        Exited(time_ + _MILLISECOND + 5_000, known, 0, group_exit=True),
    ]
    execution, end = audit_records(index, shells=shells)
    return events, execution + end


_AUDITED = frozenset(("execve", "execveat", "exit_group", "setsid"))


class Meter(Protocol):
    """Measures what the pipeline does between ``begin`` and ``end``."""

    def warm(self) -> None:
        """Start to measure."""

    def begin(self) -> None:
        """Begin a turn of the pipeline."""

    def end(self) -> None:
        """End a turn of the pipeline."""


class CpuTime:
    """Sums the ns of CPU time of this process."""

    def __init__(self) -> None:
        """Start with zero."""
        self.used = 0
        self._began = 0

    def warm(self) -> None:
        """Start again with zero."""
        self.used = 0

    def begin(self) -> None:
        """Begin a turn."""
        self._began = time.process_time_ns()

    def end(self) -> None:
        """Add a turn."""
        self.used += time.process_time_ns() - self._began


class Callgrind:
    """Lets callgrind count, which runs this process with --instr- and --collect-atstart=no."""

    def __init__(self, library: str) -> None:
        """Take the path of the built ``callgrind.c``."""
        self._library = ctypes.CDLL(library)
        self._is_warm = False

    def warm(self) -> None:
        """Start to run under callgrind, which is 50 times slower."""
        self._library.begin()
        self._is_warm = True

    def begin(self) -> None:
        """Begin a turn."""
        if self._is_warm:
            self._library.toggle()

    def end(self) -> None:
        """End a turn."""
        self.begin()


def _pipeline(processes: int, *, traced: bool, settings: str = "{}") -> Pipeline:
    """Make the daemon's pipeline with that many processes, which it has written."""
    audited: frozenset[str] = frozenset() if traced else _AUDITED
    pipeline = factory.live_pipeline(
        load.loads(settings, "bench"),
        AccountNames(),
        _HOST,
        clock=WallClock.constant(_BOOT),
        source="ebpf",
        exact=True,
        audited=audited,
        always_audited=audited,
        audit_is_silent=traced,
    )
    pipeline.feed_process(snapshot(processes))
    # The inventory is written at the start and is not part of the cost of a further process.
    while pipeline.deadline() == 0:
        pipeline.poll(_BEGIN)
    # As the daemon does after its start.
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT, 20, 50)
    return pipeline


def measure(
    processes: int,
    lives: int,
    meter: Meter,
    *,
    traced: bool = False,
    settings: str = "{}",
    written: bool = True,
) -> None:
    """Measure the cost of ``lives`` further processes in the pipeline.

    ``settings`` are those of the configuration; ``written`` says whether the processes are written.
    """
    pipeline = _pipeline(processes, traced=traced, settings=settings)
    lines = 0
    # The first processes fill the caches, and are as many as are kept after their end.
    warm = 4 * SECOND // _PACE
    for first, events, records in _turns(warm + lives, shells=max(1, processes // 100)):
        now = _BEGIN + (first + _TURN) * _PACE
        if first == warm:
            meter.warm()
        meter.begin()
        pipeline.feed_process(events)
        pipeline.feed_audit([] if traced else records, now=now)
        polled = pipeline.poll(now)
        meter.end()
        if first >= warm:
            lines += len(polled)
    if lines < 2 * lives * 0.98 if written else lines > lives // 100:
        sys.exit(f"{lines} lines of {lives} processes: this measures something else")


def measure_save(processes: int) -> tuple[float, float]:
    """Return the seconds of CPU for saving a table of ``processes``, and for restoring it."""
    pipeline = _pipeline(processes, traced=False)
    begin = time.process_time()
    state = pipeline.save(_BEGIN)
    saved = time.process_time()
    del pipeline
    fresh = _pipeline(0, traced=False)
    restoring = time.process_time()
    fresh.restore(state)
    restored = time.process_time()
    if len(fresh.table) < processes:
        sys.exit(f"{len(fresh.table)} processes of {processes} were restored")
    return saved - begin, restored - restoring


def _turns(
    number: int, *, shells: int
) -> Iterator[tuple[int, list[ProcessEvent], list[AuditRecord]]]:
    for first in range(0, number, _TURN):
        events: list[ProcessEvent] = []
        records: list[AuditRecord] = []
        for index in range(first, first + _TURN):
            more_events, more_records = life(index, shells=shells)
            events += more_events
            records += more_records
        yield first, events, records


_LOGGED_NAMES: Final = (
    b'\x1dARCH=x86_64 SYSCALL=%s AUID="root" UID="root" GID="root" EUID="root" SUID="root" '
    b'FSUID="root" EGID="root" SGID="root" FSGID="root"'
)
_TYPES: Final = {
    SYSCALL: b"SYSCALL", EXECVE: b"EXECVE", CWD: b"CWD", PATH: b"PATH", PROCTITLE: b"PROCTITLE",
    EOE: b"EOE",
}  # fmt: skip


def write_log(path: Path, processes: int) -> int:
    """Write a log in auditd's ENRICHED format; return its number of records."""
    number = 0
    with path.open("wb") as log:
        for index in range(processes):
            for call, told in zip(
                (b"execve", b"exit_group"), audit_records(index, shells=1), strict=True
            ):
                for kind, text in told:
                    names = _LOGGED_NAMES % call if kind == SYSCALL else b""
                    log.write(b"type=%s msg=%s%s\n" % (_TYPES[kind], text, names))
                    number += 1
    return number


def main(what: str, *more: str) -> None:
    """Measure what the arguments select, and print the result."""
    traced = more[-1] == "traced"
    if what == "save":
        print(*measure_save(int(more[0])))
    elif what == "instructions":
        measure(int(more[1]), int(more[2]), Callgrind(more[0]), traced=traced)
    else:
        meter = CpuTime()
        measure(int(what), int(more[0]), meter, traced=traced)
        print(f"{meter.used / int(more[0]) / 1000:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
