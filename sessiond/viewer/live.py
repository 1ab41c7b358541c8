"""Formats live events, one line each: time, user, command, result; pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from sessiond.text import printable
from sessiond.viewer.events import Event, Own, decode, identity, relative
from sessiond.viewer.words import Colours, cut, local, pad, short, span, width_of

_MAX_INDENT: Final = 20
_MAX_COMMAND: Final = 4096
# With fewer columns the entry is shortened.
_NARROW: Final = 120
_COLOUR: Final = re.compile(r"\x1b\[[\d;]*m")
# Maximum number of processes with a known depth; beyond it the oldest are dropped.
_MAX_KNOWN: Final = 100_000


class LiveLines:
    """Formats events for a person, indented by depth, as far as the ancestors are known."""

    def __init__(self, colours: Colours) -> None:
        """Start empty."""
        self._colours = colours
        self._depths: dict[str, int] = {}

    def line(self, line: bytes, *, width: int | None, now: datetime) -> str | None:
        """Return the text for a line; None for a hidden line, the line itself if it is invalid."""
        try:
            event = decode(line)
        except msgspec.DecodeError:
            return printable(line.decode("utf-8", "replace").rstrip("\n"))
        if event.event.kind == "pipeline_error":
            said = printable(event.message or event.event.action)
            return self._fit(event, "", "", self._colours.lost, f"‼ {said}", "", width, now)
        if event.process is None or event.event.action == "already_running":
            return None
        return self._process(event, event.process, width, now)

    def _process(self, event: Event, process: Own, width: int | None, now: datetime) -> str:
        action = event.event.action
        depth = self._depth(process)
        style: Callable[[str], str] = self._colours.dim
        notes = ""
        command = " ".join(process.args) or process.executable or process.name or "?"
        shown = printable(command[:_MAX_COMMAND]) + ("…" if len(command) > _MAX_COMMAND else "")
        if action in ("exec", "executed"):
            style = self._colours.bold if process.interactive else str
        elif action in ("end", "exited"):
            self._depths.pop(process.entity_id, None)
            signal = event.sessiond.signal if event.sessiond else None
            how = ""
            if signal:
                how = f"→ {printable(signal.name or str(signal.number))} "
            elif process.exit_code:
                how = f"→ exit {process.exit_code} "
            took = span(process.start, process.end or event.timestamp)
            notes = self._colours.bad(how) + self._colours.dim(short(took) if took else "ended")
        elif action == "exec-failed":
            path = event.file.path if event.file else ""
            error = event.error.code if event.error else ""
            shown = f"({shown})"
            notes = self._colours.bad(_noted(f"→ {error or 'failed'} {path}", width))
        elif action != "fork":
            about = event.file.path if event.file else ""
            notes = _noted(f"{action or '?'} {about}".strip(), width)
        user = process.user.shown if process.user else ""
        entry = self._entry(process)
        text = "  " * min(depth, _MAX_INDENT) + shown
        room = 10 if width is not None and width < _NARROW else 24
        head = (
            f"{pad(cut(printable(user), 10), 10)} {process.pid:>7}  {pad(cut(entry, room), room)}"
        )
        return self._fit(event, user, head, style, text, notes, width, now)

    def _fit(
        self,
        event: Event,
        user: str,
        head: str,
        style: Callable[[str], str],
        text: str,
        notes: str,
        width: int | None,
        now: datetime,
    ) -> str:
        then = local(event.timestamp, now)
        when = f"{then:%H:%M:%S}.{then.microsecond // 1000:03}" if then else "            "
        if width is not None:
            text = cut(text, max(8, width - 18 - width_of(head) - width_of(_COLOUR.sub("", notes))))
        if user == "root":
            head = self._colours.root(head[:10]) + head[10:]
        parts = (self._colours.dim(when), head, style(text), notes)
        return "  ".join(part for part in parts if part)

    def _depth(self, process: Own) -> int:
        """Return the number of known ancestors."""
        known = self._depths.get(process.entity_id)
        if known is not None:
            return known
        parent = identity(bytes(process.parent))
        depth = self._depths.get(parent, -1) + 1
        if len(self._depths) >= _MAX_KNOWN:
            del self._depths[next(iter(self._depths))]
        self._depths[process.entity_id] = depth
        return depth

    @staticmethod
    def _entry(process: Own) -> str:
        if not process.entry_leader:
            return ""
        leader = relative(process.entry_leader)
        meta = leader.entry_meta
        if meta is None:
            return ""
        source = meta.source.ip if meta.source else leader.name
        return printable(f"{meta.type} {source}".strip())


def _noted(text: str, width: int | None) -> str:
    """Format the notes of an event; on a terminal, leave space for the command."""
    shown = printable(text[:_MAX_COMMAND])
    return shown if width is None else cut(shown, width // 4)
