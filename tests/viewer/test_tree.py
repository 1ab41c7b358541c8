"""A session is drawn as a tree."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from support.recording import Story, login_lines, recorded, session_of

from sessiond.viewer import tree
from sessiond.viewer.model import Recording
from sessiond.viewer.tree import Shape, Tree
from sessiond.viewer.words import Colours, width_of

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def drawn(
    recording: Recording, session: str, shape: Shape | None = None, width: int | None = None
) -> list[str]:
    """The lines of a session, without times."""
    one = session_of(recording, session)
    rows = Tree(recording, shape or Shape()).rows(one)
    lines = tree.text(rows, width=width, now=NOW, day=one.start, colours=Colours())
    return [line[22:] for line in lines]


@pytest.fixture(scope="module")
def login() -> Recording:
    """The real recording."""
    return recorded(*login_lines())


LOGIN = "lOcVr6UYKV_j9tnoaonUD00F"


def test_a_real_login(login: Recording) -> None:
    """Typed commands are marked; lines have user, directory, exit code, signal and names."""
    lines = drawn(login, LOGIN)
    for line in (
        "-bash  → exit 3  as ann  in /home/ann/site",
        "├─ id -u  in /home/ann",
        "├─ $ make -j2",
        "│  │  └─ as --64 -o main.o /tmp/cct49zaU.s  [found after 1]",
        "├─ $ sudo -n id  ↑ as root",
        "│     └─ $ sh -c cd /etc; whoami; head -c 10 shadow >/dev/null  in /etc",
        "├─ $ sleep 30  → SIGKILL",
        "├─ 40 ✕ $ /bin/true",
        "├─ $ /bin/echo </script><script>alert(1)</script><img src=x onerror=alert(2)>",
        r"├─ $ /bin/echo \x1b[31mred\x1b]0;title\x07 \u202egpj.exe a\nb  two words",
        "│  └─ not executed (EACCES): /home/ann/site/Makefile",
        "│        ├─ bash -c sleep 1; /bin/date ⇒ /bin/date",
    ):
        assert line in lines


def test_the_heading_summarises_the_session(login: Recording) -> None:
    """It has the user, the entry, the time, and the numbers of processes and failures."""
    said = tree.heading(session_of(login, LOGIN), login, NOW)
    assert said == (
        "ann by sshd 198.51.100.7 on web1, 2026-11-25 13:15:37, 12.7s, 119 processes, "
        "10 failed, became root"
    )


def test_only_what_was_typed(login: Recording) -> None:
    """Processes above a typed command are shown too."""
    lines = drawn(login, LOGIN, Shape(only="typed"))
    assert "├─ $ make -j2" in lines
    assert not any("gcc" in line for line in lines)


def test_levels_can_be_left_out(login: Recording) -> None:
    """Their processes are counted."""
    assert "├─ $ make -j2  [42 below]" in drawn(login, LOGIN, Shape(level=1))


def test_nothing_is_folded_if_all_is_asked(login: Recording) -> None:
    """Each process has a line."""
    lines = drawn(login, LOGIN, Shape(fold=False))
    assert sum(line.endswith("$ /bin/true") for line in lines) == 40


def test_a_loss_stands_where_it_was() -> None:
    """Below the process that ran then, between the children before and after."""
    story = Story()
    recording = recorded(
        story.event(1, "exec", "bash", start=1),
        story.event(2, "exec", "one", parent="bash", entry="bash", start=2),
        story.event(2.5, "end", "one", parent="bash", entry="bash", start=2),
        story.own(4, "sessiond-lost", start=3, message="12 records lost", loss={"hop": "kernel"}),
        story.event(5, "exec", "two", parent="bash", entry="bash", start=5),
    )  # fmt: skip
    assert drawn(recording, "web1-bash") == [
        "bash  as root",
        "├─ one",
        "├─ ‼ lost here (kernel): 12 records lost",
        "└─ two",
    ]


def test_a_finding_about_the_host_stands_where_it_was() -> None:
    """As a loss does; one about a process stands beside it."""
    story = Story()
    alert = story.own(3, "sessiond-degraded") | {"rule": {"name": "Rules gone"}}
    alert["event"] |= {"kind": "alert"}
    recording = recorded(
        story.event(1, "exec", "bash", start=1),
        story.event(2, "exec", "one", parent="bash", entry="bash", start=2),
        story.event(2.5, "end", "one", parent="bash", entry="bash", start=2),
        alert,
    )
    assert drawn(recording, "web1-bash") == ["bash  as root", "├─ one", "└─ ! Rules gone"]


def test_privileges_that_are_gained_are_marked() -> None:
    """An exec that makes root of another user, or gives capabilities; root's children gain none."""
    story = Story()
    bash = story.event(1, "exec", "bash", start=1, user="ann")
    shell = {"parent": "bash", "entry": "bash", "start": 2}
    ping = story.event(2, "exec", "ping", user="ann", **shell)
    ping["process"]["thread"] = {"capabilities": {"effective": ["CAP_NET_RAW"]}}
    su = story.event(3, "exec", "su", **(shell | {"start": 3}))
    below = story.event(4, "exec", "id", **(shell | {"parent": "su", "start": 4}))
    assert drawn(recorded(bash, ping, su, below), "web1-bash") == [
        "bash  as ann",
        "├─ ping  ↑ CAP_NET_RAW",
        "└─ su  ↑ as root",
        "   └─ id",
    ]


def test_a_process_that_executes_itself_again_and_again_takes_one_line() -> None:
    """The first and the last programs are named, and their number."""
    story = Story()
    events = [story.event(n / 100, "exec", "loop", args=["loop", str(n)]) for n in range(1000)]
    (line,) = drawn(recorded(*events), "web1-loop")
    assert line.startswith("loop 0 ⇒ … (1000 programs) ⇒ loop 996 ⇒ loop 997 ⇒ loop 998 ⇒ loop 999")


def test_what_is_incomplete_or_was_not_seen_is_marked() -> None:
    """So is a process that is known by others alone."""
    story = Story()
    incomplete = {"incomplete": ["args: the record was lost"], "truncated": ["process.args"]}
    recording = recorded(
        story.event(1, "exec", "ls", parent="bash", entry="bash", sessiond=incomplete),
        story.event(2, "fork", "sh", parent="bash", entry="bash", start=2),
    )
    assert drawn(recording, "web1-bash") == [
        "? (known by others alone)",
        "├─ ls  as root  [incomplete: args: the record was lost]  [cut at a limit]",
        "└─ (sh)  as root",
    ]


def test_a_long_chain_is_drawn_in_little_room() -> None:
    """Each level is there, with its number."""
    story = Story()
    count = 3000
    lines = drawn(
        recorded(
            *(
                story.event(
                    n, "exec", f"p{n}", parent=f"p{n - 1}" if n else "", entry="p0", start=n
                )
                for n in range(count)
            )
        ),
        "web1-p0",
    )
    assert len(lines) == count
    assert max(map(len, lines)) < 200
    assert f"{count - 1} levels deep: p{count - 1}" in lines[-1]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_lines_fit_the_terminal_and_harm_none(login: Recording, width: int) -> None:
    """An argument of a million characters is cut."""
    story = Story()
    hostile = story.event(1, "exec", "bash", args=["\x1b[2J\u202e漢" * 250_000])
    recording = recorded(hostile)
    one = session_of(recording, "web1-bash")
    rows = Tree(recording).rows(one)
    for line in tree.text(rows, width=width, now=NOW, day=one.start, colours=Colours()):
        assert line.isprintable()
        assert width_of(line) <= width
    (line,) = drawn(recording, "web1-bash")
    assert len(line) < 5 * tree.MAX_COMMAND
    assert "(1500000 characters)" in line
    assert all(width_of(line) <= 200 for line in drawn(login, LOGIN, width=178))


def test_what_repeats_itself_with_all_below_it_is_one() -> None:
    """A loop of a shell is a few lines, however often it went round; a failure stands alone."""
    story = Story()
    events = [story.event(0, "exec", "bash")]
    for number in range(300):
        start = 1 + number / 10
        for name, parent in ((f"setsid-{number}", "bash"), (f"true-{number}", f"setsid-{number}")):
            more = {"parent": parent, "entry": "bash", "start": start, "args": [name[:4]]}
            code = 1 if name == "true-7" else 0
            events.append(story.event(start, "exec", name, **more))
            events.append(story.event(start, "end", name, **more, exit_code=code))
    assert drawn(recorded(*events), "web1-bash") == [
        "bash  as root",
        "├─ 299 ✕ sets",
        "│  └─ true",
        "└─ sets",
        "   └─ true  → exit 1",
    ]


def test_a_circle_of_parents_is_drawn_once() -> None:
    """No process is missing, and the drawing ends."""
    story = Story()
    recording = recorded(
        story.event(1, "exec", "a", parent="b", entry="shell"),
        story.event(2, "exec", "b", parent="a", entry="shell", start=1),
        story.event(3, "exec", "own", parent="own", entry="shell", start=2),
    )
    lines = drawn(recording, "web1-shell")
    assert [line.split("  ")[0] for line in lines] == [
        "? (known by others alone)", "a", "└─ b", "own"
    ]  # fmt: skip
    rows = Tree(recording).rows(recording.processes["web1-b"])
    assert [row.process.id for row in rows if row.process] == ["web1-b", "web1-a"]
