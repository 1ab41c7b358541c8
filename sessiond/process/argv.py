"""The argv of a program: how it is split, and whether it is whole and as executed.

Events call these functions several times per line. They are compiled; the named tuples of events.py
are not, because msgspec reads their annotations.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessiond.process.events import Program


def join_args(arguments: Iterable[bytes]) -> bytes:
    """Join arguments, each with its NUL."""
    return b"".join([argument + b"\0" for argument in arguments])


def split_args(args: bytes) -> tuple[bytes, ...]:
    """Split at the NULs; text after the last NUL is a cut argument."""
    parts = args.split(b"\0")
    if not parts[-1]:
        parts.pop()
    return tuple(parts)


def is_cut(program: Program) -> bool:
    """Return whether ``program.args`` is only a part of the argv."""
    args, size = program.args, program.args_size
    return args is not None and size is not None and len(args) < size


def seems_rewritten(program: Program) -> bool:
    """Return whether the process seems to have overwritten its arguments, which procfs reads.

    The signs are first arguments none of which is the executed name (a login shell's dash is
    ignored), and empty arguments at the end. A script's name follows its interpreter and the option
    of its first line.
    """
    # The arguments of an observed exec were read during the exec.
    args = program.args
    return bool(args) and program.euid is None and _is_rewritten(args or b"", program.comm)


# Called for each line about a process, or a relative, that is known from procfs.
@lru_cache(maxsize=4096)
def _is_rewritten(args: bytes, comm: bytes) -> bool:
    first = args.split(b"\0", 3)[:3]
    names = {each.rpartition(b"/")[2].removeprefix(b"-")[:15] for each in first}
    return args.endswith(b"\0\0\0") or comm not in names


def shortened_program(program: Program, limit: int) -> Program:
    """Return the program with at most ``limit`` bytes of its argv; size and count stay."""
    args = program.args
    if args is None or len(args) <= limit:
        return program
    size = program.args_size if program.args_size is not None else len(args)
    return program._replace(args=args[:limit], args_size=size, args_count=program.argc)
