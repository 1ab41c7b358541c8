"""The set of outputs: each line goes to all of them, and each has its own counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from sessiond.daemon.health import Health
from sessiond.errors import SessiondError
from sessiond.output.thread import OutputThread
from sessiond.pipeline import losses
from sessiond.pipeline.pipeline import Pipeline
from sessiond.system.clock import wall_offset
from sessiond.units import BootTime

# Seconds for all outputs together to deliver waiting lines when the daemon stops.
FLUSH_TIMEOUT: Final = 10.0
# What another process has done to a file, by the counter of its sink.
_DONE: Final = {
    "deleted": "deleted it: lines are gone from it",
    "truncated": "truncated it: lines are gone from it",
    "extended": "written to it: lines in it are not ours",
    "exposed": "changed its mode, owner or group",
}

log = structlog.get_logger()


class OutputSet:
    """The open outputs.

    ``written`` counts the lines passed to them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without outputs; ``clock`` returns monotonic seconds."""
        self.written = 0
        self._clock = clock
        self._outputs: list[OutputThread] = []
        # The baseline of an output's counters: lines written before, lines accepted by the output.
        self._bases: dict[OutputThread, tuple[int, int]] = {}
        self._file_changes: dict[OutputThread, dict[str, int]] = {}

    def __len__(self) -> int:
        """Return the number of open outputs."""
        return len(self._outputs)

    def open(self, outputs: list[OutputThread]) -> None:
        """Open outputs and add them. Raises OutputError; those before the failing one stay."""
        for output in outputs:
            output.open()
            self._outputs.append(output)
            self._bases[output] = self.written, output.status()["accepted"]

    def replace(self, fresh: list[OutputThread], before: Callable[[], list[OutputThread]]) -> None:
        """Close the outputs and open ``fresh``; if these fail, open those that ``before`` makes.

        Never both at once: they may share a file or a spool. Re-raises the error of the opening.
        """
        self.flush()
        self.close()
        try:
            self.open(fresh)
        except SessiondError:
            self.close()
            self.open(before())
            raise

    def write(self, lines: list[bytes]) -> None:
        """Pass lines to every output."""
        if lines:
            self.written += len(lines)
            for output in self._outputs:
                output.write(lines)

    def write_again(self, lines: list[bytes], *, but: str) -> None:
        """Pass lines of an earlier run to every output except ``but``, which has them already.

        ``written`` does not count them: each output's counters start after them.
        """
        for output in self._outputs:
            if output.name != but:
                output.write(lines)
                self._bases[output] = self.written, output.status()["accepted"]

    def all_written(self) -> bool:
        """Whether every line would survive the end of this process."""
        return not any(output.volatile for output in self._outputs)

    def secure(self) -> bool:
        """Make every line survive the end of this process; return whether that succeeded."""
        return all(output.secure() for output in self._outputs)

    @property
    def fill(self) -> float:
        """How full the queue or spool of the output with the most room is, 0 to 1.

        As long as one output takes the lines, none is lost everywhere.
        """
        return min((output.fill for output in self._outputs), default=0.0)

    def all_gone(self) -> bool:
        """Whether every output has lost its reader for good."""
        return bool(self._outputs) and all(output.gone for output in self._outputs)

    def watch(self, pipeline: Pipeline, health: Health, time_now: BootTime) -> None:
        """Report losses, failures and recoveries of the outputs at ``time_now``."""
        for output in self._outputs:
            for loss in output.take_losses():
                begin, end = (int(wall * 1e9) - wall_offset() for wall in (loss.since, loss.until))
                reason = f"{loss.output}: {loss.reason}"
                pipeline.lost(end, "output", loss.lines, reason, since=begin)
            for change in output.take_events():
                what = f"output {change.output}"
                if change.healthy:
                    health.recovered(what, time_now, change.reason)
                else:
                    health.degraded(what, change.reason, time_now)
            self._watch_file(output, health, time_now)

    def _watch_file(self, output: OutputThread, health: Health, time_now: BootTime) -> None:
        """Report what another process has done to the file of an output."""
        state = output.status()
        what = f"file of {state['output']}"
        seen = {name: int(state["sink"].get(name, 0)) for name in _DONE}
        before = self._file_changes.get(output, dict.fromkeys(seen, 0))
        self._file_changes[output] = seen
        done = [_DONE[name] for name, number in seen.items() if number > before[name]]
        if done:
            reason = f"another process has {'; '.join(done)}"
            health.degraded(what, reason, time_now)
        else:
            health.recovered(what, time_now)

    def reopen(self) -> None:
        """Reopen files by name, and reconnect sockets."""
        for output in self._outputs:
            output.reopen()

    def flush(self) -> None:
        """Give the outputs time to deliver waiting lines; log how many remain."""
        end = self._clock() + FLUSH_TIMEOUT
        for output in self._outputs:
            if not output.flush(end - self._clock()):
                log.warning("output_not_flushed", **output.status())

    def close(self) -> None:
        """Close and forget all outputs."""
        for output in self._outputs:
            output.close()
        self._outputs.clear()
        self._bases.clear()
        self._file_changes.clear()

    def status(self) -> dict[str, Any]:
        """Return the state of each output by its name."""
        return {state.pop("output"): state for state in (o.status() for o in self._outputs)}

    def accounts(self) -> Mapping[str, dict[str, Any]]:
        """Return the ledger of each output by name: where the lines passed to it are."""
        accounts = {}
        for output in self._outputs:
            state = output.status()
            written_before, accepted_before = self._bases[output]
            accounts[state["output"]] = losses.account(
                accepted_before + self.written - written_before,
                **{name: state[name] for name in ("delivered", "queued", "spooled", "dropped")},
            )
        return accounts
