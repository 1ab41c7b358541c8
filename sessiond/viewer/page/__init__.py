"""Builds the page that shows sessions: one HTML file that contains its data and loads nothing.

The page consists of the ES modules, the style and the frame in this directory. They are joined
without a build step: the modules follow each other, without their imports. The data is inert JSON,
and a content security policy allows only the hashes of the page's script and style, so that nothing
in the data can be executed or parsed as markup. Pure, except that it reads its own parts.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from operator import attrgetter
from typing import Any, Final, TypeVar

import msgspec

from sessiond.viewer.model import Process, Recording, Session
from sessiond.viewer.sessions import origin
from sessiond.viewer.tree import alike, searched_path

# In this order each module comes after those that it imports.
MODULES: Final = ("text", "store", "search", "tree", "rows", "timeline", "details", "main")

_POLICY: Final = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src {connect}; "
    "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)

# The bits of a process's flags; store.js has the same.
_FLAGS: Final = ("seen", "typed", "interactive", "older", "gone", "core_dumped", "canary")


def html(data: bytes, *, live: bool = False) -> bytes:
    """Return the page with ``data``; ``live``: it asks its own server for updates."""
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
    # < is written as a JSON escape, so that no tag can begin in the data.
    inert = data.replace(b"<", b"\\u003c")
    end = f'</script><script type="module">{script}</script>{after_data}'
    return "".join(parts).encode() + inert + end.encode()


def data(recording: Recording, sessions: Sequence[Session]) -> bytes:
    """Return the data of a recording for the page, as JSON: processes, sessions, losses."""
    processes = [each for session in sessions for each in session.processes]
    index = {each.id: number for number, each in enumerate(processes)}
    texts: _Numbers[str] = _Numbers({"": 0})
    lists: _Numbers[tuple[str, ...]] = _Numbers()
    columns = _columns(processes, texts, lists, index)
    columns["session"] = [number for number, one in enumerate(sessions) for _ in one.processes]
    for number, session in enumerate(sessions):
        for root in session.roots:
            parent = index.get(root.parent, -1)
            if parent >= 0 and columns["session"][parent] == number:  # a circle ends at its root
                columns["parent"][index[root.id]] = -1
    more: dict[str, dict[str, Any]] = {}
    for number, each in enumerate(processes):
        rest = _more(each)
        if found := recording.findings.get(each.id):
            rest["findings"] = [
                [_time(one.time), one.rule, one.level, one.techniques] for one in found
            ]
        if rest:
            more[str(number)] = rest
    return msgspec.json.encode(
        {
            "texts": list(texts),
            "lists": list(lists),
            # A column that has one value throughout is that value.
            "processes": {
                name: column[0] if len(column) > 1 and len(set(column)) == 1 else column
                for name, column in columns.items()
            },
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


_Value = TypeVar("_Value")


class _Numbers(dict[_Value, int]):
    """Gives each distinct value, in the order of the first use, a number that refers to it."""

    def __missing__(self, value: _Value) -> int:
        self[value] = number = len(self)
        return number


_TEXTS: Final = (
    "executable name title user user_id real_user saved_user group_name real_group saved_group "
    "groups login_user audit_session capabilities directory tty container pod unit labels host"
).split()
_LISTS: Final = ("providers", "end_providers", "tags")


def _columns(
    processes: Sequence[Process],
    texts: _Numbers[str],
    lists: _Numbers[tuple[str, ...]],
    index: Mapping[str, int],
) -> dict[str, list[Any]]:
    """Return the members of the processes, each as a list; texts and other processes as numbers."""
    columns: dict[str, list[Any]] = {
        "id": [each.id for each in processes],
        "pid": [each.pid for each in processes],
        "exec": [_time(each.images[-1].time) if each.images else 0 for each in processes],
        "exit": [-1 if each.exit_code is None else each.exit_code for each in processes],
        "flags": [0] * len(processes),
        "args": [lists[tuple(each.args)] for each in processes],
    }
    for name in ("start", "end", "last"):
        columns[name] = list(map(_time, map(attrgetter(name), processes)))
    for bit, name in enumerate(_FLAGS):
        for number, flag in enumerate(map(attrgetter(name), processes)):
            columns["flags"][number] |= flag << bit
    for column, name in (("parent", "parent"), ("group", "group"), ("leader", "session")):
        columns[column] = [index.get(key, -1) for key in map(attrgetter(name), processes)]
    for name in _TEXTS:
        columns[name] = list(map(texts.__getitem__, map(attrgetter(name), processes)))
    joined = {each: ", ".join(each) for name in _LISTS for each in map(attrgetter(name), processes)}
    for name in _LISTS:
        columns[name] = [texts[joined[each]] for each in map(attrgetter(name), processes)]
    # The same number for what is alike but for what is below it; -1 for what never is.
    numbers: _Numbers[tuple[object, ...]] = _Numbers()
    columns["alike"] = [-1 if _is_alone(each) else numbers[alike(each)] for each in processes]
    return columns


def _is_alone(process: Process) -> bool:
    """Return whether a process is never folded with its siblings."""
    return bool(
        process.running or process.activity or (process.failed and not searched_path(process))
    )


def _more(process: Process) -> dict[str, Any]:
    """Return the data that only few processes have."""
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
    """Return a date as µs since the epoch; 0 for none."""
    try:
        return round(datetime.fromisoformat(date).timestamp() * 1e6) if date else 0
    except (ValueError, OverflowError):
        return 0


@cache
def _part(name: str) -> str:
    return files(__name__).joinpath(name).read_text("utf-8")


@cache
def _script() -> str:
    """Return the modules joined to one script, without imports and exports."""
    lines = []
    for name in MODULES:
        module = re.sub(r"^import [^;]*;\n", "", _part(f"{name}.js"), flags=re.MULTILINE)
        lines.append(re.sub(r"^export ", "", module, flags=re.MULTILINE))
    return "\n".join(lines)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
