"""Shows a person on a terminal the events that ``run`` writes: a process of its own, behind a pipe.

So nothing of it runs in the daemon: what it writes is the same as into any other pipe.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from typing import Self

from sessiond.cli import terminal


class Shown:
    """While it is entered, standard output is shown to a person, line by line."""

    def __enter__(self) -> Self:
        """Put a process that shows them between standard output and the terminal."""
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
        """Let it show the rest, and put the terminal back."""
        sys.stdout.flush()
        os.dup2(self._terminal, 1)
        os.close(self._terminal)
        os.waitpid(self._pid, 0)


def _show(reader: int) -> None:
    from sessiond.viewer.live import LiveLines
    from sessiond.viewer.words import Colours

    # Ctrl-C ends the daemon; what it still writes is shown.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shown = LiveLines(Colours(on=terminal.coloured()))
    with os.fdopen(reader, "rb", buffering=1 << 16) as lines:
        while line := lines.readline():
            now = datetime.now(UTC).astimezone()
            text = shown.line(line, width=terminal.width(), now=now)
            if text is not None:
                sys.stdout.write(text + "\n")
                sys.stdout.flush()
