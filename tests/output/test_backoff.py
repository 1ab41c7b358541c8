"""Delays between attempts."""

from __future__ import annotations

from sessiond.output.backoff import Backoff


def test_delays_double_up_to_the_limit() -> None:
    """Each delay is shortened by at most a half."""
    backoff = Backoff(1.0, 8.0)
    for longest in (1, 2, 4, 8, 8, 8):
        assert longest / 2 <= backoff.delay() <= longest


def test_success_begins_anew() -> None:
    """The next failure starts with the first delay again."""
    backoff = Backoff(1.0, 8.0)
    for _ in range(5):
        backoff.delay()
    backoff.reset()
    assert backoff.delay() <= 1.0


def test_many_do_not_come_back_at_once() -> None:
    """A hundred daemons that lost one reader return at different times."""
    assert len({Backoff(1.0, 8.0).delay() for _ in range(100)}) > 90
