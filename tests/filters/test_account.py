"""The account of the filters: per window for the stream, in total for the status."""

from __future__ import annotations

from sessiond.filters.account import PERIOD, FilterAccount
from sessiond.process.table import Verdict

DROP, FOLD = Verdict("a", "drop"), Verdict("b", "fold")


def test_a_window_is_told_once() -> None:
    """Reports have lines and bytes, without released lines."""
    account = FilterAccount()
    assert account.due(100) == []
    account.take(DROP, 10)
    account.take(DROP, 10)
    account.take(DROP, 10, -1)
    account.take(FOLD, 5)
    assert account.due(100 + PERIOD - 1) == []
    told = account.due(100 + PERIOD)
    assert [(each.verdict, each.lines, each.bytes) for each in told] == [
        (DROP, 1, 10),
        (FOLD, 1, 5),
    ]
    assert (told[0].since, told[0].until) == (100, 100 + PERIOD)
    assert account.due(100 + 2 * PERIOD) == []


def test_the_sums_are_balanced_where_each_line_was_counted() -> None:
    """Seen is the sum of written, dropped and folded."""
    account = FilterAccount()
    account.seen, account.written = 4, 2
    account.take(DROP, 10)
    assert account.status()["balanced"] is False
    account.take(FOLD, 10)
    assert account.status()["balanced"] is True
    assert account.status()["by_filter"]["b"] == {
        "action": "fold",
        "lines": 1,
        "bytes": 10,
        "released": 0,
    }


def test_each_filter_of_now_has_its_counts() -> None:
    """This includes filters that removed nothing, and those that only label."""
    account = FilterAccount()
    account.take(DROP, 10)
    account.mark("m")
    filters = {"a": "drop", "n": "fold", "m": "mark", "k": "keep"}
    counts = account.status(filters)["by_filter"]
    found = {name: (each["action"], each["lines"]) for name, each in counts.items()}
    assert found == {"a": ("drop", 1), "n": ("fold", 0), "m": ("mark", 1)}


def test_what_was_not_told_goes_over_a_restart() -> None:
    """Reported counts are not saved."""
    account = FilterAccount()
    account.due(7)
    account.take(DROP, 10)
    after = FilterAccount()
    after.restore(*account.state())
    (told,) = after.due(60, all_=True)
    assert (told.since, told.lines, told.until) == (7, 1, 60)
