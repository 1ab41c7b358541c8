"""Events and their levels; test_log.py tests where they go."""

from __future__ import annotations

import pytest
from support.logs import capture_logs

from sessiond.system.logger import Logger, destination, text


def test_an_event_has_its_fields_and_level() -> None:
    """A field can have the name of a parameter; the level is the method's."""
    with capture_logs() as events:
        Logger().warning("odd", number=3, self=1)
        Logger().log(40, "worse", event_kind="x")
    assert events == [
        {"event": "odd", "number": 3, "self": 1, "level": "warning"},
        {"event": "worse", "event_kind": "x", "level": "error"},
    ]


def test_levels_below_the_destination_s_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The level can change while loggers exist."""
    logger = Logger()
    with capture_logs() as events:
        monkeypatch.setattr(destination, "level", 30)
        logger.info("hidden")
        logger.error("shown")
        monkeypatch.setattr(destination, "level", 20)
        logger.info("shown, too")
    assert [event["event"] for event in events] == ["shown", "shown, too"]


def test_an_exception_comes_with_its_traceback() -> None:
    """That of the field, or the one that is being handled; None is none."""
    with capture_logs() as events:
        try:
            int("x")
        except ValueError as error:
            Logger().exception("handled")
            caught = error
        Logger().error("earlier", exc_info=caught)
        Logger().error("none", exc_info=None)
    assert events[0]["exception"] == events[1]["exception"]
    assert events[0]["exception"].startswith("Traceback")
    assert events[0]["exception"].endswith(
        "ValueError: invalid literal for int() with base 10: 'x'"
    )
    assert events[2] == {"event": "none", "level": "error"}


def test_without_a_configuration_events_go_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are as readable as later."""
    Logger().warning("early", path="/a b")
    assert capsys.readouterr().err == "early path='/a b' level=warning\n"


def test_text_quotes_what_is_not_plain() -> None:
    """Plain words and paths need no quotes."""
    fields = {"event": "moved", "path": "/var/log/x", "why": "no\nspace", "number": 3}
    assert text(fields) == "moved path=/var/log/x why='no\\nspace' number=3"
