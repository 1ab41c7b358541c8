"""Rules that go-libaudit accepts and auditctl does not are rewritten or noted."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.audit.rules import parser
from sessiond.migrate.rules import RewrittenRules, rewrite

DIRECTORIES = (b"/etc", b"/etc/ssh", b"/")


def path_mode(path: bytes) -> int:
    """A host with three directories, and all files in them."""
    if path in DIRECTORIES:
        return stat.S_IFDIR
    if path.rpartition(b"/")[0] in (b"", b"/etc", b"/etc/ssh"):
        return stat.S_IFREG
    raise FileNotFoundError


def rewritten(text: str) -> RewrittenRules:
    return rewrite(text, path_mode)


@pytest.mark.parametrize(
    "line",
    [
        "-a always,exit -F arch=b64 -S execve,execveat -k exec",
        "-w /etc/passwd -p wa -k identity",
        "-a never,exclude -F msgtype=CWD",
        "# a comment",
        "",
    ],
)
def test_what_auditctl_takes_stays(line: str) -> None:
    """The usual rules are the same in both."""
    assert rewritten(line + "\n").text == line + "\n"
    assert rewritten(line).changes == []


@pytest.mark.parametrize(
    ("line", "rewritten_line"),
    [
        (
            "-a always,exit -S execve -F arch=b64 -k exec",
            "-a always,exit -F arch=b64 -S execve -k exec",
        ),
        (
            "-k exec -S execve -F success=1 -F arch=b64 -a exit,always",
            "-a exit,always -F arch=b64 -S execve -F success=1 -k exec",
        ),
        ("-w '/etc/pass wd' -p wa", "-w /etc/pass\\ wd -p wa"),
        ("-w\t/etc/passwd\t-p\twa", "-w /etc/passwd -p wa"),
        ("-w /etc/passwd -k one # comment", "-w /etc/passwd -k one"),
        ("-k=one -w=/etc/passwd --p=wa", "-w /etc/passwd -p wa -k one"),
        ("-p wa -k one,two -w /etc/passwd", "-w /etc/passwd -p wa -k one -k two"),
        (
            '-a always,exit -F arch=b64 -S "open, close"',
            "-a always,exit -F arch=b64 -S open,close",
        ),
    ],
)
def test_what_only_go_libaudit_takes_is_rewritten(line: str, rewritten_line: str) -> None:
    """The meaning stays; the change is noted."""
    done = rewritten(line)
    assert done.text == rewritten_line + "\n"
    assert done.changes == [(1, f"written as {rewritten_line}")]
    parser.parse(done.text, "x", path_mode=path_mode)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-a always,exit -S nonsense", "unknown system call 'nonsense'"),
        ("-w '/etc/passwd", "No closing quotation"),
        ("-w", "-w has no value"),
        ("nonsense", "there is no option"),
    ],
)
def test_what_cannot_be_understood_becomes_a_comment(line: str, reason: str) -> None:
    """The other rules are loaded."""
    done = rewritten(f"-w /etc/group -k a\n{line}\n-w /etc/passwd -k b\n")
    assert done.text == f"-w /etc/group -k a\n# {line}\n-w /etc/passwd -k b\n"
    ((number, change),) = done.changes
    assert number == 2
    assert reason in change


def test_a_rule_that_is_there_twice_is_left_out_once() -> None:
    """Auditbeat refuses it as well, unless it ignores errors."""
    done = rewritten("-w /etc/passwd -k a\n-k a -w /etc/passwd\n")
    assert done.text == "-w /etc/passwd -k a\n# -w /etc/passwd -k a\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-w /opt/none/file -p wa -k a", "there is no directory"),
        ("-a always,exit -F arch=b64 -S open -F auid=no-such-user", "there is no user"),
    ],
)
def test_what_this_host_lacks_is_kept(line: str, reason: str) -> None:
    """Another host, or a later state of this one, may have it."""
    done = rewritten(line)
    assert done.text == line + "\n"
    ((number, why),) = done.skipped
    assert (number, done.changes) == (1, [])
    assert reason in why


@given(st.text(alphabet=st.sampled_from("-awSFkpD =,/'\"\\#\t\nexit:lways64")))
def test_no_rule_makes_it_fail(text: str) -> None:
    """The remaining rules load, except those for missing parts of this host."""
    done = rewritten(text)
    left = parser.parse(done.text, "x", keep_going=True, path_mode=path_mode).errors
    assert len(left) == len(done.skipped)
