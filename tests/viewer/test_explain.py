"""A process is explained in words."""

from __future__ import annotations

from datetime import UTC, datetime

from support.recording import Story, by_command, login_lines, recorded

from sessiond.viewer.explain import explain
from sessiond.viewer.model import Process, Recording

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def told(recording: Recording, process: Process) -> str:
    sessions = {each.id: each for each in recording.sessions()}
    return "\n".join(explain(process, recording, sessions.get(process.entry), NOW))


def test_a_process_of_a_real_login() -> None:
    """What it did, as whom, and through whom it came; each fact with its source."""
    recording = recorded(*login_lines())
    text = told(recording, by_command(recording, "sleep 30"))
    for line in (
        "executed /usr/bin/sleep: sleep 30, as ann  (auditd, ebpf)",
        "was ended by SIGKILL after 500ms  (ebpf)",
        "As whom and where, at its last event, 2026-11-25 13:15:44.628 (auditd, ebpf)",
        "forked by       -bash (pid 12278, as ann, since 2026-11-25 13:15:37.918)",
        "entry leader    -bash, by sshd 198.51.100.7  (the entry rules)",
    ):
        assert line in text


def test_what_is_not_known_is_told() -> None:
    """Losses during the process are included."""
    story = Story()
    recording = recorded(
        story.event(1, "exec", "ls", sessiond={"incomplete": ["user: the record was lost"]}),
        story.own(3, "sessiond-lost", start=2, message="12 records lost", loss={"hop": "kernel"}),
        story.event(4, "exec-failed", "ls", file={"path": "/x"}, error={"code": "EACCES"}),
        story.event(5, "opened-file", "ls", file={"path": "/etc/shadow\x1b"}),
    )
    text = told(recording, recording.processes["web1-ls"])
    assert "incomplete      user: the record was lost  (sessiond)" in text
    assert "lost meanwhile  12 records lost (kernel)" in text
    assert "could not execute /x: EACCES" in text
    assert r"opened-file /etc/shadow\x1b" in text
    assert "parent          no event tells which process forked it" in text


def test_a_process_known_by_others_says_so() -> None:
    """Nothing is made up for it."""
    story = Story()
    recording = recorded(story.event(1, "exec", "ls", parent="bash", entry="bash"))
    assert "No event of its own is in these files" in told(
        recording, recording.processes["web1-bash"]
    )
