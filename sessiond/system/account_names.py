"""Names of users and groups, looked up without blocking.

This module parses /etc/passwd and /etc/group. Other names may come from the name service (LDAP,
sssd, systemd), which a separate thread queries, because it can take a second, or hang. Until it has
answered, the name is None, and the output has only the number.

Only the thread that calls ``user``, ``group`` and ``refresh`` changes the cache; queries and
answers go through queues.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final

from sessiond.text import display
from sessiond.units import UNSET_ID

# Seconds for which an answer of the name service is valid, also "no such account".
_ANSWER_LIFETIME: Final = 60.0
# Maximum number of waiting queries: a uid per process would otherwise queue without limit.
_MAX_PENDING: Final = 256
# Maximum number of cached answers, each for users and for groups.
_MAX_ANSWERS: Final = 16_384


Resolver = Callable[[int], str]


def parse(data: bytes) -> dict[int, str]:
    """Parse passwd(5) or group(5) into names by number; invalid lines are skipped.

    The first of several names for a number counts, as in getpwuid(3).
    """
    names: dict[int, str] = {}
    for line in data.split(b"\n"):
        fields = line.split(b":", 3)
        if len(fields) < 4 or not fields[0] or fields[0][:1] in b"#+-":
            continue
        if fields[2].isdigit() and len(fields[2]) <= 10:
            names.setdefault(int(fields[2]), display(fields[0]))
    return names


class AccountNames:
    """Names by uid and gid; ``root`` is the directory of passwd and group.

    ``resolve_user`` and ``resolve_group`` query the name service, and raise KeyError for an unknown
    account. ``unknown`` counts look-ups without an answer yet, ``refused`` the queries dropped
    because too many were waiting, ``failed`` the answers that were errors.
    """

    def __init__(
        self,
        root: Path = Path("/etc"),
        *,
        resolve_user: Resolver = lambda uid: pwd.getpwuid(uid).pw_name,
        resolve_group: Resolver = lambda gid: grp.getgrgid(gid).gr_name,
        now: float = 0.0,
    ) -> None:
        """Read the files; ``now`` is in seconds, of the same clock as for ``refresh``."""
        self._users = _Known(root / "passwd")
        self._groups = _Known(root / "group")
        # The hot path is one look-up in these dicts, which are never replaced.
        self._user_names = self._users.names
        self._group_names = self._groups.names
        self._worker = _Worker({False: resolve_user, True: resolve_group})
        self._now = now
        self.unknown = 0
        self.refused = 0

    @property
    def failed(self) -> int:
        """The number of failures of the name service; an unknown number is not a failure."""
        return self._worker.failed

    def user(self, uid: int) -> str | None:
        """Return the user's name; None for an unknown number, or before the answer arrives."""
        try:
            return self._user_names[uid]
        except KeyError:
            return self._ask(self._users, uid, group=False)

    def group(self, gid: int) -> str | None:
        """Return the group's name; None for an unknown number, or before the answer arrives."""
        try:
            return self._group_names[gid]
        except KeyError:
            return self._ask(self._groups, gid, group=True)

    def user_id(self, name: str) -> int | None:
        """Return the uid of a user in passwd; the name service is not queried."""
        return self._users.number(name)

    def refresh(self, now: float) -> None:
        """Reread changed files and expire old answers; call this about every second.

        ``now`` is in seconds. A call within a second of the last one does nothing.
        """
        if now - self._now < 1.0:
            return
        self._now = now
        self._take_answers()
        self._users.refresh(now)
        self._groups.refresh(now)

    def close(self) -> None:
        """Stop the thread, without waiting for one that hangs in the name service."""
        self._worker.stop()

    def _ask(self, known: _Known, number: int, *, group: bool) -> str | None:
        if number == UNSET_ID:
            return None
        self._take_answers()
        if number in known.names:
            return known.names[number]
        if number not in known.asked:
            if len(self._users.asked) + len(self._groups.asked) < _MAX_PENDING:
                known.asked.add(number)
                self._worker.ask(number, group=group)
            else:
                self.refused += 1
        if number in known.outdated:
            return known.outdated[number][0]
        self.unknown += 1
        return None

    def _take_answers(self) -> None:
        while self._worker.answers:
            group, number, name = self._worker.answers.popleft()
            (self._groups if group else self._users).learn(number, name, self._now)


class NoAccountNames:
    """Returns no names: ``resolve_ids: false``."""

    unknown = 0
    refused = 0
    failed = 0

    def user(self, uid: int) -> str | None:
        """Return None."""

    def group(self, gid: int) -> str | None:
        """Return None."""

    def user_id(self, name: str) -> int | None:
        """Return None."""

    def refresh(self, now: float) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class _Known:
    """The cache of users, or of groups: ``names`` by number, None for unknown numbers.

    An expired answer is ``outdated``: it is still returned, for the same time again, while a new
    query runs, so that a name does not disappear temporarily.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._in_file: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._answers: dict[int, float] = {}  # expiry by number, oldest first
        self.names: dict[int, str | None] = {}
        self.outdated: dict[int, tuple[str | None, float]] = {}
        self.asked: set[int] = set()
        self._read()

    def number(self, name: str) -> int | None:
        return self._numbers.get(name)

    def learn(self, number: int, name: str | None, now: float) -> None:
        self.asked.discard(number)
        if number in self._in_file:
            return
        self.names[number] = name
        self.outdated.pop(number, None)
        self._answers.pop(number, None)
        self._answers[number] = now + _ANSWER_LIFETIME
        while len(self._answers) > _MAX_ANSWERS:
            self._forget(next(iter(self._answers)))

    def refresh(self, now: float) -> None:
        self._read()
        while self._answers:
            number = next(iter(self._answers))
            if self._answers[number] > now:
                break
            self.outdated[number] = (self.names[number], now + _ANSWER_LIFETIME)
            self._forget(number)
        while self.outdated:
            number = next(iter(self.outdated))
            if self.outdated[number][1] > now:
                break
            del self.outdated[number]

    def _forget(self, number: int) -> None:
        del self._answers[number], self.names[number]

    def _read(self) -> None:
        """Read the file if it has changed; a missing file counts as empty."""
        try:
            if _version(self._file.stat()) == self._seen:
                return
            with self._file.open("rb") as file:
                seen = _version(os.fstat(file.fileno()))
                in_file = parse(file.read())
        except OSError:
            seen, in_file = None, {}
        for number in self._in_file.keys() - in_file.keys():
            del self.names[number]
        for number in in_file.keys() & self._answers.keys():
            self._forget(number)
        self._seen, self._in_file = seen, in_file
        self.names.update(in_file)
        self._numbers = {name: number for number, name in reversed(in_file.items())}


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


class _Worker:
    """The thread that queries the name service, one query at a time."""

    def __init__(self, resolvers: dict[bool, Resolver]) -> None:
        self._resolvers = resolvers
        self._questions: SimpleQueue[tuple[bool, int] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self.answers: deque[tuple[bool, int, str | None]] = deque()
        self.failed = 0

    def ask(self, number: int, *, group: bool) -> None:
        if self._thread is None:
            # Started on demand: most hosts have only names from the files.
            self._thread = Thread(target=self._run, name="names", daemon=True)
            self._thread.start()
        self._questions.put((group, number))

    def stop(self) -> None:
        self._questions.put(None)

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            group, number = question
            name: str | None = None
            try:
                name = display(os.fsencode(self._resolvers[group](number)))
            except KeyError:
                pass  # no account has this number
            except (OSError, ValueError, OverflowError):
                self.failed += 1
            self.answers.append((group, number, name))
