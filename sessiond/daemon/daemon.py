"""The daemon's lifecycle: opens all parts in order, runs them, reloads, and cleans up."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import structlog

from sessiond import errors, sources
from sessiond.audit.kernel.controller import AuditController, clear_away
from sessiond.audit.kernel.disabled import DisabledAudit
from sessiond.audit.rules import parser, ruleset
from sessiond.audit.rules.plan import always_audits, audits
from sessiond.config.load import empty_patterns, group_id, read_rules, rule_arches, user_id
from sessiond.config.reference import diff, needs_restart
from sessiond.config.schema import Config
from sessiond.daemon import factory, privileges
from sessiond.daemon.health import Health
from sessiond.daemon.host_clock import HostClock
from sessiond.daemon.loop import ReadLoop
from sessiond.daemon.monitor import Monitor
from sessiond.daemon.outputs import OutputSet
from sessiond.daemon.pressure import PROCESSES, PressureGauge
from sessiond.daemon.source_chain import SourceChain
from sessiond.daemon.status import Status
from sessiond.daemon.status_server import StatusServer
from sessiond.errors import (
    AuditUnavailableError,
    OutputError,
    SessiondError,
    SourceUnavailableError,
)
from sessiond.filters import never
from sessiond.filters.exposure import exposures
from sessiond.pipeline.listing import ListRequest, ProcessList
from sessiond.pipeline.pipeline import Pipeline
from sessiond.restart.descriptor_store import DescriptorStore
from sessiond.restart.resume import Restart
from sessiond.restart.written_lines import WrittenLines
from sessiond.sources.ebpf.helper import Helper
from sessiond.sources.procfs.guard import GuardedProcfs
from sessiond.system import heap, host, systemd
from sessiond.system import log as logs
from sessiond.system.capabilities import give_up
from sessiond.system.clock import boot_id, now
from sessiond.system.files import may_read, open_directory, trusted_users
from sessiond.system.ordinary_users import ordinary_users
from sessiond.system.proc import PROC
from sessiond.units import BootTime, Monotonic

# Seconds between two checks of the kernel's counters and settings, and of the outputs.
WATCH: Final = 1.0
# Seconds between two returns of free memory to the kernel: each takes a millisecond, or four after
# a storm.
TRIM: Final = 30.0
# Seconds for reading the remaining records when the daemon stops.
FINAL_DRAIN: Final = 3.0

# Net new objects before a garbage collection; processing events creates no cycles.
COLLECT: Final = 50_000

# Exit codes after which the service manager does not restart the daemon: a person must act first.
FINAL: Final = (2, 3)

SYSCALLS: Final = ("execve", "execveat", "exit_group", "setsid")

# The file in the runtime directory with the audit settings that sessiond has changed.
AUDIT_STATE: Final = "audit.json"

log = structlog.get_logger()


def run(config: Config, load: Callable[[], Config], helper: Helper | None = None) -> int:
    """Run the daemon until it is stopped; ``load`` reads the configuration for a reload.

    ``helper`` is what ``sources.prepare`` has begun. Raises SessiondError when it can't start.
    """
    return asyncio.run(Daemon(config, load, helper).run())


def clean_up_after_crash(directory: Path, store: DescriptorStore | None = None) -> None:
    """Remove a crashed run's changes from the kernel, for a start that fails permanently.

    The service manager does not restart the daemon then, and no program would read the records of
    its rules. ``directory`` is the runtime directory, ``store`` the manager's descriptor store.
    """
    store = store or DescriptorStore()
    store.give_up()
    leave_audit(directory, store)


def leave_audit(directory: Path, store: DescriptorStore) -> None:
    """Undo an earlier run's changes of audit: its rules, its settings, its socket."""
    with contextlib.suppress(AuditUnavailableError):
        for note in clear_away(directory / AUDIT_STATE, boot_id(PROC), store.audit):
            log.warning("audit", note=note)
    store.drop_audit()


def _make_directories(config: Config) -> None:
    """Create the directories that a service manager would have created.

    Raises OutputError if that fails, or if other users could replace files in them.
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
            # Check the parent first: another user's link must not decide where the directory goes.
            existing = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
            os.close(open_directory(str(existing), trusted=trusted_users()))
            path.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            problem = f"{path}: can't create this directory: {error.strerror}"
            if isinstance(error, PermissionError):
                problem += "; run this as root, or create it for this user"
            raise OutputError(problem) from None


def _host_facts() -> host.HostFacts:
    """Read the facts of the host. Raises SourceUnavailableError without /proc."""
    try:
        return host.facts()
    except OSError as error:
        raise SourceUnavailableError(
            "procfs",
            f"can't read {error.filename}: {error.strerror}",
            "mount it: mount -t proc proc /proc",
        ) from None


class Daemon:
    """All parts of one run, and the order in which they start and stop."""

    def __init__(
        self, config: Config, load: Callable[[], Config], helper: Helper | None = None
    ) -> None:
        """Take the configuration; ``run`` does everything else."""
        self._helper = helper
        self._config = config
        self._load = load
        self._stop = asyncio.Event()
        self._stop_reason = ""
        self._exit_code = 0
        self._started = time.time()
        # Before the event loop runs: pyroute2 can't query addresses inside one.
        self._host = _host_facts()
        self._procfs = GuardedProcfs()
        self._names = factory.names(config)
        self._store = DescriptorStore()
        self._outputs = OutputSet()
        self._gauge = PressureGauge()
        self._given_up: frozenset[str] = frozenset()  # capabilities
        self._regular: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._clock: HostClock
        self._restart: Restart
        self._sources: SourceChain
        self._audit: AuditController
        self._pipeline: Pipeline
        self._health: Health
        self._monitor: Monitor
        self._loop: ReadLoop
        self._status: Status
        self._server: StatusServer | None = None
        self._binding: asyncio.Future[None] | None = None  # the loop itself keeps no task alive

    # Lifecycle

    async def run(self) -> int:
        """Start, run until stopped, clean up; return the exit code."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._failed)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, f"got {signal.Signals(number).name}")
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: self._names.close())
            # Objects of the start live to the end: collecting them repeatedly would only cost time.
            gc.disable()
            self._open(stack, self._wanted())
            self._server = await self._serve_status()
            loop.add_signal_handler(signal.SIGHUP, self.reload)
            self._loop.start()
            self._every(WATCH, self._watch)
            self._every(TRIM, heap.trim)
            interval = systemd.watchdog_interval()
            if interval is not None:
                self._every(interval, self._feed_watchdog)
            gc.freeze()
            gc.set_threshold(COLLECT, 20, 50)
            gc.enable()
            systemd.ready(self._status.summary())
            log.info("started", **self._status.facts(), given_up=", ".join(sorted(self._given_up)))
            await self._stop.wait()
            self._loop.stop()
            for timer in self._regular.values():
                timer.cancel()
            systemd.stopping(self._stop_reason)
            log.info("stopping", reason=self._stop_reason)
            loop.remove_signal_handler(signal.SIGHUP)
            if self._server is not None:
                await self._server.close()
        log.info("stopped", lines=self._pipeline.lines.counts.total())
        return self._exit_code

    def stop(self, reason: str) -> None:
        """End ``run``; a second call changes nothing."""
        self._stop_reason = self._stop_reason or reason
        self._stop.set()

    def _end(self, reason: str, exit_code: int) -> None:
        self._exit_code = exit_code
        self.stop(reason)

    def _failed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Stop with an error after an exception in the loop: a restart beats running in part.

        The service manager restarts the daemon, which then reads the records queued meanwhile.
        """
        error = context.get("exception")
        log.error("failed", reason=str(error or context.get("message")), exc_info=error)
        self._end("an internal error", 1)

    # Start

    def _wanted(self) -> ruleset.RuleSet:
        """Return the configured rules. Raises ConfigError or RuleError."""
        settings = self._config.auditd
        try:
            wanted = parser.parse_all(read_rules(self._config), keep_going=settings.ignore_errors)
        except SessiondError:
            clean_up_after_crash(self._config.runtime_directory, self._store)
            raise
        for pattern in empty_patterns(self._config):
            log.warning("rule", problem=f"auditd.audit_rule_files: no file matches {pattern}")
        for warning in (*wanted.warnings, *wanted.errors):
            log.warning("rule", problem=str(warning))
        self._judge_filters(self._config)
        return wanted

    @staticmethod
    def _judge_filters(config: Config) -> None:
        """Log warnings about filters, and filters that users can hide behind."""
        for _, problem in config.filters.warnings():
            log.warning("filter", problem=problem)
        for filter_ in exposures(config.filters, ordinary_users() if config.filters else ()):
            report = log.info if filter_.safe else log.warning
            report(
                "filter",
                name=filter_.name,
                safe=filter_.safe,
                because=filter_.text,
                fix=filter_.advice,
            )

    def _open(self, stack: contextlib.ExitStack, wanted: ruleset.RuleSet) -> None:
        """Open all parts in order of dependency; ``stack`` closes them in reverse.

        Outputs come first: a daemon that can't write need not listen. The source comes before the
        rules: an audited process must already be in the table.
        """
        config = self._config
        if not config.auditd.enabled:
            leave_audit(config.runtime_directory, self._store)
        elif not wanted.rules and config.auditd.socket_type != "multicast":
            log.warning("rule", problem=ruleset.NO_RULES)
        _make_directories(config)
        self._prepare_tracer()
        # Before the first thread starts: each gets what this one has.
        self._give_up_capabilities()
        stack.callback(self._outputs.close)
        self._outputs.open(factory.outputs(config))
        self._restart = Restart(config.runtime_directory, self._host.boot_id)
        stack.callback(self._restart.close)
        reading = self._restart.kernel_reading
        self._clock = HostClock(
            config.runtime_directory / "boot_time",
            self._host.boot_id,
            reading.time if reading else None,
        )
        begun = now()
        self._sources = SourceChain(
            config.session_metadata,
            self._procfs,
            self._store,
            alone=not config.auditd.enabled,
            on_received=self._restart.keep_chunk,
            on_end=self._end,
        )
        stack.callback(self._procfs.close)
        self._procfs.prepare()
        gc.collect()  # what imports have left, while the helper processes start
        self._sources.open(self._helper)
        stack.callback(self._sources.close)
        listening = now()
        self._procfs.begin()
        socket_kept = (
            not config.auditd.enabled
            or self._store.audit is not None
            or self._store.listener is not None
        )
        self._audit = self._claim_audit(wanted)
        source = self._sources.source
        listened = socket_kept and (source.adopted or not source.exact)
        with contextlib.ExitStack() as undo:
            undo.callback(self._leave_audit)
            self._pipeline = self._make_pipeline()
            self._health = Health(self._pipeline)
            self._sources.attach(self._pipeline, self._health)
            self._resume(begun, None if listened else listening)
            self._clock.begin(self._pipeline)
            self._monitor = Monitor(config, self._audit, self._pipeline, self._health, now())
            self._status = Status(
                self._audit,
                self._sources,
                self._pipeline,
                self._outputs,
                self._health,
                self._monitor,
                self._procfs,
                self._started,
            )
            self._loop = ReadLoop(
                self._audit,
                self._sources,
                self._pipeline,
                self._outputs,
                self._restart,
                self._clock,
            )
            undo.pop_all()
        stack.callback(self._close_audit)
        self._audit.on_progress = self._turn
        self._sources.on_switch = self._switched

    def _prepare_tracer(self) -> None:
        """Start loading the tracer, unless that has begun, or an earlier run's tracer fits."""
        source = self._config.session_metadata
        self._helper = self._helper or sources.prepare(
            source.backend,
            ring_bytes=source.ring_buffer,
            args_limit=source.args_limit,
            stored_descriptors=self._store.tracer,
        )

    def _give_up_capabilities(self) -> None:
        """Give up what is not needed from here on: what reads hostile input has less to offer."""
        needless = privileges.needless(
            self._config, release=platform.release(), rmem_max=privileges.rmem_max()
        )
        try:
            self._given_up = give_up(needless, inherit=privileges.HELPERS)
        except OSError as error:
            log.warning("capabilities_kept", reason=str(error), fix="SystemCallFilter=capset")

    def _resume(self, begun: int, listening: int | None) -> None:
        """Continue where the last run ended; pass lines that only the file has to other outputs."""
        file = self._config.output.file
        tail = self._restart.resume(
            self._pipeline,
            self._sources.source,
            begun,
            listening=listening,
            kernel_lost=self._audit.client.status().lost,
            output=self._written_lines if file is not None else None,
        )
        if file is not None:
            self._outputs.write_again(tail, but=f"file:{file.path}")

    def _written_lines(self, after: int | None) -> WrittenLines:
        """Read the last lines of the output file and of its spool."""
        file, queue = self._config.output.file, self._config.output.queue_size
        assert file is not None  # noqa: S101 -- called only with a file output
        return WrittenLines(
            file.path, self._config.spool_path / "file", after=after, max_tail=queue
        )

    def _claim_audit(self, wanted: ruleset.RuleSet) -> AuditController:
        """Become the audit daemon or a listener. Raises AuditUnavailableError."""
        if not self._config.auditd.enabled:
            self._store.keep_source(self._sources.source)
            return DisabledAudit()
        audit = AuditController.claim(
            self._config.auditd,
            wanted,
            state_file=self._config.runtime_directory / AUDIT_STATE,
            boot_id=self._host.boot_id,
            adopted_fd=self._store.audit,
            adopted_listener=self._store.listener,
            memory=self._restart.memory,
            on_received=self._restart.keep_records,
        )
        self._store.keep_audit(audit.client)
        self._store.keep_source(self._sources.source)
        for note in (*audit.notes, *audit.refused):
            log.warning("audit", note=note)
        return audit

    def _make_pipeline(self) -> Pipeline:
        pipeline = factory.live_pipeline(
            self._config,
            self._names,
            self._host,
            clock=self._clock.clock,
            source=self._sources.source.name,
            exact=self._sources.source.exact,
            **self._audited(self._config),
        )
        pipeline.lines.chain = factory.line_chain(self._config.event)
        return pipeline

    def _audited(self, config: Config) -> dict[str, Any]:
        """Return which events the kernel's rules can produce, as options of the pipeline."""
        loaded = self._audit.loaded
        dropped = never.loaded_for(self._never_rules(config), loaded)
        always = never.without(loaded, dropped)
        return {
            "audited": frozenset(name for name in SYSCALLS if audits(loaded, name)),
            "always_audited": frozenset(name for name in SYSCALLS if always_audits(always, name)),
            "audit_is_silent": not loaded and not self._audit.client.multicast,
            "dropped_by_kernel": dropped,
        }

    @staticmethod
    def _never_rules(config: Config) -> list[never.NeverRules]:
        """Return the audit rules that do in the kernel what filters do."""
        drops = any(rule.action == "drop" for rule in config.filters)
        return never.offers(config.filters, ordinary_users(), rule_arches()) if drops else []

    async def _serve_status(self) -> StatusServer | None:
        settings = self._config.status_socket
        if not settings.enabled:
            return None
        server = StatusServer(
            self._config.status_socket_path,
            self._status.document,
            mode=settings.mode,
            owner=user_id("status_socket.owner", settings.owner),
            group=group_id("status_socket.group", settings.group),
            lister=self._list,
            may_read=self._may_read_output,
        )
        await server.start()
        return server

    def _list(self, request: ListRequest) -> Iterator[bytes]:
        """Answer ``sessiond ps`` from the table, after reading all pending input."""
        self._turn()
        pipeline = self._pipeline
        processes = ProcessList(
            pipeline.table,
            pipeline.lines.process_encoder,
            pipeline.options.source,
            factory.cgroup_fields,
        )
        return processes.lines(request, now())

    def _may_read_output(self, uid: int, groups: frozenset[int]) -> bool:
        file = self._config.output.file
        return file is not None and may_read(file.path, uid, groups)

    # Regular work

    def _every(self, interval: float, work: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            self._regular[work] = loop.call_later(interval, again)
            work()

        self._regular[work] = loop.call_later(interval, again)

    def _feed_watchdog(self) -> None:
        """Notify the watchdog, as long as the self-test passes."""
        if self._monitor.canary.failure is None:
            systemd.watchdog()

    def _turn(self) -> None:
        """Read input while rules are being changed: a slow change must not fill the buffers."""
        self._loop.turn()

    def _watch(self) -> None:
        """Check the kernel, this process and the outputs."""
        time_now = now()
        client = self._audit.client
        pipeline = self._pipeline
        written = self._outputs.all_written()
        if not written and pipeline.losses.uncertain:
            written = self._outputs.secure()
        if written and not pipeline.waiting:
            pipeline.losses.confirm()
            # The losses of the last check are written for certain, or among the saved losses.
            self._restart.save_reading(*self._monitor.kernel_reading)
        self._clock.follow(pipeline)
        self._monitor.check(time_now, Monotonic(time.monotonic()))
        if self._audit.client is not client:
            self._loop.wake()
            self._store.keep_audit(self._audit.client)
            self._monitor.reset()
            self._use(self._config)
        self._loop.turn_if_idle()
        self._sources.check()
        if self._monitor.canary.blind:
            self._monitor.canary.blind = False
            self._sources.fall_back(f"{self._sources.source.name} did not see a process of ours")
        self._restart.check()
        if self._restart.problem:
            self._health.degraded("what a restart needs", self._restart.problem, time_now)
        self._outputs.watch(self._pipeline, self._health, time_now)
        self._watch_socket(time_now)
        self._press(time_now)
        if self._outputs.all_gone():
            self._end("the reader of the output went away", errors.READER_GONE)
        self._sources.sweep()
        self._restart.keep_losses(self._pipeline)
        self._outputs.write(self._pipeline.poll(time_now))
        self._restart.settle(self._pipeline)
        self._names.refresh(time.monotonic())

    def _switched(self) -> None:
        """Prepare for another source, which saw nothing of a self-test that is under way."""
        self._monitor.canary.close()
        self._loop.wake()

    def _watch_socket(self, time_now: BootTime) -> None:
        """Report that another process has removed the status socket, and bind it again."""
        if self._server is None or not self._server.is_lost():
            self._health.recovered("status socket", time_now, "it is there again")
            return
        reason = f"another process has removed {self._config.status_socket_path}"
        self._health.degraded("status socket", reason, time_now)
        self._binding = asyncio.ensure_future(self._server.start_again())

    def _press(self, time_now: BootTime) -> None:
        """Let the pipeline fold the noisiest user's events while a buffer fills up."""
        losses = self._pipeline.losses
        lost = sum(losses.kinds[kind] for kind in PROCESSES), losses.totals["kernel"]
        level = self._gauge.update(self._outputs.fill, lost=lost)
        if self._pipeline.press(level):
            effect = "repeated events of the user with the most lines are counted, not written"
            self._health.degraded("pressure", f"{self._gauge.reason}: {effect}", time_now)
        else:
            self._health.recovered("pressure", time_now)

    # Reload

    def reload(self) -> None:
        """Reload the configuration and apply the changes; keep the old one if it is invalid."""
        systemd.reloading()
        status = ""
        try:
            config = self._load()
            wanted = parser.parse_all(read_rules(config), keep_going=config.auditd.ignore_errors)
            self._apply(config, wanted)
        except SessiondError as error:
            log.error(  # noqa: TRY400 -- an invalid file is not a bug: no traceback
                "reload_refused", reason=str(error), effect="the configuration is unchanged"
            )
            status = f"reload refused: {error}; still "
        self._outputs.reopen()
        systemd.ready(status + self._status.summary())

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
        if "filters" in changed:
            self._judge_filters(config)
            # After a crash, input read before the reload must not go through the new filters.
            self._restart.save_soon()
        self._monitor.reconfigure(config)
        if any(path.startswith("logging.") for path in changed):
            logs.configure(config.logging.level, config.logging.format)
        self._config = config
        log.info("reloaded", changed=changed, needs_restart=restart)

    def _replace_outputs(self, config: Config) -> None:
        self._outputs.replace(factory.outputs(config), lambda: factory.outputs(self._config))

    def _use(self, config: Config) -> None:
        """Apply these settings, and the current rules' system calls, to the pipeline."""
        options = dataclasses.replace(
            self._pipeline.options,
            **self._audited(config),
            event=config.event,
            filters=config.filters,
        )
        self._pipeline.use(options)
        if config.auditd.resolve_ids != self._config.auditd.resolve_ids:
            self._names.close()
            self._names = factory.names(config)
        factory.encode_live(
            self._pipeline, config, self._names, self._host, clock=self._clock.clock
        )

    # End

    def _leave_audit(self) -> None:
        """Release the audit subsystem when the start fails, before anything was read."""
        self._store.give_up()
        self._audit.release(keep_rules=self._config.auditd.keep_rules_on_exit)
        self._audit.client.close()

    def _close_audit(self) -> None:
        """Release the audit subsystem, or hand it over, and write the events in flight."""
        if self._exit_code not in FINAL and systemd.will_start_again():
            self._suspend()
        else:
            self._release()
        self._audit.client.close()

    def _suspend(self) -> None:
        """Leave rules, registration and tracer in place for the next start.

        Complete lines are written. Events that wait for their counterpart are in the write-ahead
        log, as are lines that an output did not accept in time: the next start makes them again.
        """
        self._loop.turn()
        self._monitor.canary.close()
        self._pipeline.report_filtered(now(), all_=True)
        self._outputs.write(self._pipeline.lines.take())
        self._outputs.flush()
        if self._outputs.all_written():
            self._restart.save(self._pipeline, all_written=True)
        log.info("handed_on")

    def _release(self) -> None:
        self._store.give_up()
        failures = self._audit.release(keep_rules=self._config.auditd.keep_rules_on_exit)
        for note in failures:
            log.warning("audit_not_restored", note=note)
        # All records have been read; a busy host never stops producing process events.
        end = time.monotonic() + FINAL_DRAIN
        while self._loop.turn() and time.monotonic() < end:
            pass
        self._monitor.canary.close()
        self._outputs.write(self._pipeline.flush(now()))
        self._outputs.flush()
        self._restart.clear()
