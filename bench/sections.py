"""The sections of the benchmark: each is a function that returns rows for the report."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from bench import host, paper
from bench.consumers import Consumer, Sessiond
from bench.filters import filters
from bench.host import BenchError, audit_lent, audit_status, cpu, memory, thread_cpu
from bench.instructions import instructions
from bench.living import living
from bench.load import Growth, arrived, percentile
from bench.plan import (
    AFTERMATH,
    FAILURES,
    SETTLE,
    Plan,
    Row,
    in_build,
    note,
    python_path,
    started,
    work,
)
from bench.rotation import rotation
from bench.slowdown import slowdown


def _under_load(
    plan: Plan, consumer: Consumer, *, rate: float, seconds: float, spawners: int, watch: bool
) -> Row:
    assert plan.spawner is not None
    growth = Growth()
    with audit_lent(), work(plan) as directory:
        with consumer.running(directory) as running:
            time.sleep(SETTLE)
            at_start = memory(running.pid)
            lost, kauditd = int(audit_status()["lost"]), thread_cpu("kauditd")
            before = cpu(running.pid)
            if watch:
                with growth.watching(running.output):
                    truth = plan.spawner.run(rate=rate, seconds=seconds, number=spawners)
                    time.sleep(AFTERMATH)
            else:
                truth = plan.spawner.run(rate=rate, seconds=seconds, number=spawners)
                time.sleep(AFTERMATH)
            used = cpu(running.pid) - before
            kernel = thread_cpu("kauditd") - kauditd
            at_end = memory(running.pid)
            lost = int(audit_status()["lost"]) - lost
        # The consumer has ended, so its output is complete.
        execs, ends, delays = arrived(running.output, consumer.reader, truth, growth)
        written = running.output.stat().st_size if running.output.exists() else 0
    row: Row = {
        "consumer": consumer.name,
        "processes": truth.number,
        "rate": truth.number / truth.seconds,
        "cpu_us": used / truth.number / 1000,
        "kauditd_us": kernel / truth.number / 1000,
        "execs": execs,
        "ends": ends,
        "lost": lost,
        "bytes": written / truth.number,
        "start_s": running.seconds_to_ready,
        "pss_start_mb": at_start["pss"],
        "pss_end_mb": at_end["pss"],
        "rss_start_mb": at_start["rss"],
        "rss_end_mb": at_end["rss"],
    }
    if watch:
        row |= {
            "p50_ms": percentile(delays, 0.5),
            "p99_ms": percentile(delays, 0.99),
            "max_ms": delays[-1] if delays else None,
        }
    return row


def _rounds(plan: Plan, consumers: Sequence[Consumer], **load: Any) -> list[Row]:  # noqa: ANN401 - handed on
    rows = []
    failed: set[str] = set()
    for number in range(1, plan.rounds + 1):
        for consumer in consumers:
            if consumer.name in failed:
                continue
            try:
                row = _under_load(plan, consumer, **load)
            except FAILURES as error:
                failed.add(consumer.name)
                plan.failed(consumer, error)
                continue
            rows.append(row)
            note(
                f"round {number}: {consumer.name}: {row['processes']} processes at "
                f"{row['rate']:.0f}/s, {row['cpu_us']:.1f} us each, {row['execs']} execs, "
                f"{row['ends']} ends"
            )
    return rows


def load(plan: Plan) -> list[Row]:
    """CPU, completeness, memory and start, at a steady rate."""
    return _rounds(
        plan, plan.consumers, rate=plan.rate, seconds=plan.length(10), spawners=1, watch=False
    )


def flat(plan: Plan) -> list[Row]:
    """The same load without pauses, by two spawners."""
    return _rounds(plan, plan.consumers, rate=0, seconds=plan.flat_seconds, spawners=2, watch=False)


def delay(plan: Plan) -> list[Row]:
    """Measure the delay from an exec to its line in the file, at the steady rate."""
    return _rounds(
        plan, plan.consumers, rate=plan.rate, seconds=plan.length(10), spawners=1, watch=True
    )


def rules(plan: Plan) -> list[Row]:
    """Measure the cost of an event with 1,000 further rules loaded."""
    more = [
        f"-a always,exit -F arch=b64 -S kexec_load -F auid={100_000 + number} -k never"
        for number in range(1_000)
    ]
    consumers: list[Consumer] = []
    for ours in plan.audited:
        consumers.append(ours)
        name = f"{ours.name}, 1,000 more rules"
        consumers.append(Sessiond(name, ours.packages, backend=plan.backend, more_rules=more))
    return _rounds(
        plan, consumers, rate=plan.rate, seconds=plan.length(10), spawners=1, watch=False
    )


def flood(plan: Plan) -> list[Row]:
    """Count lost execs while a user floods the host with execs that fail."""
    assert plan.spawner is not None
    seconds = plan.length(10)
    rows = []
    for consumer in [*plan.peers, *plan.installed]:
        try:
            with audit_lent(), work(plan) as directory:
                with consumer.running(directory) as running:
                    time.sleep(SETTLE)
                    lost, before = int(audit_status()["lost"]), cpu(running.pid)
                    with plan.spawner.refused(seconds) as flooder:
                        truth = plan.spawner.run(rate=0, seconds=seconds, number=2)
                        refused = int(flooder.communicate(timeout=60)[0])
                    time.sleep(AFTERMATH)
                    used = cpu(running.pid) - before
                    lost = int(audit_status()["lost"]) - lost
                    resident = memory(running.pid)["pss"]
                execs, ends, _ = arrived(running.output, consumer.reader, truth)
        except FAILURES as error:
            plan.failed(consumer, error)
            continue
        rows.append(
            {
                "consumer": consumer.name,
                "processes": truth.number,
                "rate": truth.number / truth.seconds,
                "refused_per_s": refused / seconds,
                "execs": execs,
                "ends": ends,
                "lost": lost,
                "cpu_s": used / 1e9,
                "pss_end_mb": resident,
            }
        )
        note(f"{consumer.name}: {truth.number - execs} of {truth.number} execs are missing")
    return rows


def memory_over_time(plan: Plan) -> list[Row]:
    """Measure the memory of sessiond at the steady rate, each minute."""
    assert plan.spawner is not None
    rows = []
    for ours in plan.installed:
        try:
            with started(plan, ours) as (running, _):
                left = plan.length(60, 6)
                passed, processes = 0.0, 0
                rows.append({"consumer": ours.name, "seconds": 0.0, **memory(running.pid)})
                while left > 0:
                    step = min(left, 3.0 if plan.quick else 60.0)
                    truth = plan.spawner.run(rate=plan.rate, seconds=step, number=1)
                    processes += truth.number
                    passed, left = passed + step, left - step
                    rows.append({"consumer": ours.name, "seconds": passed, **memory(running.pid)})
        except FAILURES as error:
            plan.failed(ours, error)
            continue
        note(f"{ours.name}: {rows[-1]['pss']:.1f} MB after {processes} processes")
    return rows


def idle(plan: Plan) -> list[Row]:
    """Measure the CPU time without a load; other activity of the host is counted in lines."""
    rows = []
    for consumer in plan.consumers:
        try:
            with started(plan, consumer) as (running, _):
                time.sleep(AFTERMATH)
                size = running.output.stat().st_size if running.output.exists() else 0
                before, begin = cpu(running.pid), time.monotonic()
                time.sleep(plan.idle_seconds)
                used = cpu(running.pid) - before
                seconds = time.monotonic() - begin
                lines = 0
                if running.output.exists():
                    with running.output.open("rb") as output:
                        output.seek(size)
                        lines = sum(1 for _ in output)
        except FAILURES as error:
            plan.failed(consumer, error)
            continue
        percent = used / 1e9 / seconds * 100
        rows.append({"consumer": consumer.name, "idle_percent": percent, "lines": lines})
        note(f"{consumer.name}: {percent:.3f}% of a core")
    return rows


def table(plan: Plan) -> list[Row]:
    """Measure the cost of a process in the pipeline, with growing numbers of other processes."""
    sizes = (100, 10_000) if plan.quick else (100, 1_000, 10_000, 100_000)
    lives = 2_000 if plan.quick else 5_000
    rows = []
    for number in range(1, plan.rounds + 1):
        for ours in plan.audited:
            for size in sizes:
                cost = float(in_build(ours, "bench.paper", size, lives))
                rows.append({"consumer": ours.name, "table": size, "cpu_us": cost})
                note(f"round {number}: {ours.name}, {size} processes: {cost:.1f} us each")
    return rows


def replay(plan: Plan) -> list[Row]:
    """Measure the speed of reading a log, and whether memory depends on its size."""
    least = 2_000 if plan.quick else 10_000
    rows = []
    with work(plan) as directory:
        log, output = directory / "audit.log", directory / "events.ndjson"
        for processes in (least, 10 * least):
            records = paper.write_log(log, processes)
            for ours in plan.audited:
                command = [sys.executable, "-m", "sessiond", "replay", "--jobs", "1"]
                begin = time.monotonic()
                process = subprocess.Popen(
                    [*command, "-o", output, log], env=python_path(ours.packages)
                )
                peak, ended = 0.0, 0
                while not ended:
                    # Not ru_maxrss, which a new process inherits from its parent.
                    peak = max(peak, host.peak_memory(process.pid))
                    time.sleep(0.01)
                    ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                process.returncode = os.waitstatus_to_exitcode(status)
                took = time.monotonic() - begin
                if process.returncode:
                    raise BenchError(f"{ours.name}: replay failed: exit {process.returncode}")
                used = usage.ru_utime + usage.ru_stime
                row = {
                    "consumer": ours.name,
                    "records": records,
                    "records_per_s": records / used,
                    "wall_records_per_s": records / took,
                    "peak_mb": peak,
                }
                rows.append(row)
                note(f"{ours.name}: {records} records, {row['records_per_s']:.0f}/s of CPU")
    return rows


SECTIONS: Final = {
    "load": load,
    "flat": flat,
    "delay": delay,
    "idle": idle,
    "rules": rules,
    "rotation": rotation,
    "slowdown": slowdown,
    "flood": flood,
    "memory": memory_over_time,
    "living": living,
    "table": table,
    "filters": filters,
    "instructions": instructions,
    "replay": replay,
}
# The sections that require root and the kernel's audit.
KERNEL: Final = frozenset(SECTIONS) - {"table", "instructions", "replay"}
