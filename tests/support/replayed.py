"""Replays of logs in tests, like the command."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import orjson
from support.auditlog import record_type

from sessiond.audit.auditd_log import EnrichedNames
from sessiond.config.schema import Config
from sessiond.daemon import factory
from sessiond.pipeline.pipeline import Pipeline
from sessiond.replay.blocks import Filter, Identity, Pipelines
from sessiond.replay.replay import OwnWork, Replay
from sessiond.system.packed import lines


def pipeline(host: Identity, names: EnrichedNames) -> Pipeline:
    """Return the pipeline of a boot of a host."""
    return factory.offline_pipeline(
        Config(), names, node=host.node, machine=host.machine, boot=host.boot
    )


def replayed(
    *logs: Iterable[bytes] | bytes, wanted: Filter | None = None, node: str = ""
) -> tuple[list[bytes], Replay]:
    """Replay logs, each as its lines or as one text; return the written lines."""
    written: list[bytes] = []
    work = OwnWork(Pipelines(pipeline, wanted))
    replay = Replay(work, written.extend, record_type, wanted=node)
    for log in logs:
        if isinstance(log, bytes):
            source = io.BytesIO(log)
            read = replay.read(lines("log", source), source)
        else:
            read = replay.read(log)
        assert all(step is None for step in read)
    replay.finish()
    return written, replay


def documents(*logs: Iterable[bytes] | bytes, node: str = "") -> list[dict[str, Any]]:
    """Replay logs; return the documents."""
    return [orjson.loads(line) for line in replayed(*logs, node=node)[0]]
