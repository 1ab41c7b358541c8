"""The outputs as one: each line goes to all of them, and each keeps its account."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from sessiond.daemon.health import Health
from sessiond.errors import SessiondError
from sessiond.output import OutputThread
from sessiond.pipeline import losses
from sessiond.pipeline.pipeline import Pipeline
from sessiond.system.clock import wall_offset
from sessiond.units import BootTime

# Seconds that the outputs get together to deliver what waits, at the end.
FLUSH_TIMEOUT: Final = 10.0

log = structlog.get_logger()


class OutputSet:
    """The open outputs.

    ``written`` counts the lines that were given to them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without outputs; ``clock`` tells monotonic seconds."""
        self.written = 0
        self._clock = clock
        self._outputs: list[OutputThread] = []
        # What the account of an output starts from: written by then, accepted by the output.
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
        """Close the outputs and open ``fresh``; where these fail, what ``before`` makes.

        Never both at once: they may share a file or a spool. Raises what the opening raised.
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
        """Give lines to every output."""
        if lines:
            self.written += len(lines)
            for output in self._outputs:
                output.write(lines)

    def write_again(self, lines: list[bytes], *, but: str) -> None:
        """Give lines of an earlier run to every output but the one of this name, which has them.

        They are not counted in ``written``: each output's account begins after them.
        """
        for output in self._outputs:
            if output.name != but:
                output.write(lines)
                self._bases[output] = self.written, output.status()["accepted"]

    def all_written(self) -> bool:
        """Whether every line survives the end of this process."""
        return not any(output.volatile for output in self._outputs)

    def secure(self) -> bool:
        """Have every line survive the end of this process; return whether it is so."""
        return all(output.secure() for output in self._outputs)

    def all_gone(self) -> bool:
        """Whether the reader of every output went away for good."""
        return bool(self._outputs) and all(output.gone for output in self._outputs)

    def watch(self, pipeline: Pipeline, health: Health, time_now: BootTime) -> None:
        """Tell what the outputs lost, and which are in trouble or well again, at ``time_now``."""
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
        """Tell that others have deleted or truncated the file of an output."""
        state = output.status()
        what = f"file of {state['output']}"
        seen = {name: int(state["sink"].get(name, 0)) for name in ("deleted", "truncated")}
        before = self._file_changes.get(output, dict.fromkeys(seen, 0))
        self._file_changes[output] = seen
        done = [name for name, number in seen.items() if number > before[name]]
        if done:
            reason = f"another process has {' and '.join(done)} it: lines are gone from it"
            health.degraded(what, reason, time_now)
        else:
            health.recovered(what, time_now)

    def reopen(self) -> None:
        """Open files again by their names, and connect sockets again."""
        for output in self._outputs:
            output.reopen()

    def flush(self) -> None:
        """Give the outputs their time to deliver what waits; log what they did not."""
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
        """Return the account of each output by its name: what it was given is somewhere."""
        accounts = {}
        for output in self._outputs:
            state = output.status()
            written_before, accepted_before = self._bases[output]
            accounts[state["output"]] = losses.account(
                accepted_before + self.written - written_before,
                **{name: state[name] for name in ("delivered", "queued", "spooled", "dropped")},
            )
        return accounts
