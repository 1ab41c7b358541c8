"""Events become hosts, sessions, processes and losses, in whatever order they are read."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.recording import Story, at, by_command, login_lines, recorded

from sessiond.viewer.model import Recording, find


@pytest.fixture(scope="module")
def login() -> Recording:
    """The real recording."""
    return recorded(*login_lines())


def test_a_real_login_is_one_session(login: Recording) -> None:
    """With what was typed in it, under sudo and tmux too, and where it came from."""
    (session,) = (each for each in login.sessions() if each.source == "198.51.100.7")
    assert (session.kind, session.user, session.users) == ("sshd", "ann", ["ann", "root", "nobody"])
    assert session.became_root
    assert not session.running
    assert session.count == 119
    typed = [each.command for each in session.processes if each.typed]
    assert {"make -j2", "sudo -n id", "sleep 30", "ssh -V"} <= set(typed)
    assert "cc1" not in {each.name for each in session.processes if each.typed}
    assert login.refused == 0


def test_signals_exit_codes_and_failed_execs(login: Recording) -> None:
    """The end of each process of the login has its signal or exit code."""
    killed = by_command(login, "sleep 30")
    assert (killed.exit_code, killed.signal) == (137, "SIGKILL")
    assert sum(each.failed_count for each in login.processes.values()) == 18
    gcc = next(each for each in login.processes.values() if each.failed)
    assert (gcc.failed[0].executable, gcc.failed[0].error) == ("/usr/local/bin/as", "ENOENT")


def test_order_and_repetition_change_nothing(login: Recording) -> None:
    """Rotated files may be named in any order, and a line may be delivered twice."""
    lines = login_lines()
    random.Random(1).shuffle(lines)
    shuffled = recorded(*lines, *lines[:100])
    assert shuffled.events == login.events
    mine, theirs = (
        {each.id: (each.count, each.users, each.end) for each in one.sessions()}
        for one in (shuffled, login)
    )
    assert mine == theirs


def test_a_repeated_line_is_no_gap() -> None:
    """A missing line is detected too."""
    story = Story()
    one, two = story.event(1, "exec", "bash"), story.event(2, "exec", "ls", parent="bash")
    story.skip(7)
    three = story.event(3, "end", "ls", parent="bash")
    assert recorded(one, two, one, two).losses == []
    (gap,) = recorded(one, two, three).losses
    assert (gap.hop, gap.count, gap.start, gap.end) == ("file", 7, at(2), at(3))


def test_a_process_known_by_others_alone_is_there() -> None:
    """A leader that was there before the file begins holds its session together."""
    story = Story()
    recording = recorded(story.event(1, "exec", "ls", parent="bash", entry="bash"))
    (session,) = recording.sessions()
    assert session.leader is not None
    assert not session.leader.seen
    assert session.count == 1


def test_what_an_inventory_misses_is_gone() -> None:
    """A process that ended while no daemon ran does not count as running."""
    story = Story()
    recording = recorded(
        story.event(1, "exec", "stays"),
        story.event(1, "exec", "leaves"),
        story.own(9, "sessiond-lost", start=2, loss={"hop": "gap", "count": 0}),
        story.event(10, "already_running", "stays"),
    )
    running = {each.id: each.running for each in recording.sessions()}
    assert running == {"web1-stays": True, "web1-leaves": False}


def test_nothing_of_an_earlier_boot_runs() -> None:
    """A process of an earlier boot counts as ended, even without an end event."""
    before, after = Story(boot="b1"), Story(boot="b2")
    after.skip(100)
    recording = recorded(before.event(1, "exec", "old"), after.event(9, "exec", "new", start=9))
    assert [each.running for each in recording.sessions()] == [False, True]


def test_a_session_over_two_hosts_is_linked() -> None:
    """By the client's address and time; a client on another host or of another time is not it."""
    client, server = Story("desk", ip="192.0.2.1"), Story("web1")
    meta = {"type": "sshd", "source": {"ip": "192.0.2.1"}}
    recording = recorded(
        client.event(0, "exec", "ssh old", parent="bash", entry="bash", start=0),
        client.event(0.5, "end", "ssh old", parent="bash", entry="bash", start=0),
        client.event(1, "exec", "ssh web1", parent="bash", entry="bash", start=1),
        server.event(2, "exec", "bash", meta=meta, start=2),
    )
    (login,) = (each for each in recording.sessions() if each.host == "web1")
    assert login.origin is not None
    assert login.origin.id == "desk-ssh-web1"


def test_lines_that_are_no_events_are_counted() -> None:
    """Torn, foreign and malformed ones; an empty line is nothing."""
    lines = (b"{", b"[]", b"type=SYSCALL msg=audit(1.1:1):", b'{"@timestamp":7,"event":{}}', b"\n")
    recording = recorded(*lines, b'{"@timestamp":"now","event":{}}', b"\xff\xfe")
    assert (recording.refused, recording.events) == (6, 0)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("web1-bash", ["web1-bash"]), ("web1-l", ["web1-ls"]), ("nothing", [])],
)
def test_what_a_person_means(wanted: str, found: list[str]) -> None:
    """A process or a session is named by its id, or by the beginning of its id."""
    story = Story()
    recording = recorded(
        story.event(1, "exec", "bash"), story.event(2, "exec", "ls", parent="bash", entry="bash")
    )
    assert [each.id for each in find(recording, wanted, recording.sessions())] == found


def test_a_pid_may_have_been_of_several() -> None:
    """All are written."""
    story = Story()
    one, two = story.event(1, "exec", "ab"), story.event(2, "exec", "ba")
    recording = recorded(one, two)
    pid = str(one["process"]["pid"])
    assert len(find(recording, pid, recording.sessions())) == 2


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["entity_id", "pid", "start", "parent", "args", "user", "id"]),
                inner,
            )
        ),
        max_leaves=20,
    )
)
def test_no_line_stops_the_reading(block: object) -> None:
    """A process object of any wrong type is accepted or counted as refused."""
    recording = recorded({"@timestamp": at(1), "event": {"action": "exec"}, "process": block})
    assert recording.events + recording.refused <= 1 or not block
    recording.sessions()
    recording.children()


def test_a_relative_may_stand_in_any_form() -> None:
    """Other programs write members in another order, and with blanks."""
    story = Story()
    line = json.dumps(story.event(1, "exec", "ls", parent="bash"), sort_keys=True, indent=1)
    assert recorded(line.replace("\n", "").encode()).processes["web1-ls"].parent == "web1-bash"
