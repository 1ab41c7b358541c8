"""Each problem is reported once when it starts and once when it ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sessiond.audit.auditd_log import EnrichedNames
from sessiond.config.schema import Config
from sessiond.daemon.factory import offline_pipeline
from sessiond.daemon.health import Health
from sessiond.pipeline.pipeline import Pipeline
from sessiond.units import SECOND, BootTime


@pytest.fixture
def pipeline() -> Pipeline:
    """A pipeline without input."""
    return offline_pipeline(Config(), EnrichedNames())


def told(pipeline: Pipeline) -> list[Any]:
    """The events that were written since the last call."""
    return [json.loads(line) for line in pipeline.poll(10 * SECOND)]


def test_a_problem_is_told_once_and_so_is_its_end(pipeline: Pipeline) -> None:
    """Two reports of one problem make one event, and its end another one."""
    health = Health(pipeline)
    health.degraded("audit rules", "3 are gone", BootTime(SECOND), window=(0, SECOND))
    health.degraded("audit rules", "3 are gone", BootTime(2 * SECOND))
    assert health.status()["state"] == "degraded"
    (event,) = told(pipeline)
    assert event["event"]["action"] == "sessiond-degraded"
    assert event["event"]["start"] < event["event"]["end"]
    assert event["sessiond"]["health"] == {"what": "audit rules", "reason": "3 are gone"}
    health.recovered("audit rules", BootTime(3 * SECOND), "they were loaded again")
    health.recovered("audit rules", BootTime(4 * SECOND))
    (event,) = told(pipeline)
    assert event["event"]["action"] == "sessiond-recovered"
    assert event["message"] == "audit rules: they were loaded again"
    assert health.status() == {"state": "healthy", "problems": [], "told": 2}


def test_what_was_never_wrong_does_not_recover(pipeline: Pipeline) -> None:
    """A recovery without a problem is not reported."""
    Health(pipeline).recovered("audit rules", BootTime(SECOND))
    assert told(pipeline) == []
