"""Reads what the code under test logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from sessiond.system.logger import Fields, destination


@contextmanager
def capture_logs() -> Iterator[list[Fields]]:
    """Collect the events of all loggers, of every level."""
    events: list[Fields] = []
    with (
        mock.patch.object(destination, "level", logging.DEBUG),
        mock.patch.object(destination, "write", events.append),
    ):
        yield events
