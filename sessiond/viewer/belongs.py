"""Tells which lines of a daemon are of one command: of its process and of all below it; pure."""

from __future__ import annotations

from typing import Any

import orjson


class Belongs:
    """Takes the lines in their order; keeps those of a process and of what it forked.

    The process is the one that had ``pid`` and started no earlier than ``since``, a date as events
    have it. Lines about losses are kept as well. What is kept is numbered anew: a gap in
    ``event.sequence`` stands for lines that are lost, and none is.
    """

    def __init__(self, pid: int, since: str) -> None:
        """Begin with nothing kept."""
        self._pid = pid
        self._since = since
        self._known: set[str] = set()
        self._kept = 0
        self.root = ""
        self.ended = False

    def take(self, line: bytes) -> bytes | None:
        """Return a line as it is kept, None for one of others."""
        document = orjson.loads(line)
        if not self._is_ours(document):
            return None
        self._kept += 1
        if "sequence" in document["event"]:
            document["event"]["sequence"] = self._kept
        return orjson.dumps(document) + b"\n"

    def _is_ours(self, document: dict[str, Any]) -> bool:
        event, process = document["event"], document.get("process", {})
        if event["kind"] == "pipeline_error":
            return True
        identity = process.get("entity_id", "")
        is_root = not self.root and process.get("pid") == self._pid
        if is_root and process.get("start", "") >= self._since:
            self.root = identity
        elif not {identity, process.get("parent", {}).get("entity_id", "")} & self._known:
            return False
        self._known.add(identity)
        self.ended = self.ended or (identity == self.root and event["action"] in ("end", "exited"))
        return True
