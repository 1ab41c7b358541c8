"""Resolves a host name without blocking."""

from __future__ import annotations

import socket
import threading
from typing import Any

Address = tuple[Any, Any, int, str, Any]  # as getaddrinfo returns it


class Resolver:
    """Returns a host's addresses one by one; a thread resolves names."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._found: list[Address] = []
        self._error: OSError | None = None
        self._thread: threading.Thread | None = None

    def next(self) -> Address | None:
        """Return the next address, None during the look-up. Raises OSError if there is none."""
        if not self._found:
            if self._thread is None:
                try:
                    self._lookup(socket.AI_NUMERICHOST)
                except OSError:  # a name: resolving it may take long
                    self._thread = threading.Thread(target=self._ask, name="resolve", daemon=True)
                    self._thread.start()
                    return None
            elif self._thread.is_alive():
                return None
            else:
                self._thread = None
                if self._error is not None:
                    raise self._error
        return self._found.pop(0)

    def _ask(self) -> None:
        self._error = None
        try:
            self._lookup(0)
        except OSError as error:
            self._error = error

    def _lookup(self, flags: int) -> None:
        kind = socket.SOCK_STREAM
        self._found = list(socket.getaddrinfo(self._host, self._port, type=kind, flags=flags))
