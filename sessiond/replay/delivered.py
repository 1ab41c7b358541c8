"""An output of the configuration that gets the lines of a replay.

The daemon never waits for an output. A replay does: it reads no faster than the lines are
delivered, keeps nothing on the disk, and ends with an error if lines are not delivered.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Self

import msgspec

from sessiond.config.quantities import Size
from sessiond.config.schema import Config, OutputSettings, Section
from sessiond.daemon import factory
from sessiond.errors import OutputError
from sessiond.output.thread import OutputThread

# -o output.http: the section of the configuration with this name.
PREFIX: Final = "output."
# The outputs of the configuration that a replay can write to. The file is the daemon's.
KINDS: Final = ("http", "socket")

# Seconds without a delivered line after which a replay says so, and after which it gives up.
_SILENCE: Final = 5.0
_PATIENCE: Final = 60.0
# Seconds between two looks at the output.
_PAUSE: Final = 0.02
# The least size of the queue, in bytes, and the share of it in use above which a replay waits. The
# thread and its delivery have a queue each, and lines move from one to the other at once.
_QUEUE: Final = Size(64 << 20)
_FULL: Final = 0.25
_MAX_LINES: Final = 128  # passed at once


def configured(config: Config, name: str, complain: Callable[[str], object]) -> ConfiguredOutput:
    """Return the output of a name (``output.http``), not yet open.

    ``complain`` is called with a line of text when lines wait for long. Raises OutputError if there
    is no such output, ConfigError for a file that it lacks.
    """
    kind = name.removeprefix(PREFIX)
    settings = getattr(config.output, kind) if kind in KINDS else None
    if settings is None:
        known = " or ".join(PREFIX + each for each in KINDS)
        if kind in KINDS:
            raise OutputError(f"-o {name}: the configuration has no {name}; configure it")
        raise OutputError(f"-o {name}: not {known}; for a file write a path, such as ./{name}")
    only: dict[str, Section | None] = {**dict.fromkeys(OutputSettings.kinds), kind: settings}
    spool = msgspec.structs.replace(config.output.spool, path=config.spool_path, max_size=0)
    outputs = msgspec.structs.replace(
        config.output, **only, spool=spool, queue_size=max(config.output.queue_size, _QUEUE)
    )
    (thread,) = factory.outputs(msgspec.structs.replace(config, output=outputs))
    return ConfiguredOutput(thread, complain=complain)


class ConfiguredOutput:
    """Takes lines like a file, and waits until the output has accepted them."""

    def __init__(
        self,
        output: OutputThread,
        *,
        complain: Callable[[str], object],
        silence: float = _SILENCE,
        patience: float = _PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Take an output that is not open; ``silence`` and ``patience`` are in seconds."""
        self._output = output
        self._complain = complain
        self._silence = silence
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._delivered = 0
        self._since = clock()  # the last change of that number
        self._waits = False  # and has said so

    def __enter__(self) -> Self:
        """Open it. Raises OutputError."""
        self._output.open()
        self._since = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        """Close it; lines that were not flushed are lost."""
        self._output.close()

    def writelines(self, lines: list[bytes]) -> None:
        """Pass lines on. Raises OutputError if none were delivered for too long."""
        for start in range(0, len(lines), _MAX_LINES):
            self._output.write(lines[start : start + _MAX_LINES])
            while self._output.fill > _FULL:
                self._check()
                self._sleep(_PAUSE)

    def flush(self) -> None:
        """Wait until all lines are delivered. Raises OutputError if some are not."""
        while not self._output.flush(1.0):
            self._check()
            self._sleep(_PAUSE)
        state = self._output.status()
        if state["dropped"]:
            reasons = ", ".join(why for why, count in state["dropped_by_reason"].items() if count)
            raise OutputError(f"{self._output.name}: {state['dropped']:,} lines: {reasons}")

    def _check(self) -> None:
        state = self._output.status()
        now = self._clock()
        if state["delivered"] != self._delivered or not state["queued"]:
            self._delivered, self._since, self._waits = state["delivered"], now, False
            return
        waited = now - self._since
        queued = f"{self._output.name}: {state['queued']:,} lines"
        reason = state["reason"] or "it confirms no line"
        if waited > self._patience:
            raise OutputError(f"{queued} were not delivered: {reason}")
        if waited > self._silence and not self._waits:
            self._waits = True
            self._complain(f"{queued} wait for at most {self._patience:.0f} s: {reason}")
