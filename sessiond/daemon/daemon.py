"""The daemon: opens everything, moves bytes from the left to the right, and gives all back.

One loop, one turn: read what the audit socket has, drain the process source, let the pipeline work,
write its lines. Wake-ups cost more than bytes, so a readable descriptor only starts the beat: the
turn comes a moment later, when more has gathered, and the beat goes on until nothing is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from sessiond import errors
from sessiond.audit.kernel.controller import AuditController, clear_away
from sessiond.audit.kernel.receive import BATCH
from sessiond.audit.rules import parser, ruleset
from sessiond.audit.rules.plan import audits
from sessiond.config.load import group_id, read_rules, user_id
from sessiond.config.reference import diff, needs_restart
from sessiond.config.schema import Config
from sessiond.daemon import factory
from sessiond.daemon.health import Health
from sessiond.daemon.monitor import Monitor
from sessiond.daemon.status_server import StatusServer
from sessiond.errors import (
    AuditUnavailableError,
    OutputError,
    SavedStateError,
    SessiondError,
    SourceUnavailableError,
)
from sessiond.output import OutputThread
from sessiond.pipeline import losses, snapshot
from sessiond.pipeline.pipeline import Pipeline
from sessiond.process.events import Observed, ProcessEvent
from sessiond.restart.descriptor_store import DescriptorStore
from sessiond.restart.duplicates import DuplicateFilter
from sessiond.restart.write_ahead import PERIOD, RING, WriteAheadLog
from sessiond.sources import Declined, Source, open_source
from sessiond.sources.procfs.reader import Procfs
from sessiond.system import clock, host, systemd
from sessiond.system import log as logs
from sessiond.system.clock import boot_id, now, wall_offset
from sessiond.system.files import open_directory, trusted_users
from sessiond.system.proc import PROC

# How long, in seconds, records may gather before they are read: half of it is the usual delay of a
# line. Waking up costs as much as three processes, so 35 ms are an eighth cheaper than 20 ms.
GATHER: Final = 0.035
# Batches read in one turn at the most: outputs and signals must get their turn as well.
MOST_BATCHES: Final = 16
# How often, in seconds, the kernel's own counters and settings are looked at.
WATCH: Final = 1.0
# How often, in seconds, to read unasked: kernel threads, which come and go, don't ask.
UNASKED: Final = 10.0
# What two processes bring, at the most: after so little, to wait costs less than to look again.
FEW: Final = 32
# How long, in seconds, one check of the table for losses must be after the other: while losses go
# on, checking must not take the time that reading needs.
RECONCILE: Final = 0.25
# How often, in seconds, a table without a tracer is checked against procfs.
SWEEP: Final = 30.0
# How long, in seconds, what has gathered is read at the end.
READ_ON: Final = 3.0
# How long, in seconds, an output may take to flush at the end.
FLUSH: Final = 10.0

# Net new objects after which the collector looks for cycles; none is made on the way of an event.
COLLECT: Final = 50_000

# Exit codes after which the manager does not start us again: a person has to do something first.
FINAL: Final = (2, 3)


SYSCALLS: Final = ("execve", "execveat", "exit_group", "setsid")

# What we have changed of audit, in the runtime directory.
LEDGER: Final = "audit.json"

log = structlog.get_logger()


def run(config: Config, load: Callable[[], Config]) -> int:
    """Run the daemon until it is told to stop; ``load`` reads the configuration for a reload.

    Raises SessiondError when it can't start.
    """
    return asyncio.run(Daemon(config, load).run())


def leave_nothing(directory: Path, handover: DescriptorStore | None = None) -> None:
    """Take away what a crashed run left in the kernel, for a start that fails for good.

    The service manager doesn't start us again then, and nobody would read the records of our rules.
    ``directory`` is the runtime directory, ``handover`` what the manager kept.
    """
    handover = handover or DescriptorStore()
    handover.give_up()
    with contextlib.suppress(AuditUnavailableError):
        for note in clear_away(directory / LEDGER, boot_id(PROC), handover.audit):
            log.warning("audit", note=note)


def _make_directories(config: Config) -> None:
    """Make the directories that a service manager would have made.

    Raises OutputError when that can't be done, or when others could swap what is in them.
    """
    wanted = {
        config.runtime_directory: 0o755,
        config.state_directory: 0o700,
        config.spool_path: 0o700,
    }
    if config.output.file is not None:
        wanted[config.output.file.path.parent] = 0o750
    for path, mode in wanted.items():
        try:
            # Where it goes first: a stranger's link must not decide where we make something.
            there = next(each for each in (path, *path.parents) if os.path.lexists(each))
            os.close(open_directory(str(there), trusted=trusted_users()))
            path.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            problem = f"{path}: can't make this directory: {error.strerror}"
            if isinstance(error, PermissionError):
                problem += "; run this as root, or make it for this user"
            raise OutputError(problem) from None


class Daemon:
    """Everything that is open, and the loop that moves it."""

    def __init__(self, config: Config, load: Callable[[], Config]) -> None:
        """Take the configuration; nothing is touched before ``run``."""
        self._config = config
        self._load = load
        self._stop = asyncio.Event()
        self._stop_reason = ""
        self._started = time.time()
        # Before the loop runs: pyroute2 can't ask for addresses inside one.
        self._host = host.facts()
        self._procfs = Procfs()
        self._names = factory.names(config)
        self._beat: asyncio.TimerHandle | None = None
        self._regular: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._outputs: list[OutputThread] = []
        self._declined: list[Declined] = []
        # What the account of the lines starts from: written by then, and accepted by the output.
        self._written = 0
        self._bases: dict[OutputThread, tuple[int, int]] = {}
        self._drained = 0
        self._turned = 0.0  # when it was last read, in monotonic seconds
        self._tracer_lost = 0
        self._lost_since: int | None = None
        self._reconcile_due = 0.0
        self._exit_code = 0
        # What the service manager kept from an earlier run, until it is adopted.
        self._handover = DescriptorStore()
        # Until what was left in flight is through: what of it had been written.
        self._repeats: DuplicateFilter | None = None
        self._repeated = 0
        self._journal: WriteAheadLog
        self._boot_time = 0
        self._audit: AuditController
        self._source: Source
        self._pipeline: Pipeline
        self._health: Health
        self._vigil: Monitor

    # Life

    async def run(self) -> int:
        """Start, work until told to stop, give everything back; return the exit code."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._failed)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, f"got {signal.Signals(number).name}")
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: self._names.close())
            self._open(stack, self._wanted())
            status = await self._serve_status()
            loop.add_signal_handler(signal.SIGHUP, self.reload)
            self._listen(loop)
            self._every(WATCH, self._watch)
            if not self._source.exact:
                self._every(SWEEP, self._sweep)
            interval = systemd.watchdog_interval()
            if interval is not None:
                self._every(interval, self._feed_watchdog)
            # What the start has made stays: the collector need not look through it again and again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(COLLECT, 20, 50)
            systemd.ready(self._summary())
            log.info("started", **self._facts())
            await self._stop.wait()
            for timer in self._regular.values():
                timer.cancel()
            systemd.stopping(self._stop_reason)
            log.info("stopping", reason=self._stop_reason)
            loop.remove_signal_handler(signal.SIGHUP)
            if status is not None:
                await status.close()
        log.info("stopped", lines=self._pipeline.lines.counts.total())
        return self._exit_code

    def _failed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End with an error when a part of the loop has failed: a start anew is better than half.

        The service manager restarts us, and what the kernel keeps for us is read then.
        """
        error = context.get("exception")
        log.error("failed", reason=str(error or context.get("message")), exc_info=error)
        self._exit_code = 1
        self.stop("an internal error")

    def _feed_watchdog(self) -> None:
        """Tell the manager that we are alive, as long as the canaries come back."""
        if self._vigil.canary.failure is None:
            systemd.watchdog()

    def stop(self, reason: str) -> None:
        """End ``run``; a second call changes nothing."""
        self._stop_reason = self._stop_reason or reason
        self._stop.set()

    def _wanted(self) -> ruleset.RuleSet:
        """Return the configured rules. Raises ConfigError or RuleError, and then leaves none."""
        settings = self._config.auditd
        try:
            wanted = parser.parse_all(read_rules(settings), keep_going=settings.ignore_errors)
        except SessiondError:
            leave_nothing(self._config.runtime_directory, self._handover)
            raise
        for warning in (*wanted.warnings, *wanted.errors):
            log.warning("rule", problem=str(warning))
        return wanted

    def _open(self, stack: contextlib.ExitStack, wanted: ruleset.RuleSet) -> None:
        """Open everything, in the order in which it must work; ``stack`` closes it in reverse.

        Outputs first: who can't write has no reason to listen. The source before the rules: who is
        audited must be known already.
        """
        config = self._config
        if not wanted.rules and config.auditd.socket_type != "multicast":
            log.warning("rule", problem=ruleset.NO_RULES)
        _make_directories(config)
        self._boot_time = clock.boot_time_ns(config.runtime_directory / "boot_time")
        stack.callback(self._close_outputs)
        self._open_outputs(factory.outputs(config))
        self._journal = WriteAheadLog(
            config.runtime_directory, self._host.boot_id, str(snapshot.LAYOUT), time.monotonic()
        )
        stack.callback(self._journal.close)
        if self._journal.problem:
            log.warning("set_aside", what="what was known", reason=self._journal.problem)
            self._journal.problem = ""
        begun = now()
        self._source, self._declined = self._open_source()
        stack.callback(lambda: self._source.close())
        for declined in self._declined:
            log.warning(
                "source_declined", source=declined.name, reason=declined.reason, fix=declined.fix
            )
        for limit in self._source.degraded:
            log.warning("source_limited", source=self._source.name, limit=limit)
        self._audit = AuditController.claim(
            config.auditd,
            wanted,
            ledger=config.runtime_directory / LEDGER,
            boot_id=self._host.boot_id,
            adopted_fd=self._handover.audit,
            adopted_listener=self._handover.listener,
            memory=self._journal.memory,
            keep=self._keep_records,
        )
        self._handover.keep_audit(self._audit.client)
        self._handover.keep_source(self._source)
        stack.callback(self._close_audit)
        self._audit.meanwhile = self._meanwhile
        for note in (*self._audit.notes, *self._audit.refused):
            log.warning("audit", note=note)
        audited = self._audited()
        self._pipeline = factory.live_pipeline(
            config,
            self._names,
            self._host,
            boot_time=self._boot_time,
            source=self._source.name,
            exact=self._source.exact,
            audited=audited,
            exec_by_source=self._audit.client.multicast and "execve" not in audited,
        )
        self._health = Health(self._pipeline)
        self._vigil = Monitor(config, self._audit, self._pipeline, self._health, now())
        self._drained = now()
        self._resume(begun)

    def _resume(self, begun: int) -> None:
        """Go on where the run before us ended: with what it knew, then with what it read since.

        ``begun`` is a moment before the process source looked at who is there.
        """
        journal, pipeline = self._journal, self._pipeline
        # Whatever is found to be lost was lost after that.
        pipeline.feed_audit([], now=begun, wall_offset=wall_offset(), drained=False)
        left, journal.left = journal.left, []
        told_until = self._restore()
        events = self._source.drain()
        before = self._source.decoded(chunk for kind, chunk in left if kind == RING)
        # What it had read of the ring and not taken out yet comes twice.
        told = set(before)
        there = [event for event in events if isinstance(event, Observed)]
        since = [each for each in events if not isinstance(each, Observed) and each not in told]
        if told_until is None:
            # Who is there comes first, so that all find their relatives.
            pipeline.feed_process([*there, *before, *since])
        else:
            pipeline.feed_process([*before, *there, *since])
            pipeline.table.absent(there, begun, ended=told_until)
        records = [entry for entry in left if entry[0] != RING]
        if left and self._config.output.file is not None and len(self._outputs) == 1:
            self._repeats = DuplicateFilter(self._config.output.file.path, pipeline.lines.sequence)
            pipeline.lines.sequence = self._repeats.sequence
        if records:
            pipeline.feed_audit(records, now=now(), wall_offset=wall_offset(), drained=False)
        if left or told_until is not None:
            known = len(pipeline.table)
            log.info("resumed", processes=known, records=len(records), process_events=len(before))

    def _restore(self) -> int | None:
        """Take over what the run before us knew; return when it knew that, if it did."""
        state, self._journal.state = self._journal.state, None
        if state is None:
            return None
        try:
            return self._pipeline.restore(state)
        except SavedStateError as error:
            log.warning("set_aside", what="what was known", reason=str(error))
            return None

    def _save(self) -> None:
        """Keep for the next start what we know, and forget the log of how we came to know it."""
        began = time.monotonic()
        state = self._pipeline.save(now())
        ended = time.monotonic()
        self._journal.begin(state, ended - began, ended)

    def _keep_records(self, records: list[tuple[int, bytes]]) -> None:
        self._journal.add(records)

    def _keep_chunk(self, chunk: bytes) -> None:
        self._journal.add([(RING, chunk)])

    def _open_outputs(self, outputs: list[OutputThread]) -> None:
        for output in outputs:
            output.open()
            self._outputs.append(output)
            self._bases[output] = self._written, output.status()["accepted"]

    def _audited(self) -> frozenset[str]:
        """Return the system calls that the kernel's rules can bring events of."""
        loaded = self._audit.loaded
        return frozenset(name for name in SYSCALLS if audits(loaded, name))

    def _use(self, config: Config) -> None:
        """Let the pipeline go on with these settings, and with what the rules of now can bring."""
        audited = self._audited()
        options = dataclasses.replace(
            self._pipeline.options,
            audited=audited,
            event=config.event,
            exec_by_source=self._audit.client.multicast and "execve" not in audited,
        )
        self._pipeline.use(options)
        if config.auditd.resolve_ids != self._config.auditd.resolve_ids:
            self._names.close()
            self._names = factory.names(config)
        factory.encode_live(
            self._pipeline, config, self._names, self._host, boot_time=self._boot_time
        )

    def _open_source(self, *, after: str | None = None) -> tuple[Source, list[Declined]]:
        settings = self._config.session_metadata
        try:
            return open_source(
                "auto" if after else settings.backend,
                self._procfs,
                ring_bytes=settings.ring_buffer,
                args_limit=settings.args_limit,
                after=after,
                handed_on=() if after else self._handover.tracer,
                keep=self._keep_chunk,
            )
        except SourceUnavailableError as error:
            if after or settings.backend == "auto" or not settings.fallback:
                raise
            source, declined = self._open_source(after=settings.backend)
            return source, [Declined(error.source, error.reason, error.fix), *declined]

    def _close_audit(self) -> None:
        """Give the audit subsystem back, or on, and write what was still on its way."""
        if self._exit_code not in FINAL and systemd.will_start_again():
            self._hand_on()
        else:
            self._give_back()
        self._audit.client.close()

    def _flush(self) -> None:
        """Give the outputs their time to deliver what waits, and the log what they did not."""
        end = time.monotonic() + FLUSH
        for output in self._outputs:
            if not output.flush(end - time.monotonic()):
                log.warning("output_not_flushed", **output.status())

    def _hand_on(self) -> None:
        """Leave rules, registration and tracer as they are for the next start.

        What is ready is written; what still waits for its other half is in the journal. So is what
        an output did not take in time: it is made again then.
        """
        self._turn()
        self._vigil.canary.close()
        self._flush()
        if self._all_written():
            self._save()
        log.info("handed_on")

    def _give_back(self) -> None:
        self._handover.give_up()
        left = self._audit.release(keep_rules=self._config.auditd.keep_rules_on_exit)
        for note in left:
            log.warning("audit_not_restored", note=note)
        # The records are all there by now; a busy host never stops making process events.
        end = time.monotonic() + READ_ON
        while self._turn() and time.monotonic() < end:
            pass
        self._vigil.canary.close()
        self._write(self._pipeline.flush(now()))
        self._flush()
        self._journal.clear()

    # The beat

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for something to read; whatever comes first starts the beat."""
        loop.add_reader(self._audit.client.fileno(), self._wake)
        descriptor = self._source.fileno()
        if descriptor is not None:
            loop.add_reader(descriptor, self._wake)

    def _unlisten(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._audit.client.fileno())
        descriptor = self._source.fileno()
        if descriptor is not None:
            loop.remove_reader(descriptor)

    def _wake(self) -> None:
        loop = asyncio.get_running_loop()
        self._unlisten(loop)
        if self._beat is not None:
            self._beat.cancel()
        self._beat = loop.call_later(GATHER, self._on_beat)

    def _on_beat(self) -> None:
        loop = asyncio.get_running_loop()
        self._beat = None
        if self._stop.is_set():
            return
        began = loop.time()
        if self._turn() > FEW:
            # A long turn has gathered already; in a storm one turn follows the other.
            self._beat = loop.call_at(began + GATHER, self._on_beat)
            return
        self._listen(loop)
        deadline = self._pipeline.deadline()
        if deadline is not None:
            self._beat = loop.call_later(max(0.0, (deadline - now()) / 1e9), self._on_beat)

    def _turn(self) -> int:
        """Read, join, write; return how many records and process events there were to read."""
        self._turned = time.monotonic()
        client, pipeline = self._audit.client, self._pipeline
        if self._journal.due(self._turned) and (self._journal.full or self._all_written()):
            self._save()  # before there are new lines: those of the last turn are written by now
        records: list[tuple[int, bytes]] = []
        drained = False
        for _ in range(MOST_BATCHES):
            batch = client.receive()
            records += batch
            if len(batch) < BATCH:
                drained = True
                break
        # After the records: whoever they are about is in the ring by now.
        events = self._drain()
        time_now = now()
        pipeline.feed_process(events)
        connecting = pipeline.connecting()
        if connecting:
            pipeline.connected(self._procfs.connections(connecting))
        self._reconcile()
        pipeline.feed_audit(records, now=time_now, wall_offset=wall_offset(), drained=drained)
        if not self._source.exact:
            self._look_up()
        self._write(pipeline.poll(time_now))
        return len(records) + len(events)

    def _all_written(self) -> bool:
        """Whether every line survives our death."""
        return not any(output.volatile for output in self._outputs)

    def _drain(self) -> list[ProcessEvent]:
        """Empty the process source; move down to the next one when it is dead."""
        try:
            return self._source.drain()
        except (OSError, ValueError) as error:
            self._move_down(f"{self._source.name} has failed: {error}")
            return []

    def _reconcile(self) -> None:
        """After a loss of process events, check the table against what the kernel has."""
        lost = self._pipeline.losses.totals["tracer"]
        if lost != self._tracer_lost:
            self._tracer_lost = lost
            if self._lost_since is None:
                self._lost_since = self._drained
        self._drained = now()
        since, clock = self._lost_since, time.monotonic()
        if since is None or clock < self._reconcile_due:
            return
        self._lost_since = None
        begun = now()
        try:
            events = self._source.resnapshot()
        except OSError as error:
            self._move_down(f"{self._source.name} has failed: {error}")
            return
        gone = self._pipeline.reconcile(events, since=since, time=begun)
        self._reconcile_due = time.monotonic() + RECONCILE
        log.info("reconciled", lost=lost, gone=gone, processes=len(self._pipeline.table))

    def _move_down(self, reason: str) -> None:
        """Go on with the next source of the chain, because the one we had is dead."""
        dead, time_now = self._source, now()
        fallback = self._config.session_metadata.fallback
        if not fallback or dead.name == "procfs":
            log.error("source_failed", source=dead.name, reason=reason)
            self._exit_code = SourceUnavailableError.exit_code
            self.stop(reason)
            return
        loop = asyncio.get_running_loop()
        self._unlisten(loop)
        since = self._drained
        self._source, declined = self._open_source(after=dead.name)
        with contextlib.suppress(OSError, ValueError):
            dead.close()
        self._handover.keep_source(self._source)
        self._declined = [
            *self._declined,
            Declined(dead.name, reason, "restart sessiond to try it again"),
            *declined,
        ]
        pipeline = self._pipeline
        pipeline.use(
            dataclasses.replace(
                pipeline.options, source=self._source.name, exact=self._source.exact
            )
        )
        begun = now()
        pipeline.reconcile(self._source.drain(), since=since, time=begun)
        self._drained = now()
        if not self._source.exact:
            self._every(SWEEP, self._sweep)
        reason = f"{reason}; going on with {self._source.name}"
        self._health.degraded("process source", reason, time_now, window=(since, self._drained))
        self._wake()

    def _meanwhile(self) -> None:
        """Read while rules are being changed: nothing may fill up because that takes long."""
        self._turn()

    def _look_up(self) -> None:
        """Read from procfs who the table doesn't know: the process, then its relatives."""
        for _ in range(4):
            pids = self._pipeline.unknown_pids()
            if not pids:
                return
            found = [self._procfs.look_up(pid) for pid in pids]
            self._pipeline.feed_process([each for each in found if each is not None])

    def _write(self, lines: list[bytes]) -> None:
        if lines and self._repeats is not None:
            lines = self._repeats.without(lines)
            self._repeated = self._repeats.skipped
        if lines:
            self._written += len(lines)
            for output in self._outputs:
                output.write(lines)

    # Regular work

    def _every(self, interval: float, work: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            self._regular[work] = loop.call_later(interval, again)
            work()

        self._regular[work] = loop.call_later(interval, again)

    def _watch(self) -> None:
        """Look at the kernel, at ourselves and at the outputs."""
        time_now = now()
        descriptor = self._audit.client.fileno()
        self._vigil.look(time_now, time.monotonic())
        if self._audit.client.fileno() != descriptor:
            asyncio.get_running_loop().remove_reader(descriptor)
            self._handover.keep_audit(self._audit.client)
            self._vigil.reset()
            self._use(self._config)
            self._wake()
        if time.monotonic() > self._turned + UNASKED:
            self._turn()
        if self._vigil.canary.blind:
            self._vigil.canary.blind = False
            self._move_down(f"{self._source.name} did not see a process of ours")
        if self._journal.problem:
            self._health.degraded("what a restart needs", self._journal.problem, time_now)
        self._watch_outputs(time_now)
        if self._repeats is not None and time.time() > self._started + 2 * PERIOD:
            self._repeats = None
        self._write(self._pipeline.poll(time_now))
        self._names.refresh(time.monotonic())

    def _watch_outputs(self, time_now: int) -> None:
        for output in self._outputs:
            for loss in output.take_losses():
                begin, end = (int(wall * 1e9) - wall_offset() for wall in (loss.since, loss.until))
                reason = f"{loss.output}: {loss.reason}"
                self._pipeline.lost(end, "output", loss.lines, reason, since=begin)
            for change in output.take_events():
                what = f"output {change.output}"
                if change.healthy:
                    self._health.recovered(what, time_now, change.reason)
                else:
                    self._health.degraded(what, change.reason, time_now)

        if self._outputs and all(output.gone for output in self._outputs):
            self._exit_code = errors.READER_GONE
            self.stop("the reader of the output went away")

    def _sweep(self) -> None:
        """Find who is gone, where no tracer tells of it."""
        time_now = now()
        self._pipeline.table.reconcile(self._procfs.snapshot(), time_now)
        self._write(self._pipeline.poll(time_now))

    # Reload

    def reload(self) -> None:
        """Read the configuration again and apply what changed; keep the old one if it is bad."""
        systemd.reloading()
        status = ""
        try:
            config = self._load()
            wanted = parser.parse_all(
                read_rules(config.auditd), keep_going=config.auditd.ignore_errors
            )
            self._apply(config, wanted)
        except SessiondError as error:
            log.error(  # noqa: TRY400 -- a bad file is no bug: no traceback
                "reload_refused", reason=str(error), effect="the configuration is unchanged"
            )
            status = f"reload refused: {error}; still "
        for output in self._outputs:
            output.reopen()
        systemd.ready(status + self._summary())

    def _apply(self, config: Config, wanted: ruleset.RuleSet) -> None:
        changed = diff(self._config, config)
        restart = needs_restart(changed)
        moves = any(path.startswith("output.") for path in changed)
        if moves:
            self._replace_outputs(config)
        try:
            self._audit.reconfigure(config.auditd, wanted)
        except SessiondError:
            if moves:
                self._replace_outputs(self._config)
            raise
        for problem in self._audit.refused:
            log.warning("audit", note=problem)
        self._use(config)
        self._vigil.reconfigure(config)
        if any(path.startswith("logging.") for path in changed):
            logs.configure(config.logging.level, config.logging.format)
        self._config = config
        log.info("reloaded", changed=changed, needs_restart=restart)

    def _replace_outputs(self, config: Config) -> None:
        """Close the outputs and open those of ``config``; where these fail, the old ones again.

        Never both at once: they may share a file or a spool.
        """
        fresh = factory.outputs(config)
        self._flush()
        self._close_outputs()
        try:
            self._open_outputs(fresh)
        except SessiondError:
            self._close_outputs()
            self._open_outputs(factory.outputs(self._config))
            raise

    def _close_outputs(self) -> None:
        for output in self._outputs:
            output.close()
        self._outputs.clear()
        self._bases.clear()

    # Status

    async def _serve_status(self) -> StatusServer | None:
        settings = self._config.status_socket
        if not settings.enabled:
            return None
        server = StatusServer(
            self._config.status_socket_path,
            self.status,
            mode=settings.mode,
            owner=user_id("status_socket.owner", settings.owner),
            group=group_id("status_socket.group", settings.group),
        )
        await server.start()
        return server

    def status(self) -> dict[str, Any]:
        """Health and counters, as ``sessiond status`` shows them."""
        return {
            "health": self._health.status(),
            "uptime": round(time.time() - self._started, 1),
            **self._facts(),
            "source_limits": list(self._source.degraded),
            "declined": {each.name: f"{each.reason}; {each.fix}" for each in self._declined},
            "kernel": msgspec.to_builtins(self._audit.client.status()),
            "socket": {
                **msgspec.to_builtins(self._audit.client.counters),
                "receive_buffer": self._audit.client.receive_buffer,
                "buffered": self._audit.client.buffered,
                "dropped": self._audit.client.dropped,
            },
            "ledger": self._ledger(),
            "canary": {"seen": self._vigil.canary.seen, "failure": self._vigil.canary.failure},
            "pipeline": self._pipeline.status(),
            "procfs": {"denied": self._procfs.denied, "malformed": self._procfs.malformed},
            "outputs": {
                state.pop("output"): state for state in (o.status() for o in self._outputs)
            },
        }

    def _ledger(self) -> dict[str, Any]:
        """The account of every hop: what came in is somewhere, and what was lost is counted."""
        client, pipeline = self._audit.client, self._pipeline
        lost = pipeline.losses.totals
        written = pipeline.lines.counts.total()
        outputs = {}
        for output in self._outputs:
            state = output.status()
            written_before, accepted_before = self._bases[output]
            outputs[state["output"]] = losses.account(
                accepted_before + self._written - written_before,
                **{name: state[name] for name in ("delivered", "queued", "spooled", "dropped")},
            )
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
                written, written=self._written, repeated=self._repeated, waiting=pipeline.waiting
            ),
            "output": {"lost": lost["output"], **outputs},
        }
        return {"balanced": losses.balanced(statement), **statement}

    def _facts(self) -> dict[str, Any]:
        return {
            "role": self._audit.role,
            "source": self._source.name,
            "rules": len(self._audit.ours),
            "processes": len(self._pipeline.table),
        }

    def _summary(self) -> str:
        facts = self._facts()
        return (
            f"{facts['role']}, {facts['rules']} rules, {facts['processes']} processes "
            f"by {facts['source']}"
        )
