"""Keeps lines that a server rejects for good, with the reasons, in a file of bounded size."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from sessiond.errors import OutputError
from sessiond.output.http_formats import Refusal
from sessiond.system.files import open_directory, open_file, trusted_users


class RefusedLines:
    """A file with a line of JSON for each rejected line, and its predecessor, named ``.1``.

    ``event.original`` holds the rejected line, ``error`` the reason.
    """

    def __init__(self, path: Path, max_size: int) -> None:
        """Take the file's absolute path, and the maximum size in bytes including its predecessor.

        With a ``max_size`` of 0 nothing is kept.
        """
        self._path = path
        self._max_size = max_size
        self._kept = 0
        self._problem: str | None = None

    def add(self, refused: list[tuple[bytes, Refusal]], time: float) -> None:
        """Keep lines with the reasons, as refused at ``time`` (seconds since the epoch).

        Never raises: ``status`` reports failures.
        """
        if not self._max_size:
            return
        date = f"{datetime.fromtimestamp(time, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        texts = [_document(line, refusal, date) for line, refusal in refused]
        try:
            kept = self._append(texts)
            self._problem = None if kept == len(texts) else "larger than the file may be"
        except (OSError, OutputError) as error:
            self._problem = getattr(error, "strerror", None) or str(error)
            return
        self._kept += kept

    def _append(self, texts: list[bytes]) -> int:
        directory = open_directory(str(self._path.parent), trusted=trusted_users())
        kept, file = 0, -1
        try:
            for text in texts:
                if len(text) > self._max_size // 2:
                    continue
                if file < 0:
                    file = self._open(directory)
                if os.fstat(file).st_size + len(text) > self._max_size // 2:
                    os.close(file)
                    name = self._path.name
                    os.replace(name, f"{name}.1", src_dir_fd=directory, dst_dir_fd=directory)
                    file = self._open(directory)
                os.write(file, text)
                kept += 1
        finally:
            with contextlib.suppress(OSError):
                os.close(file)
            os.close(directory)
        return kept

    def _open(self, directory: int) -> int:
        file, _ = open_file(
            self._path.name,
            os.O_WRONLY | os.O_APPEND,
            directory=directory,
            path=str(self._path),
            mode=0o600,
            trusted=trusted_users(),
        )
        return file

    def status(self) -> dict[str, Any]:
        """Return where they are, how many this run has kept, and why not the others."""
        return {"path": str(self._path), "kept": self._kept, "problem": self._problem}


def _document(line: bytes, refusal: Refusal, date: str) -> bytes:
    error = {"code": str(refusal.status), "type": refusal.kind, "message": refusal.reason}
    return orjson.dumps(
        {
            "@timestamp": date,
            "error": {name: text for name, text in error.items() if text},
            "event": {"original": line.rstrip(b"\n").decode("utf-8", "replace")},
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )
