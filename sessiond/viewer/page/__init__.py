"""The page that shows sessions: one file of HTML with the data in it, and no request to anywhere.

It is made of the ES modules, the style and the frame beside this module, put together here without
a build step: imports are left out and modules follow each other. The data is inert JSON, and a
content security policy names the hashes of the one script and the one style: nothing in the data
can be executed or parsed as markup. Pure but for reading its own parts.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec

from sessiond.viewer.model import Process, Recording, Session
from sessiond.viewer.sessions import origin

# In this order each module comes after those that it imports.
MODULES: Final = ("text", "store", "search", "tree", "rows", "timeline", "details", "main")

_POLICY: Final = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src {connect}; "
    "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)

# The bits of a process's flags; store.js has the same.
_FLAGS: Final = ("seen", "typed", "interactive", "older", "gone", "core_dumped", "canary")


def html(data: bytes, *, live: bool = False) -> bytes:
    """Put the page together around ``data``; ``live`` lets it ask its own server for news."""
    script, style = _script(), _part("style.css")
    policy = _POLICY.format(
        script=_hash(script), style=_hash(style), connect="'self'" if live else "'none'"
    )
    head, before_data, after_data = re.split(
        r"<!-- (?:style|data) -->", _part("frame.html").replace("{policy}", policy)
    )
    parts = (
        f"{head}<style>{style}</style>{before_data}",
        f'<script type="application/json" id="data" data-live="{int(live)}">',
    )
    # No tag can begin in the data: < is written as JSON's escape, which means the same.
    inert = data.replace(b"<", b"\\u003c")
    end = f'</script><script type="module">{script}</script>{after_data}'
    return "".join(parts).encode() + inert + end.encode()


def data(recording: Recording, sessions: Sequence[Session]) -> bytes:
    """Return what the page shows of a recording, as JSON: processes, sessions, losses."""
    processes = [each for session in sessions for each in session.processes]
    index = {each.id: number for number, each in enumerate(processes)}
    texts = _Texts()
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    more: dict[str, dict[str, Any]] = {}
    for number, session in enumerate(sessions):
        inside = {each.id for each in session.processes}
        roots = {each.id for each in session.roots}
        for each in session.processes:
            _add(columns, each, texts, index, number)
            if each.id in roots and each.parent in inside:  # a circle ends at its root
                columns["parent"][-1] = -1
            rest = _more(each)
            if found := recording.findings.get(each.id):
                rest["findings"] = [
                    [_time(one.time), one.rule, one.level, one.techniques] for one in found
                ]
            if rest:
                more[str(index[each.id])] = rest
    return msgspec.json.encode(
        {
            "texts": texts.all,
            "lists": texts.lists,
            "processes": columns,
            "more": more,
            "sessions": [
                {
                    "id": session.id,
                    "host": session.host,
                    "boot": session.processes[0].boot,
                    "kind": session.kind or "unknown",
                    "from": session.source,
                    "by": origin(session),
                    "leader": index.get(session.id, -1),
                    "origin": index.get(session.origin.id, -1) if session.origin else -1,
                    "users": session.users,
                    "root": session.became_root,
                    "running": session.running,
                    "start": _time(session.start),
                    "end": _time(session.end),
                    "count": session.count,
                    "failed": session.failures,
                    "first": index[session.processes[0].id],
                    "processes": len(session.processes),
                    "roots": [index[each.id] for each in session.roots],
                }
                for session in sessions
            ],
            "losses": [
                {
                    "host": loss.host,
                    "start": _time(loss.start),
                    "end": _time(loss.end),
                    "hop": loss.hop,
                    "count": loss.count,
                    "text": loss.text,
                }
                for loss in recording.losses
            ],
            # Those about no process but a host; the others are with their processes.
            "findings": [
                {
                    "host": each.host,
                    "start": _time(each.time),
                    "end": _time(each.time),
                    "rule": each.rule,
                    "level": each.level,
                    "techniques": each.techniques,
                }
                for each in recording.findings.get("", ())
            ],
            "events": recording.events,
            "refused": recording.refused,
        }
    )


class _Texts:
    """Texts and arguments that many processes have, each once; a number refers to them."""

    def __init__(self) -> None:
        self.all: list[str] = [""]
        self.lists: list[list[str]] = []
        self._numbers: dict[str, int] = {"": 0}
        self._list_numbers: dict[tuple[str, ...], int] = {}

    def list_number(self, args: list[str]) -> int:
        key = tuple(args)
        found = self._list_numbers.get(key)
        if found is None:
            found = self._list_numbers[key] = len(self.lists)
            self.lists.append(args)
        return found

    def number(self, text: str) -> int:
        found = self._numbers.get(text)
        if found is None:
            found = self._numbers[text] = len(self.all)
            self.all.append(text)
        return found


_TEXTS: Final = (
    "executable name title user user_id real_user saved_user group_name real_group saved_group "
    "groups login_user audit_session capabilities directory tty container pod unit labels host"
).split()
_LISTS: Final = ("providers", "end_providers", "tags")
_COLUMNS: Final = (
    *("id", "pid", "start", "end", "last", "exec", "exit", "flags", "args"),
    *("parent", "group", "leader", "session"),
    *_TEXTS,
    *_LISTS,
)


def _add(
    columns: dict[str, list[Any]],
    process: Process,
    texts: _Texts,
    index: dict[str, int],
    session: int,
) -> None:
    columns["id"].append(process.id)
    columns["pid"].append(process.pid)
    columns["start"].append(_time(process.start))
    columns["end"].append(_time(process.end))
    columns["last"].append(_time(process.last))
    columns["exec"].append(_time(process.images[-1].time) if process.images else 0)
    columns["exit"].append(-1 if process.exit_code is None else process.exit_code)
    flags = (getattr(process, name) for name in _FLAGS)
    columns["flags"].append(sum(1 << bit for bit, flag in enumerate(flags) if flag))
    columns["args"].append(texts.list_number(process.args))
    columns["parent"].append(index.get(process.parent, -1))
    columns["group"].append(index.get(process.group, -1))
    columns["leader"].append(index.get(process.session, -1))
    columns["session"].append(session)
    for name in _TEXTS:
        columns[name].append(texts.number(getattr(process, name)))
    for name in _LISTS:
        columns[name].append(texts.number(", ".join(getattr(process, name))))


def _more(process: Process) -> dict[str, Any]:
    """What few processes have."""
    members: Iterable[tuple[str, Any]] = (
        ("failed", [[_time(each.time), each.executable, each.error] for each in process.failed]),
        ("failed_count", process.failed_count),
        (
            "activity",
            [[_time(each.time), each.action, each.what, each.outcome] for each in process.activity],
        ),
        ("activity_count", process.activity_count),
        (
            "images",
            [[_time(each.time), each.executable, each.args, each.user] for each in process.images]
            if len(process.images) > 1
            else [],
        ),
        ("images_count", process.image_count if process.image_count > len(process.images) else 0),
        ("signal", process.signal),
        ("incomplete", list(process.incomplete)),
        ("truncated", list(process.truncated)),
        ("reparented", process.reparented),
        ("vpid", process.vpid),
        ("args_count", process.args_count if process.args_count != len(process.args) else 0),
    )
    return {name: value for name, value in members if value}


def _time(date: str) -> int:
    """A date as µs since the epoch; 0 where there is none."""
    try:
        return round(datetime.fromisoformat(date).timestamp() * 1e6) if date else 0
    except (ValueError, OverflowError):
        return 0


@cache
def _part(name: str) -> str:
    return files(__name__).joinpath(name).read_text("utf-8")


@cache
def _script() -> str:
    """The modules as one: without their imports, and exports only for each other."""
    lines = []
    for name in MODULES:
        module = re.sub(r"^import [^;]*;\n", "", _part(f"{name}.js"), flags=re.MULTILINE)
        lines.append(re.sub(r"^export ", "", module, flags=re.MULTILINE))
    return "\n".join(lines)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
