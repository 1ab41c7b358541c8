"""The status document: health, facts, limits and the ledger of every hop."""

from __future__ import annotations

import resource
import time
from typing import Any

import msgspec

from sessiond import __version__
from sessiond.audit.kernel.controller import AuditController
from sessiond.daemon.health import Health
from sessiond.daemon.monitor import Monitor
from sessiond.daemon.outputs import OutputSet
from sessiond.daemon.source_chain import SourceChain
from sessiond.pipeline import losses
from sessiond.pipeline.pipeline import Pipeline
from sessiond.sources.procfs.guard import GuardedProcfs
from sessiond.system import proc


def usage() -> dict[str, Any]:
    """Return this process's usage: CPU time in seconds, resident memory in bytes."""
    times = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_seconds": round(times.ru_utime + times.ru_stime, 3),
        "resident_bytes": proc.resident_bytes(),
    }


class Status:
    """Composes the status document of one run for ``sessiond status``."""

    def __init__(
        self,
        audit: AuditController,
        sources: SourceChain,
        pipeline: Pipeline,
        outputs: OutputSet,
        health: Health,
        monitor: Monitor,
        procfs: GuardedProcfs,
        started: float,
    ) -> None:
        """Take the parts to query; ``started`` is in seconds since the epoch."""
        self._audit = audit
        self._sources = sources
        self._pipeline = pipeline
        self._outputs = outputs
        self._health = health
        self._monitor = monitor
        self._procfs = procfs
        self._started = started

    def document(self) -> dict[str, Any]:
        """Return the current health and counters."""
        client, source, canary = self._audit.client, self._sources.source, self._monitor.canary
        return {
            "health": self._health.status(),
            "version": __version__,
            "uptime": round(time.time() - self._started, 1),
            "usage": usage(),
            **self.facts(),
            "source_limits": list(source.degraded),
            "declined": {
                each.name: f"{each.reason}; {each.fix}" for each in self._sources.declined
            },
            "kernel": msgspec.to_builtins(client.status()),
            "socket": {
                **msgspec.to_builtins(client.counters),
                "receive_buffer": client.receive_buffer,
                "buffered": client.buffered,
                "dropped": client.dropped,
            },
            "ledger": self._ledger(),
            "canary": {"seen": canary.seen, "failure": canary.failure},
            "pipeline": self._pipeline.status(),
            "procfs": {
                "denied": self._procfs.denied,
                "malformed": self._procfs.malformed,
                "unreadable": self._procfs.unreadable,
                "readers_left_behind": self._procfs.left_behind,
            },
            "outputs": self._outputs.status(),
        }

    def facts(self) -> dict[str, Any]:
        """Return the facts for a one-line summary: role, source, number of rules and processes."""
        return {
            "role": self._audit.role,
            "source": self._sources.source.name,
            "rules": len(self._audit.ours),
            "processes": len(self._pipeline.table),
        }

    def summary(self) -> str:
        """Return the facts as a sentence for the service manager."""
        facts = self.facts()
        return (
            f"{facts['role']}, {facts['rules']} rules, {facts['processes']} processes "
            f"by {facts['source']}"
        )

    def _ledger(self) -> dict[str, Any]:
        """Return the ledger of every hop: received = written + dropped + in flight."""
        client, pipeline, outputs = self._audit.client, self._pipeline, self._outputs
        lost = pipeline.losses.totals
        statement: dict[str, Any] = {
            "kernel": {"lost": lost["kernel"], "hint_serials_unseen": pipeline.unseen},
            "socket": {
                "lost": lost["socket"],
                **losses.account(
                    client.counters.received, taken=pipeline.records, waiting=client.kept
                ),
            },
            "record": {"lost": lost["record"], "truncated": client.counters.truncated},
            "tracer": {"lost": lost["tracer"], "kinds": dict(pipeline.losses.kinds)},
            "audit_events": pipeline.account(),
            "lines": losses.account(
                pipeline.lines.counts.total(),
                written=outputs.written,
                repeated=pipeline.lines.repeated,
                waiting=pipeline.waiting,
            ),
            "output": {"lost": lost["output"], **outputs.accounts()},
        }
        filters = pipeline.status().get("filters")
        if filters is not None:
            kept = ("seen", "written", "dropped", "folded", "balanced")
            statement["filters"] = {name: filters[name] for name in kept}
        return {"balanced": losses.balanced(statement), **statement}
