"""Any input of the kernel's two sources is processed without an exception.

Every line is valid JSON, in one line of UTF-8, with a unique id; the sequence has no gap; and the
kept state (processes, events in flight) is bounded. The saved state of one pipeline is valid for
the next.
"""

from __future__ import annotations

import json

from fuzz.seeds import EVENTS, framed, frames
from fuzz.tracer import PARTS, laid_out

from sessiond.audit.record import EOE
from sessiond.config.schema import (
    AuditdSettings,
    Config,
    EventSettings,
    ReassemblerSettings,
    RedactSettings,
    SessionMetadataSettings,
)
from sessiond.daemon import factory
from sessiond.ecs.wall_clock import WallClock
from sessiond.pipeline.pipeline import Pipeline
from sessiond.process.events import CgroupSeen, Facts, Lost
from sessiond.sources.ebpf.records import Decoder, MalformedRecordError
from sessiond.system.account_names import NoAccountNames
from sessiond.system.host import HostFacts

# Frames of these kinds are not audit records: a chunk of the ring, passing time, a loss, a restart
# of the daemon.
RING, TIME, LOSS, RESTART = 60_000, 60_001, 60_002, 60_003
MAX_IN_FLIGHT = 64
HOST = HostFacts(
    "host", "0" * 32, "1" * 32, "x86_64", "6.1", None, None, None, None, None, (), (), None
)  # fmt: skip
CONFIG = Config(
    auditd=AuditdSettings(
        include_raw_message=True,
        include_warnings=True,
        reassembler=ReassemblerSettings(max_in_flight=MAX_IN_FLIGHT),
    ),
    event=EventSettings(fork_events=True, include_cgroup=True, include_namespaces=True),
    session_metadata=SessionMetadataSettings(max_processes=1024),
)
REDACTED = Config(
    auditd=CONFIG.auditd,
    event=EventSettings(redact=RedactSettings(enabled=True, shipped_patterns=False)),
)
AUDITED = frozenset(("execve", "execveat", "exit_group", "setsid"))
BEGIN = 1_700_000_000_000_000_000


def _life() -> list[tuple[int, bytes]]:
    """A process's whole life from the ring: fork, exec, setsid, exit, after a snapshot."""
    return [
        (RING, laid_out(kind, 0x77, time=10**9 + kind, parts=PARTS))
        for kind in (7, 6, 0, 1, 3, 5, 4, 2)
    ]


SEEDS = [bytes([mode]) + framed(_life()) for mode in range(4)]
SEEDS += [
    bytes([number % 4])
    + framed([*_life(), *event, (EOE, event[0][1][:30]), (TIME, b"\1"), (LOSS, b"")])
    for number, event in enumerate(EVENTS)
]
SEEDS += [
    bytes([number % 4]) + framed([*_life(), *event[:1], (RESTART, b""), *event[1:], (RESTART, b"")])
    for number, event in enumerate(EVENTS)
]


def one(data: bytes) -> None:
    """Feed ``data``; its first byte selects the source that the pipeline assumes."""
    mode = data[0] if data else 0
    pipeline, now, lines = _fed(mode, frames(data[1:]))
    lines += pipeline.flush(now)
    ids = set()
    for number, line in enumerate(lines, 1):
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        event = json.loads(line)["event"]
        assert event["sequence"] == number
        ids.add(event["id"])
    assert pipeline.in_flight == 0
    assert pipeline.account()["balanced"]


def _pipeline(mode: int) -> Pipeline:
    return factory.live_pipeline(
        REDACTED if mode & 4 else CONFIG,
        NoAccountNames(),
        HOST,
        clock=WallClock.constant(BEGIN),
        source="ebpf" if mode & 1 else "procfs",
        exact=bool(mode & 1),
        audited=AUDITED if mode & 2 else frozenset(),
        always_audited=AUDITED if mode & 2 else frozenset(),
        audit_is_silent=False,
    )


def _beyond(facts: Facts, when: int) -> bool:
    """Return whether a pid or a time is outside the kernel's range."""
    pids = (facts.pid, facts.ppid, facts.pgid or 0, facts.sid or 0)
    return any(pid >> 32 for pid in pids) or any(
        time >> 61 for time in (when, facts.start, facts.parent_start or 0)
    )


def _fed(mode: int, records: list[tuple[int, bytes]]) -> tuple[Pipeline, int, list[bytes]]:
    pipeline, decoder, now, lines = _pipeline(mode), Decoder(), 2 * 10**9, list[bytes]()
    for kind, payload in records:
        if kind == TIME:
            now += int.from_bytes(payload[:4], "little") * 1_000_000
            lines += pipeline.poll(now)
        elif kind == RESTART:
            lines += pipeline.poll(now)
            left, pipeline = pipeline, _pipeline(mode)
            assert pipeline.restore(left.save(now)) == now
            assert pipeline.in_flight == left.in_flight
        elif kind == LOSS:
            pipeline.lost(now, "kernel", 1, "fuzz")
        elif kind == RING:
            try:
                event, _ = decoder.decode(payload, 0, len(payload))
            except MalformedRecordError:
                continue
            if not isinstance(event, CgroupSeen | Lost) and _beyond(event.facts, event.time):
                continue  # these numbers come from sessiond's own program in the kernel
            pipeline.feed_process([event])
        else:
            pipeline.feed_audit([(kind, payload)], now=now)
            pipeline.unknown_pids()
        assert pipeline.in_flight <= 8 * MAX_IN_FLIGHT
        assert len(pipeline.table) <= 1024 + 64
    return pipeline, now, lines
