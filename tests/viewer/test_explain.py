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
    """The text has its actions, users and ancestors, each fact with its source."""
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


def test_identities_that_differ_are_told() -> None:
    """Real and saved ids, other groups, labels, and the pod around it; no harm in any of them."""
    event = Story().event(1, "exec", "ls")
    event["process"] |= {
        "group": {"id": "0", "name": "root"},
        "real_group": {"id": "7", "name": "staff"},
        "saved_user": {"id": "8", "name": "\x1bbob"},
        "saved_group": {"id": "0", "name": "root"},
        "supplemental_groups": [{"id": "9", "name": "adm"}, {"id": "10"}],
    }
    event["labels"] = {"team": "web"}
    event["orchestrator"] = {"type": "kubernetes", "resource": {"type": "pod", "id": "p1"}}
    text = told(recording := recorded(event), recording.processes["web1-ls"])
    for line in (
        "real group    staff",
        r"saved user    \x1bbob",
        "other groups  adm 10",
        "labels        team=web  (the configuration)",
        "pod           kubernetes pod p1",
    ):
        assert line in text
    assert "saved group" not in text


def test_of_very_many_programs_the_first_and_the_latest_are_told() -> None:
    """And how many there were in between."""
    story = Story()
    events = [story.event(n / 100, "exec", "loop", args=["loop", str(n)]) for n in range(1000)]
    text = told(recording := recorded(*events), recording.processes["web1-loop"])
    assert text.count("executed /usr/bin/loop") == 100
    assert "loop 0, as root" in text
    assert "loop 999, as root" in text
    assert "900 further executed programs, not kept" in text


def test_a_process_known_by_others_says_so() -> None:
    """The text says that no event of the process is in the files."""
    story = Story()
    recording = recorded(story.event(1, "exec", "ls", parent="bash", entry="bash"))
    assert "No event of its own is in these files" in told(
        recording, recording.processes["web1-bash"]
    )
