"""Logs events: constant names with fields, like ``Logger().warning("ring_lost", number=3)``.

structlog would do no more, but it needs 1 to 9 MB, depending on the packages that it finds.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

_PLAIN = re.compile(r"[\w./:@+,%-]+")

Fields = dict[str, Any]


class Logger:
    """Logs events; a field's value can be of any type.

    The field ``exc_info`` is an exception, or True for the one that is being handled: its traceback
    is logged, too.
    """

    def log(self, level: int, event: str, /, **fields: object) -> None:
        """Log an event with a level of the module ``logging``."""
        if level < destination.level:
            return
        what = {"event": event, **fields, "level": logging.getLevelName(level).lower()}
        error = what.pop("exc_info", None)
        if error is True:
            error = sys.exception()
        if isinstance(error, BaseException):
            what["exception"] = "".join(traceback.format_exception(error)).rstrip("\n")
        destination.write(what)

    def debug(self, event: str, /, **fields: object) -> None:
        """Log what only a developer needs."""
        self.log(logging.DEBUG, event, **fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Log what is as it should be."""
        self.log(logging.INFO, event, **fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Log what someone should look at."""
        self.log(logging.WARNING, event, **fields)

    def error(self, event: str, /, **fields: object) -> None:
        """Log a failure."""
        self.log(logging.ERROR, event, **fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """Log a failure with the traceback of the exception that is being handled."""
        self.log(logging.ERROR, event, exc_info=True, **fields)


def text(fields: Mapping[str, Any]) -> str:
    """Return fields as one line: the event, then key=value, quoted if necessary."""
    rest = (f"{key}={shown(value)}" for key, value in fields.items() if key != "event")
    return " ".join([str(fields["event"]), *rest])


def shown(value: object) -> str:
    """Return a value as ``text`` shows it."""
    plain = value if isinstance(value, str) else str(value)
    # repr escapes unprintable characters: newlines, escapes, bidirectional controls.
    return plain if _PLAIN.fullmatch(plain) else repr(plain)


def _print(fields: Fields) -> None:
    sys.stderr.write(text(fields) + "\n")


class Destination:
    """Where the events of all loggers go, from which level on; ``log.configure`` sets it."""

    def __init__(self) -> None:
        """Begin with standard error."""
        self.level = logging.INFO
        self.write: Callable[[Fields], None] = _print


destination = Destination()
