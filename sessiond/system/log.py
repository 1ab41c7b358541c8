"""The daemon's own log: constant event names with fields, to the journal or to standard error.

All modules log like ``structlog.get_logger(__name__).warning("ring_lost", number=3)``. Under
systemd the event goes to the journal with a field for each name; elsewhere a readable line goes to
standard error. Names and paths chosen by local users are escaped, so that no value can forge a line
or send control sequences to a terminal.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Protocol, TextIO

import structlog

from sessiond.text import printable

_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3)
_PLAIN = re.compile(r"[\w./:@+,%-]+")

Fields = MutableMapping[str, Any]


def under_journal(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Return whether ``stream`` is connected to the journal: JOURNAL_STREAM has its inode.

    See systemd.exec(5); programs with other streams inherit the variable too.
    """
    try:
        facts = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or not a file
        return False
    return environ.get("JOURNAL_STREAM") == f"{facts.st_dev}:{facts.st_ino}"


def configure(level: str = "info", style: str = "auto") -> None:
    """Set up logging for the whole process; may be called again, for another level.

    ``level`` and ``style`` are the settings logging.level and logging.format. Warnings of libraries
    are logged in the same way.
    """
    if style == "auto":
        style = "journal" if under_journal(os.environ, sys.stderr) else "console"
    write = {"journal": _to_journal, "json": _to_json, "console": _to_console}[style]
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, _add_exception, write],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=_Sink,
        cache_logger_on_first_use=False,  # a reload can change the level
    )
    root = logging.getLogger()
    root.handlers = [_Forward()]
    root.setLevel(logging.WARNING)


def configure_command(*, debug: bool) -> None:
    """Log warnings only, as text: the result of a command goes to standard output."""
    configure("debug" if debug else "warning", "console")


class _Sink:
    """The end of structlog's chain: the last processor has already written the line."""

    def __init__(self, *_names: object) -> None:
        pass

    def msg(self, **_fields: object) -> None:
        pass

    debug = info = warning = error = critical = exception = msg


class _Forward(logging.Handler):
    """Forwards messages of libraries that use the standard library's logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record as the event ``library``."""
        log = structlog.get_logger(record.name)
        log.log(
            record.levelno,
            "library",
            library=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info,
        )


def text(fields: Mapping[str, Any]) -> str:
    """Return fields as one line: the event, then key=value, quoted if necessary."""
    rest = (f"{key}={_value(value)}" for key, value in fields.items() if key != "event")
    return " ".join([str(fields["event"]), *rest])


def _value(value: object) -> str:
    plain = value if isinstance(value, str) else str(value)
    # repr escapes unprintable characters: newlines, escapes, bidirectional controls.
    return plain if _PLAIN.fullmatch(plain) else repr(plain)


def _add_exception(_logger: object, _method: str, fields: Fields) -> Fields:
    """Convert the event's exc_info, if any, to text with structlog's own processor."""
    if "exc_info" in fields:
        return structlog.processors.format_exc_info(None, "", fields)
    return fields


def _to_console(_logger: object, _method: str, fields: Fields) -> Fields:
    level, trace = fields.pop("level"), fields.pop("exception", None)
    clock = time.strftime("%H:%M:%S", time.localtime())
    _print(f"{clock} {level:<7} {text(fields)}")
    if trace:
        _print("\n".join(printable(line) for line in trace.splitlines()))
    return {}


def _to_json(_logger: object, _method: str, fields: Fields) -> Fields:
    stamp = time.time_ns() // 1000
    seconds, micros = divmod(stamp, 1_000_000)
    date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    first = {"@timestamp": f"{date}.{micros:06d}Z", "level": fields["level"]}
    _print(json.dumps({**first, **fields}, default=str))
    return {}


def _to_journal(_logger: object, _method: str, fields: Fields) -> Fields:
    """Send with fields; the prefix SESSIOND_ avoids the journal's own names."""
    from systemd import journal  # imported only where it is used

    level, trace = fields.pop("level"), fields.pop("exception", None)
    entry = {
        "MESSAGE": text(fields) + (f"\n{trace}" if trace else ""),
        "PRIORITY": _PRIORITY.get(level, 6),
        "SYSLOG_IDENTIFIER": "sessiond",
    }
    for name, value in fields.items():
        entry["SESSIOND_" + re.sub(r"[^A-Z0-9_]", "_", name.upper())[:55]] = value
    try:
        journal.sendv(*(f"{name}={value}" for name, value in entry.items()))
    except OSError as error:
        _print(f"{text(fields)} journal_error={_value(str(error))}")
    return {}


def _print(line: str) -> None:
    """Write a line to standard error; ignore a closed standard error."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return


class _Log(Protocol):
    def log(self, level: int, event: str, **fields: object) -> object: ...


class Throttle:
    """Logs the same event at most once per ``interval`` seconds, with the number of repetitions.

    ``clock`` returns monotonic seconds. A warning is an event name with fields; events of the same
    name and ``key`` count as repetitions.
    """

    def __init__(
        self, log: _Log, interval: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._interval, self._clock = log, interval, clock
        self._logged_at: dict[tuple[str, str], float] = {}
        self._suppressed: dict[tuple[str, str], int] = {}

    def warning(self, event: str, key: str = "", **fields: object) -> None:
        """Log a warning, or count it if the same one was logged less than an interval ago."""
        what, now = (event, key), self._clock()
        if what in self._logged_at and now - self._logged_at[what] < self._interval:
            self._suppressed[what] = self._suppressed.get(what, 0) + 1
            return
        for old in [w for w, logged in self._logged_at.items() if now - logged >= self._interval]:
            if old != what and old not in self._suppressed:
                del self._logged_at[old]
        self._logged_at[what] = now
        suppressed = self._suppressed.pop(what, 0)
        if suppressed:
            fields["suppressed"] = suppressed
        self._log.log(logging.WARNING, event, **fields)

    def flush(self) -> None:
        """Log the counts of suppressed events that did not recur within the interval."""
        now = self._clock()
        for what in [w for w in self._suppressed if now - self._logged_at[w] >= self._interval]:
            self._logged_at[what] = now
            number = self._suppressed.pop(what)
            self._log.log(logging.WARNING, what[0], suppressed=number)
