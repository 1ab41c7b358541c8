"""Output of commands: plain without a terminal; paged and coloured on one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

_SCRIPT = """
from sessiond.cli import terminal
terminal.page(f"line {number}" for number in range({count}))
terminal.say(f"colours {terminal.coloured()}")
"""


def shown(count: int, **environment: str) -> str:
    """Return the screen of a terminal of 24 rows after a command wrote ``count`` lines."""
    controller, side = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT.replace("{count}", str(count))],
        stdin=subprocess.DEVNULL,
        stdout=side,
        stderr=side,
        env={"PATH": os.environ["PATH"], "TERM": "xterm", "LINES": "24", **environment},
    )
    os.close(side)
    text = b""
    try:
        while chunk := os.read(controller, 65536):
            text += chunk
    except OSError:  # the other end of the terminal is closed
        pass
    os.close(controller)
    assert running.wait(20) == 0
    return text.decode()


def test_many_lines_go_through_a_pager() -> None:
    """The environment names the pager; few lines are printed without it."""
    pager = "sed s/line/paged/"
    assert "paged 0" in shown(100, PAGER=pager)
    assert "paged 99" in shown(100, PAGER="false", SESSIOND_PAGER=pager)
    assert "line 0" in shown(5, PAGER=pager)


@pytest.mark.parametrize("pager", ["", "cat", "no-such-program", "'"])
def test_without_a_pager_lines_are_written(pager: str) -> None:
    """All lines are written."""
    assert shown(100, PAGER=pager).count("line") == 100


def test_a_pager_may_be_left() -> None:
    """The command continues to its end."""
    assert "colours True" in shown(100_000, PAGER="true")


def test_colours_are_for_terminals_that_have_them() -> None:
    """NO_COLOR turns them off."""
    assert "colours True" in shown(0)
    assert "colours False" in shown(0, NO_COLOR="1")
    assert "colours False" in shown(0, TERM="dumb")
