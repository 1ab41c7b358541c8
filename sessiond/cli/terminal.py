"""Standard output of the commands: text, paged and coloured only on a terminal."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from sessiond import errors
from sessiond.text import printable


def complain(message: str) -> None:
    """Print a message to standard error, as one line that is safe on a terminal."""
    sys.stderr.write(f"sessiond: {printable(message)}\n")


def say(text: str) -> None:
    """Print a text, with a newline at its end. Raises SessiondError if that fails."""
    with telling():
        sys.stdout.write(text if text.endswith("\n") else text + "\n")


def say_json(document: bytes) -> None:
    """Print a JSON document as one line. Raises SessiondError if that fails."""
    say(json_line(document))


def json_line(document: bytes) -> str:
    """Return a JSON document with escapes in place of characters that mislead a reader.

    These are the ones that ``printable`` escapes; a program reads the same document.
    """
    text = document.decode()
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _json_escape(char) for char in text)


def _json_escape(char: str) -> str:
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]


@contextmanager
def telling() -> Iterator[None]:
    """Turn a failed write to standard output (a full disk) into a one-line error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up_output()
        reason = (error.strerror or str(error)).lower()
        raise errors.SessiondError(f"standard output: {reason}") from None


def give_up_output() -> None:
    """Drop buffered output, so that the interpreter does not write it again on exit."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def width() -> int | None:
    """Return the columns of the terminal, None if standard output is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def coloured() -> bool:
    """Return whether to use colours: on a terminal that supports them, without NO_COLOR."""
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
    )


def page(lines: Iterable[str]) -> None:
    """Print lines, through a pager if the terminal has fewer rows.

    The pager is SESSIOND_PAGER or PAGER, else less; an empty value or cat means none.
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
    # A pager that runs as root must not open files or run commands.
    environment = {"LESS": "FRX", "LESSSECURE": "1", "LESSCHARSET": "utf-8", **os.environ}
    running = subprocess.Popen(
        pager, stdin=subprocess.PIPE, env=environment, encoding="utf-8", errors="backslashreplace"
    )
    assert running.stdin is not None  # noqa: S101 -- a pipe was asked for
    with suppress(BrokenPipeError):  # the user may quit early
        for line in chain(waiting, rest):
            running.stdin.write(line + "\n")
    with suppress(BrokenPipeError):
        running.stdin.close()
    while running.returncode is None:
        with suppress(KeyboardInterrupt):  # Ctrl-C is for the pager
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
