"""The section ``rotation``: CPU time and disk space with a rotated and compressed log."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, NamedTuple

from bench.consumers import Auditd, Consumer, Sessiond
from bench.host import audit_lent, audit_status, cpu, memory, written
from bench.plan import AFTERMATH, FAILURES, SETTLE, Plan, Row, note, work
from sessiond.system import packed, zstd

_SECONDS: Final = 60.0
# The shipped size of 100 MiB lasts for 14 s at 500/s. A short run uses smaller files, so that
# nearly all output is compressed, as in a long run.
_SIZE: Final = "{size: 20MiB, compress: %s}"
_SHIPPED_SIZE: Final = "{compress: %s}"
_LONG: Final = 600.0
_FORMATS: Final = ("zstd", "gzip", "none")


def rotation(plan: Plan) -> list[Row]:
    """Measure CPU time and disk space per process of a varied load."""
    seconds = plan.length(_SECONDS, 10)
    consumers: list[Consumer] = [
        Auditd(rotated=True) for each in plan.peers if each.name == "auditd"
    ]
    for ours in plan.installed:
        # Compression does not depend on audit: compare formats only with it, and not for hours.
        formats = _FORMATS if ours.audit and seconds < _LONG else ("zstd",)
        consumers += [_rotated(plan, ours, name, seconds) for name in formats]
    rows = []
    for consumer in consumers:
        try:
            row = _measured(plan, consumer, seconds)
        except FAILURES as error:
            plan.failed(consumer, error)
            continue
        rows.append(row)
        note(
            f"{consumer.name}: {row['processes']} processes at {row['rate']:.0f}/s, "
            f"{row['cpu_us']:.1f} us each, {row['disk_bytes']:.0f} bytes on disk"
        )
    return rows


def _rotated(plan: Plan, ours: Sessiond, compress: str, seconds: float) -> Sessiond:
    if compress == "zstd" and zstd.implementation() is None:
        plan.failures.append("zstd: this Python has no library for it; gzip is measured instead")
        compress = "gzip"
    return Sessiond(
        f"{ours.name}, {compress}",
        ours.packages,
        backend=plan.backend,
        audit=ours.audit,
        rotate=(_SHIPPED_SIZE if seconds >= _LONG else _SIZE) % compress,
    )


def _measured(plan: Plan, consumer: Consumer, seconds: float) -> Row:
    assert plan.spawner is not None
    with audit_lent(), work(plan) as directory:
        with consumer.running(directory) as running:
            time.sleep(SETTLE)
            lost, before = int(audit_status()["lost"]), cpu(running.pid)
            wrote = written(running.pid)
            truth = plan.spawner.run(rate=plan.rate, seconds=seconds, number=1, varied=True)
            time.sleep(AFTERMATH)
            used, wrote = cpu(running.pid) - before, written(running.pid) - wrote
            resident = memory(running.pid)["pss"]
            lost = int(audit_status()["lost"]) - lost
        stored = Stored.of(running.output)
    # auditd keeps only its newest files, uncompressed.
    output, share = (stored.written, stored.share) if isinstance(consumer, Sessiond) else (wrote, 1)
    return {
        "consumer": consumer.name,
        "processes": truth.number,
        "rate": truth.number / truth.seconds,
        "cpu_us": used / truth.number / 1000,
        "lost": lost,
        "rotated": stored.files - 1,
        "bytes": output / truth.number,
        "disk_bytes": output * share / truth.number,
        "pss_end_mb": resident,
    }


class Stored(NamedTuple):
    """A log with its rotated files: their number, and the bytes ``written`` to them.

    ``packed`` is the size of the compressed files, ``unpacked`` their size before compression.
    """

    files: int
    written: int
    packed: int
    unpacked: int

    @property
    def share(self) -> float:
        """The ratio of compression; the newest files are not compressed yet."""
        return self.packed / self.unpacked if self.unpacked else 1.0

    @classmethod
    def of(cls, output: Path) -> Stored:
        """Read a log and its rotated files."""
        files = [each for each in output.parent.iterdir() if each.name.startswith(output.name)]
        plain = small = large = 0
        for file in files:
            if file.suffix not in (".gz", ".zst"):
                plain += file.stat().st_size
                continue
            small += file.stat().st_size
            with packed.opened(str(file), "bench/run") as (source, _):
                while block := source.read(1 << 20):
                    large += len(block)
        return cls(len(files), plain + large, small, large)
