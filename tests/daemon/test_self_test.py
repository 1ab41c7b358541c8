"""The self-test: starting, judging and releasing its process."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from sessiond.audit.auditd_log import EnrichedNames
from sessiond.config.schema import Config
from sessiond.daemon.factory import offline_pipeline
from sessiond.daemon.self_test import SelfTest
from sessiond.pipeline.event_writer import Probe
from sessiond.pipeline.pipeline import Pipeline


@pytest.fixture
def pipeline() -> Pipeline:
    """A pipeline that expects audited execs, traced by eBPF."""
    pipeline = offline_pipeline(Config(), EnrichedNames())
    options = dataclasses.replace(pipeline.options, source="ebpf", exact=True, replay=False)
    pipeline.use(options)
    return pipeline


@pytest.fixture
def keeper(pipeline: Pipeline) -> SelfTest:
    """A self-test that starts a canary every 30 s and waits 10 s for it."""
    keeper = SelfTest(pipeline, interval=30, timeout=10)
    keeper.check(0, audit_well=True)
    return keeper


def started(keeper: SelfTest, pipeline: Pipeline, now: float) -> Probe:
    """Check when a canary is due, and return the started one."""
    keeper.check(now, audit_well=True)
    assert pipeline.lines.canary is not None
    return pipeline.lines.canary


def test_a_canary_that_is_seen_is_let_go(keeper: SelfTest, pipeline: Pipeline) -> None:
    """The canary is a child of the daemon, kept until it was reported, and then reaped."""
    canary = started(keeper, pipeline, 30)
    stat = Path(f"/proc/{canary.pid}/stat")
    keeper.check(31, audit_well=True)
    os.waitid(os.P_PID, canary.pid, os.WEXITED | os.WNOWAIT)
    assert stat.exists()
    canary.audited = canary.traced = True
    keeper.check(32, audit_well=True)
    assert (keeper.seen, keeper.failure, pipeline.lines.canary) == (1, None, None)
    assert not stat.exists()


def test_a_canary_without_a_tracer_event_is_a_failure(keeper: SelfTest, pipeline: Pipeline) -> None:
    """An exact source must see every process: after 10 s it counts as dead."""
    started(keeper, pipeline, 30).audited = True
    keeper.check(39, audit_well=True)
    assert keeper.failure is None
    keeper.check(40, audit_well=True)
    assert keeper.blind
    assert keeper.failure == "a process of ours was not seen by ebpf for 10 s"


def test_audit_must_report_canaries_as_at_first(keeper: SelfTest, pipeline: Pipeline) -> None:
    """The first canary determines whether audit reports canaries; later ones are judged by that."""
    first = started(keeper, pipeline, 30)
    first.audited = first.traced = True
    keeper.check(31, audit_well=True)
    started(keeper, pipeline, 60).traced = True
    keeper.check(70, audit_well=True)
    assert keeper.failure == "a process of ours was not seen by audit for 10 s"
    third = started(keeper, pipeline, 90)
    third.audited = third.traced = True
    keeper.check(91, audit_well=True)
    assert keeper.failure is None


def test_both_sides_are_named_where_both_are_missing(keeper: SelfTest, pipeline: Pipeline) -> None:
    """The message names both sides."""
    first = started(keeper, pipeline, 30)
    first.audited = first.traced = True
    keeper.check(31, audit_well=True)
    started(keeper, pipeline, 60)
    keeper.check(70, audit_well=True)
    assert keeper.failure == "a process of ours was not seen by audit and ebpf for 10 s"


def test_rules_may_exclude_sessiond(keeper: SelfTest, pipeline: Pipeline) -> None:
    """If audit does not report the first canary, later ones need no report, until rules change."""
    for number, wait in ((1, 40), (2, 61), (3, 91)):
        started(keeper, pipeline, 30 * number).traced = True
        keeper.check(wait, audit_well=True)
        assert (keeper.seen, keeper.failure) == (number, None)
    keeper.forget()
    last = started(keeper, pipeline, 120)
    last.audited = last.traced = True
    keeper.check(121, audit_well=True)
    started(keeper, pipeline, 150).traced = True
    keeper.check(160, audit_well=True)
    assert keeper.failure is not None


def test_a_known_trouble_of_audit_is_not_the_canarys(keeper: SelfTest, pipeline: Pipeline) -> None:
    """While auditing is switched off, only the tracer must report the canary."""
    first = started(keeper, pipeline, 30)
    first.audited = first.traced = True
    keeper.check(31, audit_well=True)
    started(keeper, pipeline, 60).traced = True
    keeper.check(61, audit_well=False)
    assert (keeper.seen, keeper.failure) == (2, None)


def test_without_an_interval_there_are_none(pipeline: Pipeline) -> None:
    """An interval of 0 starts nothing, ever."""
    keeper = SelfTest(pipeline, interval=0, timeout=10)
    for now in (0, 1000, 2000):
        keeper.check(now, audit_well=True)
        assert pipeline.lines.canary is None
