"""Imports libraries without what they load for uses that the daemon does not have.

asyncio loads ssl, and with it OpenSSL: 2 MB. The daemon's own sockets are not encrypted, and
outputs over TLS use ssl directly. structlog loads rich, if the host has it: 5 MB, for tracebacks in
colour. Both libraries expect that these modules may be missing.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

_UNUSED: Final = ("ssl", "rich", "better_exceptions")


def import_lean() -> None:
    """Import asyncio and structlog; later imports of what they lack work as usual.

    Nothing happens to what is already imported.
    """
    hidden = [name for name in _UNUSED if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment] # the import system's "not found"
    try:
        for name in ("asyncio", "structlog"):
            importlib.import_module(name)
    finally:
        for name in hidden:
            del sys.modules[name]
