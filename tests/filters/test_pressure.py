"""Which user's repeated events are folded while lines can't be written fast enough."""

from __future__ import annotations

from sessiond.filters.pressure import (
    MAX_PROGRAMS,
    MAX_USERS,
    MIN_LINES,
    WRITTEN,
    Level,
    Pressure,
)
from sessiond.filters.saved import Kind
from sessiond.process.user import User

ALICE, MALLORY = User(1000, 1000, None), User(1001, 1001, None)


def second(pressure: Pressure, **lines: int) -> None:
    """Let a second pass in which these users cause so many lines."""
    for name, number in lines.items():
        for _ in range(number):
            pressure.offer({"alice": ALICE, "mallory": MALLORY}[name])
    pressure.press(Level.PRESSED)


def kind(program: bytes, euid: int = 1001, code: str = "") -> Kind:
    """Return the kind of the processes of a program."""
    return Kind("under-pressure", "process", program, b"/bin/sh", euid, None, code)


def test_the_user_with_the_most_lines_is_chosen() -> None:
    """Only this user's events are folded, and only while there is pressure."""
    pressure = Pressure()
    second(pressure, alice=900, mallory=1000)
    assert pressure.offer(MALLORY)
    assert not pressure.offer(ALICE)
    pressure.press(Level.CALM)
    assert not pressure.offer(MALLORY)


def test_lines_are_counted_before_there_is_pressure() -> None:
    """The noisiest user is known at once when the pressure begins."""
    pressure = Pressure()
    pressure.press(Level.RISING)
    assert pressure.counts
    for _ in range(1000):
        assert not pressure.offer(MALLORY)
    pressure.press(Level.PRESSED)
    assert pressure.offer(MALLORY)
    pressure.press(Level.RISING)
    assert not pressure.offer(MALLORY)


def test_another_user_is_chosen_only_with_far_more_lines() -> None:
    """Of two users with similar numbers the first one stays chosen."""
    pressure = Pressure()
    second(pressure, mallory=1000)
    second(pressure, alice=1400, mallory=1000)
    assert pressure.noisiest == MALLORY
    for _ in range(4):
        second(pressure, alice=5000, mallory=500)
    assert pressure.noisiest == ALICE


def test_nobody_is_folded_for_a_few_lines() -> None:
    """If the pressure has other reasons, such as a server that is down, all lines are written."""
    pressure = Pressure()
    second(pressure, mallory=MIN_LINES - 1)
    assert pressure.noisiest is None
    second(pressure, mallory=1000)
    for _ in range(10):
        second(pressure, mallory=1)
    assert pressure.noisiest is None


def test_the_first_of_each_kind_are_written() -> None:
    """Only later ones are repetitions, whatever their exit code."""
    pressure = Pressure()
    second(pressure, mallory=1000)
    told = [pressure.repeats(kind(b"/bin/x", code=str(code))) for code in range(WRITTEN + 2)]
    assert told == [False] * WRITTEN + [True] * 2
    assert not pressure.repeats(kind(b"/bin/y"))


def test_new_names_are_no_way_out() -> None:
    """Beyond a number of programs all further ones of an effective user count as one kind."""
    pressure = Pressure()
    second(pressure, mallory=1000)
    names = [str(number).encode() for number in range(MAX_PROGRAMS + 100)]
    folded = [name for name in names if pressure.repeats(kind(name))]
    assert folded == names[MAX_PROGRAMS + WRITTEN :]
    assert pressure.shown(kind(folded[0])) == pressure.shown(kind(folded[1]))
    assert pressure.shown(kind(names[0])) != pressure.shown(kind(names[1]))
    # What the user executes as root is of another kind.
    assert not pressure.repeats(kind(folded[0], euid=0))


def test_the_number_of_users_is_bounded() -> None:
    """Users beyond it are not counted until others have become quiet."""
    pressure = Pressure()
    for number in range(MAX_USERS + 10):
        pressure.offer(User(None, number, None))
    for _ in range(1000):
        pressure.offer(MALLORY)
    pressure.press(Level.PRESSED)
    assert pressure.noisiest is None
    second(pressure, mallory=1000)
    assert pressure.noisiest == MALLORY
