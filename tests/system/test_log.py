"""The daemon's own log: its destinations, and that no value can forge a line."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path

import pytest
import structlog
from systemd import journal

from sessiond.system import log


def test_the_console_gets_a_readable_line(capsys: pytest.CaptureFixture[str]) -> None:
    """It has time, level, event and fields; standard output stays empty."""
    log.configure("info", "console")
    structlog.get_logger().info("rules_loaded", added=4, path="/etc/sessiond.rules")
    captured = capsys.readouterr()
    line = r"\d\d:\d\d:\d\d info    rules_loaded added=4 path=/etc/sessiond\.rules\n"
    assert re.fullmatch(line, captured.err)
    assert captured.out == ""


def test_values_cannot_forge_lines_or_drive_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Newlines, escapes and bidirectional controls are escaped."""
    log.configure("info", "console")
    structlog.get_logger().warning("odd", name="a\n12:00:00 error \x1b[31m\u202e\udcff b", b=b"\n")
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert r"'a\n12:00:00 error \x1b[31m\u202e\udcff b'" in error


def test_an_exception_is_shown_below_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback follows, its own values escaped."""
    log.configure("info", "console")
    try:
        int("\x1b[31m")
    except ValueError:
        structlog.get_logger().exception("bug")
    error = capsys.readouterr().err
    assert "error   bug\nTraceback" in error
    assert "ValueError: invalid literal" in error
    assert "\x1b" not in error


def test_json_has_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The fields are the same."""
    log.configure("info", "json")
    structlog.get_logger().error("output_failed", errno=28, path=Path("/full"))
    entry = json.loads(capsys.readouterr().err)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry.pop("@timestamp"))
    assert entry == {"level": "error", "event": "output_failed", "errno": 28, "path": "/full"}


def test_the_journal_gets_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name becomes a journal field with the prefix; message and level are readable."""
    sent: list[str] = []
    monkeypatch.setattr(journal, "sendv", lambda *entry: sent.extend(entry))
    log.configure("info", "journal")
    structlog.get_logger().warning("rule_refused", line=3, **{"MESSAGE": "fake", "a-b": 1})
    assert "MESSAGE=rule_refused line=3 MESSAGE=fake a-b=1" in sent
    assert {"PRIORITY=4", "SYSLOG_IDENTIFIER=sessiond", "SESSIOND_EVENT=rule_refused"} < {*sent}
    assert {"SESSIOND_LINE=3", "SESSIOND_MESSAGE=fake", "SESSIOND_A_B=1"} < {*sent}


def test_a_journal_that_fails_falls_back_to_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message goes to standard error."""

    def fail(*_entry: str) -> None:
        raise OSError(90, "Message too long")

    monkeypatch.setattr(journal, "sendv", fail)
    log.configure("info", "journal")
    structlog.get_logger().info("ready")
    assert capsys.readouterr().err.startswith("ready journal_error=")


def test_the_journal_is_recognised_by_its_stream(tmp_path: Path) -> None:
    """JOURNAL_STREAM must identify the file of standard error (systemd.exec(5))."""
    with (tmp_path / "stream").open("w") as stream:
        facts = os.fstat(stream.fileno())
        named = {"JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino}"}
        assert log.under_journal(named, stream)
        assert not log.under_journal({"JOURNAL_STREAM": "8:1"}, stream)
        assert not log.under_journal({}, stream)
    assert not log.under_journal(named, stream)


def test_the_level_can_be_changed_while_loggers_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """A reload changes the level of loggers that modules made at import."""
    logger = structlog.get_logger()
    log.configure("warning", "console")
    logger.info("hidden")
    log.configure("debug", "console")
    logger.debug("shown")
    error = capsys.readouterr().err
    assert "hidden" not in error
    assert "debug   shown" in error


def test_libraries_are_heard(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings of libraries are logged in the same way, with their names."""
    log.configure("info", "console")
    logging.getLogger("pyroute2").warning("socket %d", 3)
    logging.getLogger("pyroute2").info("chatter")
    assert capsys.readouterr().err.endswith("warning library library=pyroute2 message='socket 3'\n")


class Clock:
    """A clock in seconds that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_a_throttle_counts_repetitions() -> None:
    """Repetitions within the interval are counted and logged with the next one."""
    clock = Clock()
    with structlog.testing.capture_logs() as logs:
        throttle = log.Throttle(structlog.get_logger(), clock=clock)
        for second in (0, 1, 59.9, 60, 61):
            clock.now = second
            throttle.warning("ring_lost", number=second)
        throttle.warning("other")
    told = [(entry["event"], entry.get("number"), entry.get("suppressed")) for entry in logs]
    assert told == [("ring_lost", 0, None), ("ring_lost", 60, 2), ("other", None, None)]


def test_a_throttle_flushes_what_did_not_come_again() -> None:
    """The last repetitions of a burst are logged after their interval."""
    clock = Clock()
    with structlog.testing.capture_logs() as logs:
        throttle = log.Throttle(structlog.get_logger(), clock=clock)
        for key in "aab":
            throttle.warning("sick", key=key)
        throttle.flush()
        assert len(logs) == 2
        clock.now = 60
        throttle.flush()
        throttle.flush()
    assert [entry.get("suppressed") for entry in logs] == [None, None, 1]
