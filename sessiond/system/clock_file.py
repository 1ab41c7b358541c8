"""The file with the settings of the wall clock in this boot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from sessiond.errors import OutputError
from sessiond.system.files import publish_file, read_file

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
        saved = self._saved()
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
            publish_file(self._path, data)
        except OSError as error:
            _log.warning("boot_time_not_saved", path=str(self._path), reason=error.strerror)

    def _saved(self) -> object:
        """Return the content of the file; None if it is missing, damaged or not trusted."""
        try:
            content: object = json.loads(read_file(self._path, _MAX_SIZE))
        except (OSError, OutputError, ValueError, RecursionError):
            return None
        return content
