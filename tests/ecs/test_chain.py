"""Sealed lines: any change without the key is detected, with its place."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.ecs.chain import SEAL_SIZE, ChainCheck, LineChain, seal_of

KEY = b"k" * 32


def line(number: int, text: str = "x") -> bytes:
    event = {"id": f"e{number}", "sequence": number}
    return json.dumps({"event": event, "message": text}, separators=(",", ":")).encode() + b"\n"


def sealed(number: int = 6, *, begin: int = 1, previous: bytes = b"") -> list[bytes]:
    chain = LineChain(KEY, previous)
    return [chain.seal(line(each)) for each in range(begin, begin + number)]


def problems(lines: list[bytes], key: bytes = KEY) -> list[str]:
    check = ChainCheck(key)
    return [wrong for each in lines if (wrong := check.take(each)) is not None]


def test_a_sealed_line_is_the_line_and_its_seal() -> None:
    """The seal is a further last member, of the documented size."""
    made = sealed(1)[0]
    assert len(made) == len(line(1)) + SEAL_SIZE
    document = json.loads(made)
    assert document.pop("sessiond.chain").encode() == seal_of(made)
    assert document == json.loads(line(1))


def test_lines_as_they_were_written_are_right() -> None:
    """This includes parts of a file, and a chain that continues in another run."""
    first = sealed()
    more = sealed(begin=7, previous=seal_of(first[-1]))
    assert problems(first + more) == []
    assert problems(first[3:] + more) == []


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (lambda lines: [*lines[:2], lines[2].replace(b'"x"', b'"y"'), *lines[3:]], "line 3 was ch"),
        (lambda lines: [*lines[:2], *lines[3:]], "after line 2 comes line 4: lines are missing"),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], "after line 2 comes line 4"),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], "after line 2 comes line 2"),
        (lambda lines: [*lines[:2], line(3), *lines[2:]], "line 3 has no seal"),
        (
            lambda lines: [*lines[:2], LineChain(b"f" * 32, seal_of(lines[1])).seal(line(3))],
            "line 3 was changed or put in",
        ),
        (lambda lines: [*lines[:2], *sealed(4, begin=3)], "a new chain begins with line 3"),
    ],
    ids=["changed", "missing", "moved", "twice", "unsealed", "forged", "anew"],
)
def test_a_change_is_named(forge: object, said: str) -> None:
    """The first line that does not match is named."""
    assert callable(forge)
    assert problems(forge(sealed()))[0].startswith(said)


def test_another_key_fits_nothing() -> None:
    """Without the right key, valid and forged lines can't be distinguished."""
    assert problems(sealed(), b"o" * 32)


def test_a_key_must_be_long() -> None:
    """A short key could be guessed."""
    with pytest.raises(ValueError, match="32 bytes"):
        LineChain(b"short")


@given(
    place=st.integers(0, 5), offset=st.integers(0, 400), byte=st.integers(0, 255), cut=st.booleans()
)
def test_any_changed_byte_is_detected(place: int, offset: int, byte: int, *, cut: bool) -> None:
    """Any byte counts, except white space at the end of a line, which is not part of it."""
    lines = sealed()
    victim = lines[place].rstrip()
    offset %= len(victim)
    changed = victim[:offset] + (b"" if cut else bytes([byte])) + victim[offset + 1 :]
    if changed == victim:
        return
    lines[place] = changed + b"\n"
    found = problems(lines)
    # Only the seal of the first line can be checked, unless the chain started with it.
    assert found or place == 0


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_no_bytes_raise(lines: list[bytes]) -> None:
    """Any content of a file gives a result."""
    problems(lines)
