"""Which sessions ran at a time is known from the events before."""

from __future__ import annotations

from typing import Any

from support.recording import Story, at

from sessiond.viewer.running import RunningSessions


def running(sessions: RunningSessions, start: float, end: float, boot: str = "b1") -> list[str]:
    """The entity ids of the leaders of the sessions that ran then on web1."""
    found = sessions.during("web1", boot, at(start), at(end))
    return [each.leader["entity_id"] for each in found]


def test_a_session_runs_from_its_first_to_its_last_process() -> None:
    """Its leader may end before: what it left behind still belongs to it."""
    story = Story()
    sessions = RunningSessions()
    for event in (
        story.event(1, "exec", "bash", start=1),
        story.event(2, "exec", "tmux", parent="bash", entry="bash", start=2),
        story.event(3, "end", "bash", start=1),
        story.event(5, "exec", "zsh", start=5),
        story.event(6, "end", "tmux", parent="bash", entry="bash", start=2),
    ):
        sessions.take(event)
    assert running(sessions, 0, 0.5) == []
    assert running(sessions, 4, 4.5) == ["web1-bash"]
    assert running(sessions, 4, 5.5) == ["web1-bash", "web1-zsh"]
    assert running(sessions, 7, 8) == ["web1-zsh"]
    assert running(sessions, 7, 8, boot="b2") == []


def test_the_user_is_the_login_user() -> None:
    """Without one it is the leader's user."""
    story = Story()
    sessions = RunningSessions()
    sessions.take(story.event(1, "exec", "bash") | {"user": {"audit": {"id": "7", "name": "ann"}}})
    leader = story.event(2, "exec", "zsh")
    leader["process"]["entry_leader"]["user"] = {"id": "8"}
    sessions.take(leader)
    found = sessions.during("web1", "b1", at(2), at(2))
    assert [each.user for each in found] == [{"id": "7", "name": "ann"}, {"id": "8"}]


def test_few_of_the_ended_sessions_are_kept() -> None:
    """A loss is told soon after it was."""
    story = Story()
    sessions = RunningSessions()
    for number in range(3000):
        for action in ("exec", "end"):
            sessions.take(story.event(1, action, f"s{number}"))
    assert len(running(sessions, 0, 9)) == 1000


def test_a_document_of_anything_else_changes_nothing() -> None:
    """Members of any wrong type are ignored."""
    sessions = RunningSessions()
    wrongs: tuple[Any, ...] = (None, 7, "x", [], {}, {"entity_id": 7}, {"entity_id": "x"})
    for wrong in wrongs:
        event = {"action": "exec"}
        sessions.take({"@timestamp": at(1), "event": event, "process": wrong})
        process = {"entity_id": "y", "entry_leader": wrong}
        sessions.take({"@timestamp": at(1), "event": wrong, "process": process})
    assert running(sessions, 0, 9) == []
