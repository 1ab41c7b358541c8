"""The file with the settings of the wall clock in this boot."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

_log = structlog.get_logger(__name__)

# Maximum number of bytes read: a thousand settings need a tenth of it.
_MAX_SIZE: Final = 1 << 20


class ClockFile:
    """Saves the wall clock's offsets in this boot for the next start.

    The offsets convert times since boot to dates: the start of a process must not change with a
    restart of the daemon. ``path`` is in a directory that only the daemon's user and root can
    write; files of other owners are ignored. ``boot`` is the boot's id.
    """

    def __init__(self, path: Path, boot: str) -> None:
        """Take the file's path; ``read`` and ``write`` open it."""
        self._path = path
        self._boot = boot

    def read(self) -> list[tuple[int, int, int]]:
        """Return the settings saved in this boot; none without a trusted file.

        Each has the time since when it is valid and when it was detected (ns since boot), and
        CLOCK_REALTIME minus CLOCK_BOOTTIME (ns).
        """
        saved = _read_json(self._path)
        if not isinstance(saved, dict) or saved.get("boot_id") != self._boot:
            return []
        first = saved.get("boot_time")
        steps = saved.get("steps", [])
        if type(first) is not int or first <= 0 or not isinstance(steps, list):
            return []
        settings = [(0, 0, first)]
        for step in steps:
            if not (isinstance(step, list) and [type(part) for part in step] == [int, int, int]):
                return []
            since, noticed, offset = step
            if not settings[-1][0] <= since <= noticed or offset <= 0:
                return []
            settings.append((since, noticed, offset))
        return settings

    def write(self, settings: Sequence[tuple[int, int, int]]) -> None:
        """Save the settings; on failure log a warning, and the next start measures again."""
        (_, _, first), *steps = settings
        data = json.dumps({"boot_id": self._boot, "boot_time": first, "steps": steps}).encode()
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _replace(self._path, data)
        except OSError as error:
            _log.warning("boot_time_not_saved", path=str(self._path), reason=error.strerror)


def _read_json(path: Path) -> object:
    """Read a file owned by root or this user; None for any other."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if (
                not stat.S_ISREG(status.st_mode)
                or status.st_uid not in (0, os.geteuid())
                or status.st_mode & 0o022
            ):
                return None
            read: object = json.loads(file.read(_MAX_SIZE))
            return read
    except (OSError, ValueError, RecursionError):
        return None


def _replace(path: Path, data: bytes) -> None:
    """Replace a file atomically."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
