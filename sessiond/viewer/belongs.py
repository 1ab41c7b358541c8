"""Selects the lines of one command, its process and all descendants; pure."""

from __future__ import annotations

from typing import Any

import orjson


class Belongs:
    """Takes lines in order; keeps those of a process and its descendants.

    The process is the one with ``pid`` that started no earlier than ``since``, a date in the format
    of events. Lines about losses are kept as well. Kept lines are renumbered, because a gap in
    ``event.sequence`` would mean lost lines.
    """

    def __init__(self, pid: int, since: str) -> None:
        """Start empty."""
        self._pid = pid
        self._since = since
        self._known: set[str] = set()
        self._kept = 0
        self.root = ""
        self.ended = False

    def take(self, line: bytes) -> bytes | None:
        """Return the renumbered line, None for a line of another process."""
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
