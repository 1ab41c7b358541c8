"""Windows of events of one kind."""

from __future__ import annotations

from sessiond.filters.fold import MAX_KINDS, Folds
from sessiond.filters.saved import Kind


def kind(code: str = "0", executable: bytes = b"/bin/x") -> Kind:
    """Return a kind with its own exit code or program."""
    return Kind("f", "process", executable, b"/bin/sh", 0, "init", code)


def test_a_new_kind_is_told_at_once_and_then_counted() -> None:
    """Later events are counted until the window closes; then the next one starts."""
    folds = Folds()
    assert folds.add(kind(), 10, 100) is None
    assert folds.add(kind("1"), 11, 100) is None
    for time in (20, 30):
        assert folds.add(kind(), time, 100) is not None
    assert folds.due(109) == []
    ((told, window),) = folds.due(111)
    assert (told, window.count, window.first, window.last) == (kind(), 2, 20, 30)
    assert folds.add(kind(), 120, 100) is not None
    assert folds.add(kind("1"), 121, 100) is None  # a whole window without such an event
    assert folds.deadline == 211


def test_all_windows_can_be_closed() -> None:
    """At the end, unfinished windows are reported too."""
    folds = Folds()
    folds.add(kind(), 10, 100)
    folds.add(kind(), 12, 100)
    assert [window.count for _, window in folds.due(13, all_=True)] == [1]
    assert folds.deadline is None


def test_the_number_of_kinds_is_bounded() -> None:
    """A user who creates a program for each process causes a line for each."""
    folds = Folds()
    for number in range(MAX_KINDS + 10):
        folds.add(kind(executable=b"/%d" % number), number, 10**9)
    assert folds.due(0) == []
    assert len(folds.state()) == MAX_KINDS


def test_windows_go_over_a_restart() -> None:
    """They keep count, times and example."""
    folds = Folds()
    folds.add(kind(), 10, 100)
    window = folds.add(kind(), 12, 100)
    assert window is not None
    window.example = b"{}"
    after = Folds()
    after.restore(folds.state())
    ((_, told),) = after.due(200)
    assert (told.count, told.first, told.example) == (1, 12, b"{}")
