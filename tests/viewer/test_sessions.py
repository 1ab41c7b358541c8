"""Sessions are chosen and listed."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from support.recording import Story, at, login_lines, recorded

from sessiond.viewer import sessions
from sessiond.viewer.model import Recording
from sessiond.viewer.sessions import Filter
from sessiond.viewer.words import Colours, width_of

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
OFF = Colours()


@pytest.fixture(scope="module")
def login() -> Recording:
    """The real recording."""
    return recorded(*login_lines())


@pytest.mark.parametrize(
    ("wanted", "pids"),
    [
        (Filter(user="ann", kind="sshd"), [12278, 12417]),
        (Filter(user="1001", source="198.51.100.8"), [12417]),
        (Filter(kind="container"), [12435]),
        (Filter(root=True, kind="sshd"), [12278]),
        (Filter(failed=True, kind="container"), []),
        (Filter(running=True), []),
        (Filter(host="web2"), []),
        (Filter(command=re.compile("^make -j")), [12278]),
        (Filter(since="2026-11-25T13:15:51Z", kind="sshd"), [12417]),
        (Filter(until="2026-11-25T13:15:51Z", kind="sshd"), [12278]),
    ],
)
def test_sessions_are_chosen(login: Recording, wanted: Filter, pids: list[int]) -> None:
    """By what a person knows of them; all that is asked must fit."""
    found = [each for each in login.sessions() if wanted.fits(each)]
    assert [each.leader.pid for each in found if each.leader] == pids


def test_a_table_has_a_line_for_each_session(login: Recording) -> None:
    """Without a terminal the width is not limited."""
    found = [each for each in login.sessions() if each.kind == "sshd"]
    lines = list(sessions.table(found, width=None, now=NOW, colours=OFF))
    assert [re.split(r"  +", line.strip()) for line in lines] == [
        ["PID", "USER", "FROM", "HOST", "START", "END", "PROCS", "FAIL", "COMMANDS"],
        [
            *("12278", "ann→root→nobody", "sshd 198.51.100.7", "web1"),
            *("Nov 25 13:15", "Nov 25 13:15 (12.7s)", "119", "10"),
            "ls --color=auto -la … /usr/bin/clear_console -q",
        ],
        [
            *("12417", "ann", "sshd 198.51.100.8", "web1"),
            *("Nov 25 13:15", "Nov 25 13:15 (11ms)", "3", "1"),
            "bash -c uptime; df / >/dev/null; grep -q root /etc/shadow",
        ],
    ]


def test_a_line_fits_the_terminal_and_harms_none() -> None:
    """Long arguments are cut, and control characters are escaped."""
    story = Story()
    hostile = "\x1b]0;title\x07\u202egpj\n" + "x" * 1_000_000
    recording = recorded(story.event(1, "exec", "bash", args=["echo", hostile], user="\x1b[31m"))
    for width in (80, 200):
        for line in sessions.table(recording.sessions(), width=width, now=NOW, colours=OFF):
            assert line.isprintable()
            assert width_of(line) <= width


def test_the_object_of_a_session(login: Recording) -> None:
    """For programs: what is unknown or none is left out."""
    (found,) = (each for each in login.sessions() if each.source == "198.51.100.7")
    described = sessions.described(found, login.losses)
    assert (described.pid, described.processes, described.failed) == (12278, 119, 10)
    assert described.became_root
    assert described.execs_failed == 18
    assert described.lost == 0


def test_a_loss_counts_for_the_sessions_of_its_time() -> None:
    """Those are the sessions on its host that were running."""
    story = Story()
    recording = recorded(
        story.event(1, "exec", "early"),
        story.event(2, "end", "early"),
        story.event(3, "exec", "late", start=3),
        story.own(5, "sessiond-lost", start=4, loss={"hop": "kernel", "count": 12}),
    )
    lost = [sessions.described(each, recording.losses).lost for each in recording.sessions()]
    assert lost == [0, 12]
    assert recording.losses[0].start == at(4)
