"""What the commands write on standard output: text, paged and coloured on a terminal alone."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain

from sessiond import errors


def say(text: str) -> None:
    """Write a text, and a newline where it has none. Raises SessiondError where that fails."""
    with telling():
        sys.stdout.write(text if text.endswith("\n") else text + "\n")


@contextmanager
def telling() -> Iterator[None]:
    """Turn a standard output that can't be written to (a full disk) into a one-line error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up_output()
        reason = (error.strerror or str(error)).lower()
        raise errors.SessiondError(f"standard output: {reason}") from None


def give_up_output() -> None:
    """Drop buffered output, so that the interpreter doesn't try to write it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def width() -> int | None:
    """Return the columns of the terminal, None where standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def coloured() -> bool:
    """Tell whether colours are wanted: on a terminal that has them, without NO_COLOR."""
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
    )


def page(lines: Iterable[str]) -> None:
    """Write lines, through a pager where a terminal has less rows than there are lines.

    The pager is that of SESSIOND_PAGER or PAGER, else less; none where that is empty or cat.
    """
    if not sys.stdout.isatty():
        for line in lines:
            say(line)
        return
    waiting = []
    rest = iter(lines)
    for line in rest:
        waiting.append(line)
        if len(waiting) >= shutil.get_terminal_size().lines:
            break
    else:
        say("\n".join(waiting)) if waiting else None
        return
    pager = _pager()
    if pager is None:
        for line in chain(waiting, rest):
            say(line)
        return
    # As a pager of root's it must not open files or run commands.
    environment = {"LESS": "FRX", "LESSSECURE": "1", "LESSCHARSET": "utf-8", **os.environ}
    running = subprocess.Popen(
        pager, stdin=subprocess.PIPE, env=environment, encoding="utf-8", errors="backslashreplace"
    )
    assert running.stdin is not None  # noqa: S101 -- a pipe was asked for
    with suppress(BrokenPipeError):  # it may be left before the end
        for line in chain(waiting, rest):
            running.stdin.write(line + "\n")
    with suppress(BrokenPipeError):
        running.stdin.close()
    while running.returncode is None:
        with suppress(KeyboardInterrupt):  # the pager's business
            running.wait()


def _pager() -> list[str] | None:
    wanted = os.environ.get("SESSIOND_PAGER", os.environ.get("PAGER", "less"))
    try:
        command = shlex.split(wanted)
    except ValueError:
        return None
    if not command or command[0] == "cat" or shutil.which(command[0]) is None:
        return None
    return command
