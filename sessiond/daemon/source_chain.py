"""The process source in use, and the fallback to the next one when it fails."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Final

import structlog

from sessiond.config.schema import SessionMetadataSettings
from sessiond.daemon.health import Health
from sessiond.errors import SourceUnavailableError
from sessiond.pipeline.pipeline import Pipeline
from sessiond.process.events import Facts, ProcessEvent
from sessiond.restart.descriptor_store import DescriptorStore
from sessiond.sources import Declined, Source, open_source
from sessiond.sources.ebpf.helper import Helper
from sessiond.sources.procfs.reader import Procfs
from sessiond.system.clock import now

# Seconds between two checks of the table after losses: while losses continue, checking must not
# take the time that reading needs.
RECONCILE_PERIOD: Final = 0.25
# Seconds between two checks of the table against procfs, without an exact source.
SWEEP_PERIOD: Final = 30.0
# Maximum number of rounds in which a process, then its relatives, are looked up in procfs.
MAX_LOOK_UPS: Final = 4

log = structlog.get_logger()


class SourceChain:
    """Opens the best source, falls back when it fails, and keeps the table in sync with the kernel.

    ``source`` is the one in use, ``declined`` the better ones with the reasons. ``on_switch`` is
    called before a failed source is closed, ``on_end`` with a reason and an exit code when no
    source is left.
    """

    def __init__(
        self,
        settings: SessionMetadataSettings,
        procfs: Procfs,
        store: DescriptorStore,
        *,
        alone: bool = False,
        on_received: Callable[[bytes], None],
        on_end: Callable[[str, int], None],
    ) -> None:
        """Take the arguments of ``open``; ``on_received`` gets data of a ring before it is freed.

        ``alone``: audit is off, so that only an exact source is sufficient. ``open`` opens the
        source; reports start with ``attach``.
        """
        self.source: Source
        self.declined: list[Declined] = []
        self.on_switch: Callable[[], None] = lambda: None
        self._settings = settings
        self._alone = alone
        self._procfs = procfs
        self._store = store
        self._on_received = on_received
        self._on_end = on_end
        self._pipeline: Pipeline
        self._health: Health
        self._drained = now()
        self._tracer_lost = 0
        self._lost_since: int | None = None
        self._reconcile_due = 0.0
        self._sweep_due = 0.0

    def open(self, helper: Helper | None = None) -> None:
        """Open the configured source or its fallback; log the limitations.

        ``helper`` is what ``sources.prepare`` has begun. Raises SourceUnavailableError.
        """
        self.source, self.declined = self._open(helper=helper)
        if self._alone and not self.source.exact:
            self.source.close()
            lacking = "; ".join(f"{better.name}: {better.reason}" for better in self.declined)
            raise SourceUnavailableError(
                self.source.name,
                f"it reports no exec by itself, and auditd.enabled is false ({lacking})",
                "set auditd.enabled: true, or see sessiond check for what the others lack",
            )
        for declined in self.declined:
            log.warning(
                "source_declined", source=declined.name, reason=declined.reason, fix=declined.fix
            )
        if self.source.remark:
            log.info("source", source=self.source.name, note=self.source.remark)
        for limit in self.source.degraded:
            log.warning("source_limited", source=self.source.name, limit=limit)

    def _open(
        self, *, after: str | None = None, helper: Helper | None = None
    ) -> tuple[Source, list[Declined]]:
        settings = self._settings
        try:
            return open_source(
                "auto" if after else settings.backend,
                self._procfs,
                ring_bytes=settings.ring_buffer,
                args_limit=settings.args_limit,
                after=after,
                stored_descriptors=() if after else self._store.tracer,
                on_received=self._on_received,
                known=self._known,
                helper=helper,
            )
        except SourceUnavailableError as error:
            if after or settings.backend == "auto" or not settings.fallback:
                raise
            source, declined = self._open(after=settings.backend)
            return source, [Declined(error.source, error.reason, error.fix), *declined]

    def _known(self, facts: Facts) -> Facts | None:
        return self._pipeline.table.known_facts(facts)

    def attach(self, pipeline: Pipeline, health: Health) -> None:
        """Feed ``pipeline`` from now on, and report failed sources to ``health``."""
        self._pipeline = pipeline
        self._health = health
        self._drained = now()
        self._sweep_due = time.monotonic() + SWEEP_PERIOD

    def close(self) -> None:
        """Release the source's resources."""
        self.source.close()

    def drain(self) -> list[ProcessEvent]:
        """Drain the source; fall back to the next one if it has failed."""
        try:
            return self.source.drain()
        except (OSError, ValueError) as error:
            self.fall_back(f"{self.source.name} has failed: {error}")
            return []

    def check(self) -> None:
        """Check once a second that the kernel still reports; fall back if it does not."""
        try:
            self.source.check()
        except OSError as error:
            self.fall_back(f"{self.source.name} has failed: {error.strerror}")

    def reconcile(self) -> None:
        """After a loss of process events, check the table against the kernel's processes."""
        lost = self._pipeline.losses.totals["tracer"]
        if lost != self._tracer_lost:
            self._tracer_lost = lost
            if self._lost_since is None:
                self._lost_since = self._drained
        self._drained = now()
        since = self._lost_since
        if since is None or time.monotonic() < self._reconcile_due:
            return
        self._lost_since = None
        begun = now()
        try:
            events = self.source.resnapshot()
        except OSError as error:
            self.fall_back(f"{self.source.name} has failed: {error}")
            return
        ended = self._pipeline.reconcile(events, since=since, time=begun)
        self._reconcile_due = time.monotonic() + RECONCILE_PERIOD
        log.info("reconciled", lost=lost, gone=ended, processes=len(self._pipeline.table))

    def sweep(self) -> None:
        """Periodically find ended processes if the source does not report ends."""
        if self.source.exact or time.monotonic() < self._sweep_due:
            return
        self._sweep_due = time.monotonic() + SWEEP_PERIOD
        self._pipeline.table.reconcile(self._procfs.snapshot(), now())

    def connect(self) -> None:
        """Look up the connections of logins for which the pipeline waits."""
        connecting = self._pipeline.connecting()
        if connecting:
            self._pipeline.connected(self._procfs.connections(connecting))

    def lookup(self) -> None:
        """Read unknown processes from procfs, then their relatives."""
        if self.source.exact:
            return
        for _ in range(MAX_LOOK_UPS):
            pids = self._pipeline.unknown_pids()
            if not pids:
                return
            found = [self._procfs.lookup(pid) for pid in pids]
            self._pipeline.feed_process([process for process in found if process is not None])

    def fall_back(self, reason: str) -> None:
        """Switch to the next source of the chain because the current one has failed."""
        failed, time_now = self.source, now()
        last = "proc_connector" if self._alone else "procfs"
        if not self._settings.fallback or failed.name in (last, "procfs"):
            log.error("source_failed", source=failed.name, reason=reason)
            self._on_end(reason, SourceUnavailableError.exit_code)
            return
        self.on_switch()
        since = self._drained
        self.source, declined = self._open(after=failed.name)
        with contextlib.suppress(OSError, ValueError):
            failed.close()
        self._store.keep_source(self.source)
        self.declined = [
            *self.declined,
            Declined(failed.name, reason, "restart sessiond to try it again"),
            *declined,
        ]
        pipeline = self._pipeline
        pipeline.use(
            dataclasses.replace(pipeline.options, source=self.source.name, exact=self.source.exact)
        )
        begun = now()
        pipeline.reconcile(self.source.drain(), since=since, time=begun)
        self._drained = now()
        self._sweep_due = time.monotonic() + SWEEP_PERIOD
        reason = f"{reason}; going on with {self.source.name}"
        self._health.degraded("process source", reason, time_now, window=(since, self._drained))
