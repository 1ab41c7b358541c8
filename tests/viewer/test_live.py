"""Events are shown to a person as they happen."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from support.recording import Story, login_lines, poisoned_lines

from sessiond.viewer.live import LiveLines
from sessiond.viewer.words import Colours, width_of

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_a_line_for_each_event() -> None:
    """Indented below what forked it; failures and losses stand out."""
    story = Story()
    shown = LiveLines(Colours())
    ls = {"parent": "bash", "entry": "bash", "user": "ann", "start": 2}
    events = (
        story.event(1, "exec", "bash", user="ann"),
        story.event(2, "exec", "ls -l", **ls),
        story.event(2.5, "end", "ls -l", **ls, exit_code=2),
        story.own(3, "sessiond-lost", message="12 records were lost", loss={"hop": "kernel"}),
        story.event(4, "already_running", "cron"),
        story.event(5, "exec-failed", "bash", file={"path": "/x"}, error={"code": "EACCES"}),
    )
    lines = [shown.line(json.dumps(each).encode(), width=None, now=NOW) for each in events]
    assert lines == [
        "10:00:01.000  ann           1414  sshd 198.51.100.7         bash",
        "10:00:02.000  ann           1408  sshd 198.51.100.7           ls -l",
        "10:00:02.500  ann           1408  sshd 198.51.100.7           ls -l  → exit 2 500ms",
        "10:00:03.000  ‼ 12 records were lost",
        None,
        "10:00:05.000  root          1414  sshd 198.51.100.7         (bash)  → EACCES /x",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_a_real_recording_fits_the_terminal(width: int) -> None:
    """No line is wider than the terminal."""
    shown = LiveLines(Colours())
    for line in login_lines():
        text = shown.line(line, width=width, now=NOW)
        assert text is not None
        assert text.isprintable()
        assert width_of(text) <= width


def test_nothing_of_the_data_reaches_the_terminal_raw() -> None:
    """Every text of the event contains control characters."""
    shown = LiveLines(Colours())
    for line in poisoned_lines():
        text = shown.line(line, width=None, now=NOW)
        assert text is not None
        assert text.isprintable()


def test_what_is_no_event_is_shown_as_it_is() -> None:
    """Only control characters are escaped."""
    assert LiveLines(Colours()).line(b"\x1b[2J\n", width=80, now=NOW) == r"\x1b[2J"
