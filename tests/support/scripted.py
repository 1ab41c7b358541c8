"""A simulated host: its processes act, and each act yields the kernel's events.

Each act has the process event and the audit records of the real kernel, so that a test can feed
them to a pipeline in any order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
from support.auditlog import FixedNames, SmallTables

from sessiond.audit.record import CWD, EOE, EXECVE, PROCTITLE, SYSCALL
from sessiond.config.schema import EventSettings
from sessiond.ecs.audit_cache import AuditEventCache
from sessiond.ecs.audit_event import AuditEventEncoder
from sessiond.ecs.line import DocumentEncoder
from sessiond.ecs.process import ProcessEncoder
from sessiond.ecs.wall_clock import WallClock
from sessiond.pipeline.event_writer import Encoders
from sessiond.pipeline.pipeline import Pipeline, PipelineOptions
from sessiond.process.argv import join_args
from sessiond.process.events import Changed, Executed, Exited, Facts, Forked, Observed, Program
from sessiond.process.table import ProcessTable
from sessiond.units import SECOND

# The boot was at 2026-05-01T10:00:00Z, and the wall clock has been right since.
BOOT = 1_777_629_600 * SECOND
MILLISECOND = 1_000_000
NUMBERS = {b"59": "execve", b"231": "exit_group", b"112": "setsid", b"2": "open"}

Records = list[tuple[int, bytes]]


def _identify(pid: int, start: int) -> str:
    return f"p{pid}-{start}"


def pipeline(**options: Any) -> Pipeline:
    """Return a pipeline for the simulated host; by default with an exact source called ebpf.

    Older processes are written only with ``inventory=True``, forks as ``fork_events`` says, and
    as many ancestors as ``ancestors``.
    """
    event: dict[str, Any] = {"inventory": False, "fork_events": "none", "ancestors": 0} | {
        name: options.pop(name) for name in EventSettings.__struct_fields__ if name in options
    }
    chosen: dict[str, Any] = {"source": "ebpf", "exact": True, "event": EventSettings(**event)}
    chosen |= options
    return Pipeline(
        PipelineOptions(**chosen),
        table=ProcessTable(_identify),
        encoders=Encoders(
            ProcessEncoder(
                FixedNames(),
                WallClock.constant(BOOT),
                identify=_identify,
                ancestors=event["ancestors"],
            ),
            DocumentEncoder(host={"name": "paper"}, identity="paper boot"),
            AuditEventCache(
                AuditEventEncoder(FixedNames(), SmallTables()),
                auditbeat_actions=chosen["event"].event_actions == "auditbeat",
            ),
        ),
        syscall_name=lambda _arch, number: NUMBERS.get(number, ""),
        context=lambda _cgroup: {},
    )


@dataclass
class Actor:
    """A process of the simulated host; times are ns since boot."""

    host: Host
    pid: int
    start: int
    facts: Facts
    program: Program

    def fork(self, pid: int, time: int) -> tuple[Actor, Forked]:
        """Fork a child, which inherits everything."""
        facts = self.facts._replace(
            pid=pid, start=time, ppid=self.pid, parent_start=self.start, vpid=pid
        )
        child = Actor(self.host, pid, time, facts, self.program)
        return child, Forked(time, facts, self.pid, self.start, self.program.comm, b"/srv")

    def execute(self, name: str, time: int, *args: str) -> tuple[Executed, Records]:
        """Execute /bin/NAME; the audit stamp is that of the clock's last tick."""
        argv = (name, *args)
        packed = join_args(each.encode() for each in argv)
        self.program = Program(name.encode(), b"/bin/" + name.encode(), packed, None)
        stamp = self.host.stamp(time)
        event = Executed(time, self.facts, self.program, b"/srv", stamp)
        told = " ".join(
            f'a{number}="{each.decode()}"' for number, each in enumerate(self.program.argv)
        )
        records = self.host.records(
            self,
            time,
            "59 success=yes exit=0",
            (EXECVE, f"argc={len(argv)} {told}".encode()),
            (CWD, b'cwd="/srv"'),
        )
        return event, records

    def fail_to_execute(self, time: int) -> Records:
        """Try to execute a file without permission."""
        return self.host.records(self, time, "59 success=no exit=-13")

    def exit(self, code: int, time: int) -> tuple[Exited, Records]:
        """Call exit_group."""
        event = Exited(time + 5_000, self.facts, code << 8, group_exit=True)
        return event, self.host.records(self, time, "231", a0=code)

    def die(self, signal: int, time: int) -> Exited:
        """End by a signal, for which audit has no record."""
        return Exited(time, self.facts, signal, group_exit=True)

    def set_session(self, time: int) -> tuple[Changed, Records]:
        """Call setsid."""
        self.facts = self.facts._replace(sid=self.pid, pgid=self.pid)
        records = self.host.records(self, time, f"112 success=yes exit={self.pid}")
        return Changed(time, self.facts, "session"), records


@dataclass
class Host:
    """Numbers the audit events; ``shell`` is a session leader older than the daemon."""

    serial: int = 100
    shell: Actor = field(init=False)

    def __post_init__(self) -> None:
        """Start the shell."""
        facts = Facts(
            pid=60, start=5 * SECOND + 1, ppid=1, parent_start=None, pgid=60, sid=60, vpid=60,
            tty_major=136, tty_minor=0, uid=0, euid=0, suid=0, fsuid=0, gid=0, egid=0, sgid=0,
            fsgid=0, cap_permitted=0, cap_effective=0, loginuid=None, audit_session=None,
            pid_namespace=1, mount_namespace=2, user_namespace=3, network_namespace=4,
            cgroup_id=None,
        )  # fmt: skip
        self.shell = Actor(
            self, 60, facts.start, facts, Program(b"bash", b"/bin/bash", b"bash\0", None)
        )

    def snapshot(self) -> list[Observed]:
        """Return the processes that are older than the daemon."""
        init = self.shell.facts._replace(pid=1, start=1, ppid=0, pgid=1, sid=1, tty_major=0)
        return [
            Observed(
                6 * SECOND, init, Program(b"init", b"/sbin/init", b"init\0", None), b"/", None
            ),
            Observed(6 * SECOND, self.shell.facts, self.shell.program, b"/root", None),
        ]

    def stamp(self, time: int) -> int:
        """Return the audit stamp, ms since the epoch, of a syscall at that time: ticks are 4 ms."""
        return (BOOT + time) // (4 * MILLISECOND) * 4

    def records(
        self, who: Actor, time: int, call: str, *more: tuple[int, bytes], a0: int = 0
    ) -> Records:
        """Return the records of a syscall, ending with EOE."""
        self.serial += 1
        stamp = self.stamp(time)
        head = f"audit({stamp // 1000}.{stamp % 1000:03d}:{self.serial}): ".encode()
        facts, name = who.facts, who.program.comm.decode()
        text = (
            f"arch=c000003e syscall={call} a0={a0:x} a1=1 a2=2 a3=3 items=0 ppid={facts.ppid}"
            f" pid={who.pid} auid=4294967295 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0"
            f' fsgid=0 tty=(none) ses=4294967295 comm="{name}" exe="/bin/{name}" key="k"'
        ).encode()
        title = b"proctitle=" + name.encode().hex().encode()
        told = [(SYSCALL, text), *more, (PROCTITLE, title), (EOE, b"")]
        return [(kind, head + each) for kind, each in told]


def documents(lines: list[bytes]) -> list[dict[str, Any]]:
    """Decode lines; each must be one line of JSON."""
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    return [orjson.loads(line) for line in lines]
