"""The daemon: opens everything, moves bytes from the left to the right, and gives all back.

One loop, one turn: read what the audit socket has, drain the process source, let the pipeline work,
write its lines. Wake-ups cost more than bytes, so a readable descriptor only starts the beat: the
turn comes a moment later, when more has gathered, and the beat goes on until nothing is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog

from sessiond import host, notify, wiring
from sessiond import log as logs
from sessiond.audit import rules
from sessiond.audit.batch import BATCH
from sessiond.audit.session import AuditSession
from sessiond.config import diff, group_id, needs_restart, read_rules, user_id
from sessiond.errors import OutputError, SessiondError
from sessiond.options import Config
from sessiond.output import Delivery
from sessiond.pipeline import Pipeline
from sessiond.process.procfs import Procfs, now
from sessiond.process.tracer import Declined, Source, open_source
from sessiond.status import StatusServer

# How long, in seconds, records may gather before they are read.
GATHER: Final = 0.02
# Batches read in one turn at the most: outputs and signals must get their turn as well.
MOST_BATCHES: Final = 16
# How often, in seconds, the kernel's own counters and settings are looked at.
WATCH: Final = 1.0
# How often, in seconds, a table without a tracer is checked against procfs.
SWEEP: Final = 30.0
# How long, in seconds, an output may take to flush at the end.
FLUSH: Final = 10.0

SYSCALLS: Final = ("execve", "execveat", "exit_group", "setsid")

log = structlog.get_logger()


def wall_offset() -> int:
    """CLOCK_REALTIME minus CLOCK_BOOTTIME now, in ns."""
    return time.time_ns() - now()


def run(config: Config, load: Callable[[], Config]) -> int:
    """Run the daemon until it is told to stop; ``load`` reads the configuration for a reload.

    Raises SessiondError when it can't start.
    """
    return asyncio.run(Daemon(config, load).run())


def _make_directories(config: Config) -> None:
    """Make the directories that a service manager would have made. Raises OutputError."""
    wanted = {
        config.runtime_directory: 0o755,
        config.state_directory: 0o700,
        config.spool_path: 0o700,
    }
    if config.output.file is not None:
        wanted[config.output.file.path.parent] = 0o750
    for path, mode in wanted.items():
        try:
            path.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: can't make this directory: {error.strerror}") from None


class Daemon:
    """Everything that is open, and the loop that moves it."""

    def __init__(self, config: Config, load: Callable[[], Config]) -> None:
        """Take the configuration; nothing is touched before ``run``."""
        self._config = config
        self._load = load
        self._throttle = logs.Throttle(log)
        self._stop = asyncio.Event()
        self._stop_reason = ""
        self._started = time.time()
        # Before the loop runs: pyroute2 can't ask for addresses inside one.
        self._host = host.facts()
        self._procfs = Procfs()
        self._names = wiring.names(config)
        self._beat: asyncio.TimerHandle | None = None
        self._regular: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._outputs: list[Delivery] = []
        self._declined: list[Declined] = []
        self._problems: dict[str, str] = {}
        self._kernel_lost = 0
        self._socket_dropped = 0
        self._last_turn = 0
        self._audit: AuditSession
        self._source: Source
        self._pipeline: Pipeline

    # Life

    async def run(self) -> int:
        """Start, work until told to stop, give everything back; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, f"got {signal.Signals(number).name}")
        with contextlib.ExitStack() as stack:
            stack.callback(self._names.close)
            self._open(stack)
            status = await self._serve_status()
            loop.add_signal_handler(signal.SIGHUP, self.reload)
            self._listen(loop)
            self._every(WATCH, self._watch)
            if not self._source.exact:
                self._every(SWEEP, self._sweep)
            interval = notify.watchdog_interval()
            if interval is not None:
                self._every(interval, notify.watchdog)
            notify.ready(self._summary())
            log.info("started", **self._facts())
            await self._stop.wait()
            for timer in self._regular.values():
                timer.cancel()
            notify.stopping(self._stop_reason)
            log.info("stopping", reason=self._stop_reason)
            loop.remove_signal_handler(signal.SIGHUP)
            if status is not None:
                await status.close()
        log.info("stopped", lines=self._pipeline.counters.lines.total())
        return 0

    def stop(self, reason: str) -> None:
        """End ``run``; a second call changes nothing."""
        self._stop_reason = self._stop_reason or reason
        self._stop.set()

    def _open(self, stack: contextlib.ExitStack) -> None:
        """Open everything, in the order in which it must work; ``stack`` closes it in reverse.

        Outputs first: who can't write has no reason to listen. The source before the rules: who is
        audited must be known already.
        """
        config = self._config
        wanted = rules.parse_all(read_rules(config.auditd), keep_going=config.auditd.ignore_errors)
        for warning in (*wanted.warnings, *wanted.errors):
            log.warning("rule", problem=str(warning))
        _make_directories(config)
        boot_time = host.boot_time_ns(config.runtime_directory / "boot_time")
        for output in wiring.outputs(config):
            output.open()
            stack.callback(output.close)
            self._outputs.append(output)
        self._source, self._declined = self._open_source()
        stack.callback(lambda: self._source.close())
        for declined in self._declined:
            log.warning(
                "source_declined", source=declined.name, reason=declined.reason, fix=declined.fix
            )
        self._audit = AuditSession.claim(
            config.auditd,
            wanted,
            ledger=config.runtime_directory / "audit.json",
            boot_id=self._host.boot_id,
        )
        stack.callback(self._close_audit)
        for note in (*self._audit.notes, *self._audit.refused):
            log.warning("audit", note=note)
        audited = frozenset(name for name in SYSCALLS if rules.audits(self._audit.loaded, name))
        self._pipeline = wiring.live_pipeline(
            config,
            self._names,
            self._host,
            boot_time=boot_time,
            source=self._source.name,
            exact=self._source.exact,
            audited=audited,
            exec_by_source=self._audit.client.multicast and "execve" not in audited,
        )
        self._kernel_lost = self._audit.client.status().lost
        self._socket_dropped = self._audit.client.dropped
        self._pipeline.feed_process(self._source.drain())

    def _open_source(self) -> tuple[Source, list[Declined]]:
        settings = self._config.session_metadata
        return open_source(
            settings.backend,
            self._procfs,
            ring_bytes=settings.ring_buffer,
            args_limit=settings.args_limit,
        )

    def _close_audit(self) -> None:
        """Give the audit subsystem back, and write what was still on its way."""
        left = self._audit.release(keep_rules=self._config.auditd.keep_rules_on_exit)
        for note in left:
            log.warning("audit_not_restored", note=note)
        while self._turn():
            pass
        self._write(self._pipeline.flush(now()))
        for output in self._outputs:
            if not output.flush(FLUSH):
                log.warning("output_not_flushed", **output.status())
        self._audit.client.close()

    # The beat

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for something to read; whatever comes first starts the beat."""
        loop.add_reader(self._audit.client.fileno(), self._wake)
        descriptor = self._source.fileno()
        if descriptor is not None:
            loop.add_reader(descriptor, self._wake)

    def _wake(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._audit.client.fileno())
        descriptor = self._source.fileno()
        if descriptor is not None:
            loop.remove_reader(descriptor)
        if self._beat is not None:
            self._beat.cancel()
        self._beat = loop.call_later(GATHER, self._on_beat)

    def _on_beat(self) -> None:
        loop = asyncio.get_running_loop()
        self._beat = None
        if self._stop.is_set():
            return
        if self._turn():
            self._beat = loop.call_later(GATHER, self._on_beat)
            return
        self._listen(loop)
        deadline = self._pipeline.deadline()
        if deadline is not None:
            self._beat = loop.call_later(max(0.0, (deadline - now()) / 1e9), self._on_beat)

    def _turn(self) -> bool:
        """Read, join, write; return whether there was anything to read."""
        client, pipeline = self._audit.client, self._pipeline
        records: list[tuple[int, bytes]] = []
        drained = False
        for _ in range(MOST_BATCHES):
            batch = client.receive()
            records += batch
            if len(batch) < BATCH:
                drained = True
                break
        # After the records: whoever they are about is in the ring by now.
        events = self._source.drain()
        time_now = now()
        pipeline.feed_process(events)
        pipeline.feed_audit(records, now=time_now, wall_offset=wall_offset(), drained=drained)
        if not self._source.exact:
            self._look_up()
        self._write(pipeline.poll(time_now))
        return bool(records or events)

    def _look_up(self) -> None:
        """Read from procfs who the table doesn't know: the process, then its relatives."""
        for _ in range(4):
            pids = self._pipeline.unknown_pids()
            if not pids:
                return
            found = [self._procfs.look_up(pid) for pid in pids]
            self._pipeline.feed_process(observed for observed in found if observed is not None)

    def _write(self, lines: list[bytes]) -> None:
        if lines:
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
        """Look at what the kernel counted and the outputs went through."""
        status = self._audit.client.status()
        time_now = now()
        lost, self._kernel_lost = (status.lost - self._kernel_lost) % 2**32, status.lost
        if lost and not self._audit.client.multicast:
            self._pipeline.lost(time_now, "kernel", lost, "the audit backlog was full")
            self._throttle.warning("lost", hop="kernel", records=lost)
        dropped = self._audit.client.dropped
        missed, self._socket_dropped = dropped - self._socket_dropped, dropped
        if missed > 0 and self._audit.client.multicast:
            self._pipeline.lost(time_now, "socket", missed, "the receive buffer was full")
            self._throttle.warning("lost", hop="socket", records=missed)
        self._watch_outputs(time_now)
        self._write(self._pipeline.poll(time_now))
        self._names.refresh(time.monotonic())
        self._throttle.flush()

    def _watch_outputs(self, time_now: int) -> None:
        for output in self._outputs:
            output.tick(time.monotonic())
            for loss in output.take_losses():
                self._pipeline.lost(time_now, "output", loss.lines, f"{loss.output}: {loss.reason}")
            for change in output.take_events():
                self._health(
                    f"output {change.output}", change.reason, time_now, well=change.healthy
                )

    def _health(self, what: str, reason: str, time_now: int, *, well: bool) -> None:
        """Log a change of health once, and tell it in the stream."""
        if well:
            self._problems.pop(what, None)
            log.info("recovered", what=what, reason=reason)
        else:
            self._problems[what] = reason
            log.warning("degraded", what=what, reason=reason)
        action = "sessiond-recovered" if well else "sessiond-degraded"
        details = {"health": {"what": what, "reason": reason}}
        self._pipeline.own_event(action, time_now, details, f"{what}: {reason}")

    def _sweep(self) -> None:
        """Find who is gone, where no tracer tells of it."""
        time_now = now()
        self._pipeline.table.reconcile(self._procfs.snapshot(), time_now)
        self._write(self._pipeline.poll(time_now))

    # Reload

    def reload(self) -> None:
        """Read the configuration again and apply what changed; keep the old one if it is bad."""
        notify.reloading()
        try:
            config = self._load()
            wanted = rules.parse_all(
                read_rules(config.auditd), keep_going=config.auditd.ignore_errors
            )
            self._apply(config, wanted)
        except SessiondError as error:
            log.error(  # noqa: TRY400 -- a bad file is no bug: no traceback
                "reload_refused", reason=str(error), effect="the configuration is unchanged"
            )
        for output in self._outputs:
            output.reopen()
        notify.ready(self._summary())

    def _apply(self, config: Config, wanted: rules.RuleSet) -> None:
        changed = diff(self._config, config)
        restart = needs_restart(changed)
        if not self._audit.client.multicast:
            self._audit.load(wanted)
            for problem in self._audit.refused:
                log.warning("audit", note=problem)
        if any(path.startswith("output.") for path in changed):
            self._replace_outputs(config)
        if any(path.startswith("logging.") for path in changed):
            logs.configure(config.logging.level, config.logging.format)
        self._config = config
        log.info("reloaded", changed=changed, needs_restart=restart)

    def _replace_outputs(self, config: Config) -> None:
        """Open the new outputs, then close the old ones: a bad one leaves the old in place."""
        fresh = wiring.outputs(config)
        for output in self._outputs:
            output.flush(FLUSH)
            output.close()
        self._outputs.clear()
        for output in fresh:
            output.open()
            self._outputs.append(output)

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
            "health": {
                "state": "degraded" if self._problems else "healthy",
                "problems": [f"{what}: {reason}" for what, reason in self._problems.items()],
            },
            "uptime": round(time.time() - self._started, 1),
            **self._facts(),
            "declined": {each.name: f"{each.reason}; {each.fix}" for each in self._declined},
            "kernel": msgspec.to_builtins(self._audit.client.status()),
            "socket": {
                **msgspec.to_builtins(self._audit.client.counters),
                "receive_buffer": self._audit.client.receive_buffer,
                "buffered": self._audit.client.buffered,
                "dropped": self._audit.client.dropped,
            },
            "pipeline": self._pipeline.status(),
            "procfs": {"denied": self._procfs.denied, "malformed": self._procfs.malformed},
            "outputs": {
                state.pop("output"): state for state in (o.status() for o in self._outputs)
            },
        }

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
