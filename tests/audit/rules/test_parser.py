"""Words and options of one line of the rule language; test_ruleset.py tests whole rules."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.audit.rules import parser
from sessiond.audit.rules.parser import RefusedError

WORDS = st.lists(st.text("abc=/!,<>&", min_size=3, max_size=12), min_size=1, max_size=8)


@pytest.mark.parametrize("line", ["", "   ", "# a comment", "  # another"])
def test_a_line_can_say_nothing(line: str) -> None:
    """Blank lines and comments."""
    assert parser.split(line) == []


def test_a_backslash_keeps_a_blank_in_a_word() -> None:
    """A backslash before another one is one backslash; before any other character it is itself."""
    line = r"-w /srv/a\ b -k back\\slash\n"
    assert parser.split(line) == ["-w", "/srv/a b", "-k", r"back\slash\n"]


@given(WORDS)
def test_words_are_separated_by_blanks_alone(words: list[str]) -> None:
    """Any number of blanks separates words."""
    assert parser.split("   ".join(words)) == words


@given(st.text(st.characters(codec="latin-1"), max_size=80))
def test_any_line_is_words_or_a_reason(line: str) -> None:
    """Any line gives words or a reason, which is one printable line."""
    reason = ""
    try:
        words = parser.split(line)
        if words:
            parser.options(words)
    except RefusedError as error:
        reason = str(error)
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-a always,exit -S", "-S needs a value"),
        ("-Z", "-Z is no auditctl option"),
        ("--signal", "--signal needs a value"),
        ("-D # all", "a comment must stand on a line of its own"),
        ("-w /etc\t-p wa", "separated by blanks, not by tabs"),
        ("-a always,exit \\", "can't go on in the next line"),
        ("-k 'two words'", "quotes mean nothing here"),
        ("-D\r", "carriage return"),
        ("-D \4", "control character"),
        (r"-w\ /etc", "put a blank after -w"),
        ("-D " + "x" * 7000, "auditctl reads 6143 bytes"),
    ],
)
def test_a_mistake_has_a_reason_that_helps(line: str, reason: str) -> None:
    """The reason names the mistake and the correct form."""
    with pytest.raises(RefusedError) as caught:
        parser.options(parser.split(line))
    assert reason in str(caught.value)


def test_options_come_in_their_order() -> None:
    """Options are returned in the order of the line, which determines their meaning."""
    found = parser.options(shlex.split("-a always,exit -F arch=b64 -S execve,1 -k id"))
    assert found == [
        ("-a", "always,exit"),
        ("-F", "arch=b64"),
        ("-S", "execve,1"),
        ("-k", "id"),
    ]


def test_what_is_no_text_is_shown_so_that_no_terminal_obeys_it() -> None:
    """Bytes that are not UTF-8 and control characters are escaped."""
    assert parser.show("caf\xe9") == r"caf\xe9"
    assert "\x1b" not in parser.quote("\x1b[31m")
