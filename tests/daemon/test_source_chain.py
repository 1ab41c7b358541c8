"""The process source in use, and its replacement when it fails."""

from __future__ import annotations

import os
from typing import Any

import pytest
from support.scripted import Host
from support.scripted import pipeline as scripted_pipeline

from sessiond.config.schema import SessionMetadataSettings
from sessiond.daemon import source_chain
from sessiond.daemon.health import Health
from sessiond.daemon.source_chain import SourceChain
from sessiond.errors import SourceUnavailableError
from sessiond.pipeline.pipeline import Pipeline
from sessiond.process.events import Lost, Observed, ProcessEvent
from sessiond.sources import Declined
from sessiond.sources.procfs.reader import Procfs
from sessiond.units import SECOND


class _Source:
    """A source that returns given events, and fails after the last one."""

    degraded = ()
    set_aside = ""
    remark = ""
    unread = 0
    broken: OSError | None = None

    def __init__(self, name: str, *drains: list[ProcessEvent], exact: bool = True) -> None:
        self.name, self.exact, self.closed = name, exact, False
        self._drains = list(drains)

    def drain(self) -> list[ProcessEvent]:
        if not self._drains:
            raise OSError("the ring is gone")
        return self._drains.pop(0)

    def check(self) -> None:
        if self.broken is not None:
            raise self.broken

    def resnapshot(self) -> list[ProcessEvent]:
        return self.drain()

    def close(self) -> None:
        self.closed = True


class _Store:
    """The service manager's descriptor store, which notes the calls."""

    def __init__(self) -> None:
        self.tracer: list[int] = []
        self.kept: list[str] = []

    def keep_source(self, source: _Source) -> None:
        self.kept.append(source.name)


class _Scene:
    """A chain over scripted sources."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *sources: _Source, **settings: Any) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.left = list(sources)
        self.ended: list[tuple[str, int]] = []
        self.switched = 0
        monkeypatch.setattr(source_chain, "open_source", self.open_source)
        self.store = _Store()
        self.chain = SourceChain(
            SessionMetadataSettings(**settings),
            Procfs(),
            self.store,  # type: ignore[arg-type]
            on_received=lambda _chunk: None,
            on_end=lambda reason, code: self.ended.append((reason, code)),
        )
        self.chain.on_switch = self.switch
        self.chain.open()
        self.pipeline: Pipeline = scripted_pipeline()
        self.health = Health(self.pipeline)
        self.chain.attach(self.pipeline, self.health)

    def switch(self) -> None:
        self.switched += 1

    def open_source(
        self, backend: str, _procfs: Procfs, *, after: str | None = None, **_: Any
    ) -> tuple[_Source, list[Declined]]:
        self.asked.append((backend, after))
        if backend != "auto" and self.left[0].name != backend:
            raise SourceUnavailableError(backend, "it is not there", "bring it")
        return self.left.pop(0), []


@pytest.fixture
def living() -> list[ProcessEvent]:
    """The snapshot of a host with one shell."""
    shell = Host().shell
    return [Observed(10 * SECOND, shell.facts, shell.program, b"/srv", None)]


def test_a_dead_source_is_followed_by_the_next(
    monkeypatch: pytest.MonkeyPatch, living: list[ProcessEvent]
) -> None:
    """The pipeline uses the new source, and health and status give the reason."""
    first = _Source("ebpf", [])
    second = _Source("proc_connector", living)
    scene = _Scene(monkeypatch, first, second)
    assert scene.chain.drain() == []
    assert scene.switched == 0
    assert scene.chain.drain() == []
    assert scene.asked == [("auto", None), ("auto", "ebpf")]
    assert (scene.chain.source.name, first.closed, scene.switched) == ("proc_connector", True, 1)
    assert scene.pipeline.options.source == "proc_connector"
    assert len(scene.pipeline.table) == 1
    assert scene.health.problems == {
        "process source": "ebpf has failed: the ring is gone; going on with proc_connector"
    }
    assert scene.chain.declined == [
        Declined("ebpf", "ebpf has failed: the ring is gone", "restart sessiond to try it again")
    ]
    assert scene.store.kept == ["proc_connector"]


def test_a_source_that_reports_no_more_is_followed_by_the_next(
    monkeypatch: pytest.MonkeyPatch, living: list[ProcessEvent]
) -> None:
    """A check each second finds what no read of the source would: there is nothing to read."""
    first = _Source("ebpf", [])
    scene = _Scene(monkeypatch, first, _Source("proc_connector", living))
    scene.chain.check()
    assert scene.switched == 0
    first.broken = OSError(9, "its programs are detached")
    scene.chain.check()
    assert (scene.chain.source.name, first.closed) == ("proc_connector", True)
    assert "its programs are detached; going on" in scene.health.problems["process source"]


def test_without_fallback_a_dead_source_ends_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is that of an unavailable source."""
    scene = _Scene(monkeypatch, _Source("ebpf"), backend="ebpf", fallback=False)
    scene.chain.drain()
    assert scene.ended == [("ebpf has failed: the ring is gone", SourceUnavailableError.exit_code)]
    assert scene.switched == 0


def test_a_configured_source_falls_back_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``declined`` names it with its reason and the fix."""
    scene = _Scene(monkeypatch, _Source("procfs", exact=False), backend="ebpf")
    assert scene.asked == [("ebpf", None), ("auto", "ebpf")]
    assert scene.chain.declined == [Declined("ebpf", "it is not there", "bring it")]
    with pytest.raises(SourceUnavailableError):
        _Scene(monkeypatch, _Source("procfs"), backend="ebpf", fallback=False)


def test_a_loss_is_followed_by_a_look_at_every_process(
    monkeypatch: pytest.MonkeyPatch, living: list[ProcessEvent]
) -> None:
    """The losses of the ring are corrected from the kernel's list of processes, once."""
    source = _Source("ebpf", [Lost(11 * SECOND, "exec", 5)], living)
    scene = _Scene(monkeypatch, source)
    scene.pipeline.feed_process(scene.chain.drain())
    scene.chain.reconcile()
    assert len(scene.pipeline.table) == 1
    scene.chain.reconcile()
    assert scene.chain.source.name == "ebpf"
    assert scene.ended == []


def test_unknown_processes_are_looked_up_with_their_relatives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without an exact source, procfs provides unknown processes."""
    source = _Source("procfs", exact=False)
    scene = _Scene(monkeypatch, source)
    asked = [[os.getpid()], [os.getppid()], []]
    monkeypatch.setattr(Pipeline, "unknown_pids", lambda _self: asked.pop(0))
    scene.chain.lookup()
    assert len(scene.pipeline.table) == 2
    assert not asked
