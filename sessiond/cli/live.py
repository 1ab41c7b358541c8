"""Formats the events of ``run`` for a person on a terminal, in a separate process behind a pipe.

The daemon itself writes the same lines as into any other pipe.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from typing import Self

from sessiond.cli import terminal


class Shown:
    """A context in which standard output is formatted for a person, line by line."""

    def __enter__(self) -> Self:
        """Put the formatting process between standard output and the terminal."""
        sys.stdout.flush()
        reader, writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(writer)
            code = 1
            try:
                _show(reader)
                code = 0
            finally:
                os._exit(code)
        os.close(reader)
        self._terminal = os.dup(1)
        os.dup2(writer, 1)
        os.close(writer)
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the remaining lines, and restore standard output."""
        sys.stdout.flush()
        os.dup2(self._terminal, 1)
        os.close(self._terminal)
        os.waitpid(self._pid, 0)


def _show(reader: int) -> None:
    from sessiond.viewer.live import LiveLines
    from sessiond.viewer.words import Colours

    # Ctrl-C stops the daemon; its last lines are still shown.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shown = LiveLines(Colours(on=terminal.coloured()))
    with os.fdopen(reader, "rb", buffering=1 << 16) as lines:
        while line := lines.readline():
            now = datetime.now(UTC).astimezone()
            text = shown.line(line, width=terminal.width(), now=now)
            if text is not None:
                sys.stdout.write(text + "\n")
                sys.stdout.flush()
