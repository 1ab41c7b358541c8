"""The progress line and the summary of a replay."""

import io
from pathlib import Path

import pytest

from sessiond.replay import progress
from sessiond.replay.progress import Progress, summary
from sessiond.replay.replay import Outcome


class Terminal(io.StringIO):
    """A terminal that keeps its output."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_a_terminal_shows_the_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share of the bytes, lines and speed, in one line that is removed at the end."""
    monkeypatch.setattr(progress, "_INTERVAL", 0)
    log = tmp_path / "audit.log"
    log.write_bytes(b"x" * 1000)
    terminal = Terminal()
    shown = Progress(terminal, [str(log)])
    assert len(list(shown.of(str(log), [b"x"] * 5000, lambda: 500))) == 5000
    shown.clear()
    assert " 50% 2,000 lines, " in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_elsewhere_nothing_is_shown() -> None:
    """A file of errors stays readable."""
    file = io.StringIO()
    shown = Progress(file, [])
    assert list(shown.of("-", [b"x"], lambda: 0)) == [b"x"]
    shown.clear()
    assert file.getvalue() == ""


def test_the_summary_names_what_was_not_understood() -> None:
    """Refused lines are listed by kind; zero counts are left out."""
    outcome = Outcome(records=5210, events=1, written=1)
    text = "5,210 records, 1 event, 1 line written, 2 hosts, 3 boots"
    assert summary(outcome, hosts=2, boots=3) == text
    outcome.others, outcome.refused = 2, 1
    outcome.lost["as ausearch -i"] = 4
    more = (
        ", 2 lines of other programs or hosts, 1 line not understood, "
        "4 lines in a form that lost a part"
    )
    assert summary(outcome, hosts=2, boots=3) == text + more
    outcome.unwritten, outcome.lost_by_audit = 150, 1
    more += ", 150 records not written by the kernel, 1 record lost by the kernel"
    assert summary(outcome, hosts=2, boots=3) == text + more
