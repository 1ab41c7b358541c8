"""Events for the viewer: a real recording, and synthetic lines for single features.

The recording is of one host, web1: ann logs in by ssh with a terminal, builds a program, uses sudo,
tmux and background jobs, and types hostile names; another login runs one command; a container runs
a shell.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from sessiond.viewer.model import Process, Recording, Session

LOGIN = Path(__file__).parent.parent / "data" / "viewer" / "login.ndjson.gz"


def login_lines() -> list[bytes]:
    """Return the lines of the recording."""
    return gzip.decompress(LOGIN.read_bytes()).splitlines(keepends=True)


# What a terminal takes for commands, what turns or hides text, and what a browser takes for markup.
POISON = "\x1b[2J\x9b2J\x7f\u202e\u200b\U000e0041</script><script>alert(1)</script><b onclick=x>"
_TRUSTED = {"@timestamp", "entity_id", "kind", "action", "start", "end", "id", "ip"}


def poisoned_lines() -> list[bytes]:
    """The lines of the recording, with poison in every text but dates, ids, kinds and addresses."""
    return [json.dumps(_poisoned(json.loads(line))).encode() + b"\n" for line in login_lines()]


def _poisoned(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: inner if name in _TRUSTED and isinstance(inner, str) else _poisoned(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_poisoned(each) for each in value]
    return value + POISON if isinstance(value, str) else value


def recorded(*lines: bytes | dict[str, Any]) -> Recording:
    """Return a recording of lines, or of documents."""
    recording = Recording()
    for line in lines:
        recording.feed(line if isinstance(line, bytes) else json.dumps(line).encode())
    return recording


def session_of(recording: Recording, identity: str) -> Session:
    """Return the session with an entry leader of this id."""
    return next(each for each in recording.sessions() if each.id == identity)


def by_command(recording: Recording, command: str) -> Process:
    """Return the only process whose command line has this prefix."""
    (found,) = (each for each in recording.processes.values() if each.command.startswith(command))
    return found


def at(second: float) -> str:
    """Return a date, in seconds after ten o'clock."""
    return f"2026-05-01T10:{int(second) // 60:02}:{second % 60:09.6f}Z"


class Story:
    """Makes documents of processes of one host, with the members that the viewer needs."""

    def __init__(self, host: str = "web1", boot: str = "b1", ip: str = "192.0.2.10") -> None:
        self.host = {"name": host, "boot": {"id": boot}, "ip": [ip]}
        self._sequence = 0

    def event(self, time: float, action: str, name: str, **more: Any) -> dict[str, Any]:
        """Return an event of the process ``name``, whose entity id is made of host and name.

        ``parent`` and ``entry`` are names; without them it is its own entry leader.
        """
        self._sequence += 1
        document: dict[str, Any] = {
            "@timestamp": at(time),
            "event": {
                "kind": "event",
                "action": action,
                "id": f"{self.host['name']}-{self._sequence}",
                "sequence": self._sequence,
                "provider": ["ebpf"],
            },
            "host": self.host,
            "process": self.process(name, **more),
        }
        for field in ("sessiond", "error", "file", "destination"):
            if field in more:
                document[field] = more[field]
        return document

    def process(
        self, name: str, *, parent: str = "", entry: str = "", user: str = "root", **more: Any
    ) -> dict[str, Any]:
        """Return the ``process`` object of an event."""
        entry = entry or name
        process: dict[str, Any] = {
            "entity_id": self.id(name),
            "pid": 1000 + sum(name.encode()) % 1000,
            "start": at(more.get("start", 0)),
            "name": name.split()[0],
            "executable": f"/usr/bin/{name.split()[0]}",
            "args": more.get("args", name.split()),
            "user": {"id": "0" if user == "root" else "1001", "name": user},
            "group_leader": {"entity_id": self.id(more.get("group", name))},
            "session_leader": {"entity_id": self.id(entry)},
            "entry_leader": {
                "entity_id": self.id(entry),
                "entry_meta": more.get("meta", {"type": "sshd", "source": {"ip": "198.51.100.7"}}),
            },
        }
        if parent:
            process["parent"] = {"entity_id": self.id(parent), "pid": 1}
        for field in ("exit_code", "end", "interactive", "working_directory"):
            if field in more:
                process[field] = more[field]
        return process

    def id(self, name: str) -> str:
        """Return the entity id of a process."""
        return f"{self.host['name']}-{name.replace(' ', '-')}"

    def own(self, time: float, action: str, **more: Any) -> dict[str, Any]:
        """Return an event about sessiond itself."""
        self._sequence += 1
        return {
            "@timestamp": at(time),
            "event": {
                "kind": "pipeline_error",
                "action": action,
                "id": f"{self.host['name']}-{self._sequence}",
                "sequence": self._sequence,
                "start": at(more.get("start", time)),
                "end": at(time),
            },
            "host": self.host,
            "message": more.get("message", ""),
            "sessiond": {"loss": more["loss"]} if "loss" in more else {},
        }

    def skip(self, count: int) -> None:
        """Skip that many line numbers."""
        self._sequence += count
