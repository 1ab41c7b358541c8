"""Knows which sessions run at which time, from events in their order; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_STARTS: Final = frozenset({"exec", "executed", "fork", "already_running", "setsid"})
_ENDS: Final = frozenset({"end", "exited"})
# Ended sessions are kept, because a loss is reported after it happened; beyond this number the
# oldest are dropped.
_MAX_ENDED: Final = 1000


@dataclass(slots=True)
class Running:
    """A session: its entry leader, its user, the processes that have not ended, and its times.

    ``leader`` and ``user`` are objects of an event. ``end`` is empty while a process is there.
    """

    host: str
    boot: str
    start: str
    leader: Mapping[str, Any]
    user: Mapping[str, Any]
    processes: set[str] = field(default_factory=set)
    end: str = ""


class RunningSessions:
    """Takes documents in the order of their events."""

    def __init__(self) -> None:
        """Start empty."""
        self._running: dict[str, Running] = {}
        self._ended: dict[str, Running] = {}

    def take(self, document: Mapping[str, Any]) -> None:
        """Note what an event says about its session; a document without one changes nothing."""
        action = _at(document, "event", "action")
        process, leader = document.get("process"), _at(document, "process", "entry_leader")
        if not isinstance(process, dict) or not isinstance(leader, dict):
            return
        key, identity = leader.get("entity_id"), process.get("entity_id")
        if not isinstance(key, str) or not isinstance(identity, str):
            return
        if action in _STARTS:
            self._session(key, leader, document).processes.add(identity)
        elif action in _ENDS and key in self._running:
            session = self._running[key]
            session.processes.discard(identity)
            if not session.processes:
                session.end = document["@timestamp"]
                self._ended[key] = self._running.pop(key)
                if len(self._ended) > _MAX_ENDED:
                    del self._ended[next(iter(self._ended))]

    def during(self, host: str, boot: str, start: str, end: str) -> Iterator[Running]:
        """Yield the sessions of a boot of a host that ran at any time from ``start`` to ``end``."""
        for session in (*self._ended.values(), *self._running.values()):
            if (
                (session.host, session.boot) == (host, boot)
                and session.start <= end
                and (not session.end or session.end >= start)
            ):
                yield session

    def _session(self, key: str, leader: dict[str, Any], document: Mapping[str, Any]) -> Running:
        session = self._running.get(key) or self._ended.pop(key, None)
        if session is None:
            user = _at(document, "user", "audit") or leader.get("user")
            session = Running(
                *place(document),
                str(leader.get("start") or document["@timestamp"]),
                leader,
                user if isinstance(user, dict) else {},
            )
        session.end = ""
        self._running[key] = session
        return session


def place(document: Mapping[str, Any]) -> tuple[str, str]:
    """Return the host's name and the id of its boot; empty texts if they are absent."""
    return str(_at(document, "host", "name") or ""), str(_at(document, "host", "boot", "id") or "")


def _at(document: object, *path: str) -> Any:  # noqa: ANN401 -- a part of JSON
    """Return the part of a document at a path; None if it is absent."""
    for name in path:
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document
