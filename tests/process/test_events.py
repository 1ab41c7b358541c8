"""The vocabulary of the sources."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.process.events import MIN_ARGS_KEPT, Program


def program(args: tuple[bytes, ...] | None, size: int | None) -> Program:
    return Program(b"x", b"/x", args, size)


@pytest.mark.parametrize(
    ("args", "size", "cut"),
    [
        (None, 9999, False),  # nothing is known, so nothing is cut
        ((b"x",), None, False),
        ((b"x" * 300,), 301, False),
        ((b"x" * 300,), 302, True),
        ((b"x" * 200, b"y"), 9999, True),
    ],
)
def test_an_argv_is_cut_when_there_is_more_of_it(
    args: tuple[bytes, ...] | None, size: int | None, cut: bool
) -> None:
    """Its size counts each argument's NUL."""
    assert program(args, size).args_cut is cut


@given(st.lists(st.binary(max_size=400), max_size=6), st.integers(0, 500))
def test_whole_means_the_size_is_reached(args: list[bytes], missing: int) -> None:
    """Below what every source keeps, nothing can be missing."""
    size = sum(map(len, args)) + len(args) + missing
    assert program(tuple(args), size).args_cut is (missing > 0 and size > MIN_ARGS_KEPT)
