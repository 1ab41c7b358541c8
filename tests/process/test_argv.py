"""The argv of a program: whole, cut, rewritten, shortened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.process.argv import join_args, seems_rewritten, shortened_program, split_args
from sessiond.process.events import Program

ARGUMENTS = st.lists(st.binary(max_size=400).map(lambda each: each.replace(b"\0", b"")), max_size=6)


def program(args: bytes | None, size: int | None) -> Program:
    return Program(b"x", b"/x", args, size)


@pytest.mark.parametrize(
    ("args", "size", "cut"),
    [
        (None, 9999, False),  # the whole is unknown, so that it does not count as cut
        (b"x\0", None, False),
        (b"x" * 300 + b"\0", 301, False),
        (b"x" * 300, 301, True),
        (b"x\0y\0", 9999, True),
    ],
)
def test_an_argv_is_cut_when_there_is_more_of_it(
    args: bytes | None, size: int | None, cut: bool
) -> None:
    """Its size includes the NUL of each argument."""
    assert program(args, size).args_cut is cut


@given(ARGUMENTS)
def test_an_argv_in_one_piece_is_the_same_arguments(args: list[bytes]) -> None:
    """Empty arguments are kept."""
    assert split_args(join_args(args)) == tuple(args)


@given(ARGUMENTS, st.integers(0, 3000))
def test_a_shortened_program_says_so(args: list[bytes], limit: int) -> None:
    """Its arguments are a prefix, and its size is that of the whole."""
    whole = program(join_args(args), None)
    short = shortened_program(whole, limit)
    assert whole.args is not None
    assert short.args == whole.args[:limit]
    assert short.args_cut is (len(whole.args) > limit)
    assert short.argv == split_args(whole.args[:limit])


@pytest.mark.parametrize(
    ("args", "comm", "euid", "rewritten"),
    [
        (b"bash\0", b"bash", None, False),
        (b"-bash\0", b"bash", None, False),
        (b"/bin/sh\0-c\0:\0", b"sh", None, False),
        (b"a-name-of-twenty-bytes\0", b"a-name-of-twent", None, False),
        (b"/usr/bin/python3\0/opt/bin/tool\0x\0", b"tool", None, False),  # a script
        (b"/usr/bin/perl\0-w\0./tool\0", b"tool", None, False),
        (b"SCREEN\0-dm\0tool\0screen\0", b"screen", None, True),
        (b"SCREEN\0-dm\0", b"screen", None, True),
        (b"sshd: root@pts/0\0", b"sshd", None, True),
        (b"login\0-f\0\0\0\0\0", b"login", None, True),
        (b"SCREEN\0", b"screen", 0, False),  # read at its exec
        (b"", b"x", None, False),
    ],
)
def test_what_looks_rewritten(args: bytes, comm: bytes, euid: int | None, rewritten: bool) -> None:
    """A process can overwrite its arguments in memory, which procfs shows."""
    assert seems_rewritten(Program(comm, None, args, None, euid=euid)) is rewritten
