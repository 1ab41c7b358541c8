"""``sessiond status``: asks the running daemon for its health and counters, and prints them.

The server answers each connection to its unix socket with one JSON document and closes it. It
checks the client's credentials (SO_PEERCRED, unix(7)), not only the permissions of the socket.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from sessiond.errors import StatusError
from sessiond.system.files import opened_directory, through
from sessiond.text import printable

_MAX_ANSWER = 16 * 2**20  # bytes


# --- the client ----------------------------------------------------------------------------------


def ask(path: Path, request: bytes, timeout: float = 5.0) -> Iterator[bytes]:
    """Send a request to the daemon behind ``path``; yield its answer line by line.

    An empty request asks for the status. ``timeout`` is in seconds, for each step. Raises
    StatusError, with a remedy, when no daemon answers.
    """
    try:
        with (
            opened_directory(path) as directory,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client,
        ):
            client.settimeout(timeout)
            client.connect(through(directory, path))
            # A connection that the daemon closes at once is an incomplete answer.
            with contextlib.suppress(ConnectionError):
                client.sendall(request)
                client.shutdown(socket.SHUT_WR)
                with client.makefile("rb") as answer:
                    yield from answer
    except (FileNotFoundError, ConnectionRefusedError):
        raise StatusError(
            f"{path}: no daemon answers; start it (systemctl start sessiond), or give its socket "
            "with --socket"
        ) from None
    except PermissionError:
        raise refused(path) from None
    except TimeoutError:
        raise StatusError(f"{path}: no answer within {timeout:g} s; see the daemon's log") from None
    except OSError as error:
        raise StatusError(f"{path}: can't connect: {(error.strerror or str(error))}") from None


def query(path: Path, timeout: float = 5.0) -> dict[str, Any]:
    """Ask the daemon behind ``path`` for its status; ``timeout`` as in ``ask``.

    Raises StatusError, with a remedy, when no daemon answers or it refuses.
    """
    text = bytearray()
    for line in ask(path, b"", timeout):
        text += line
        if len(text) > _MAX_ANSWER:
            break
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise StatusError(f"{path}: not an answer of sessiond, or incomplete; see the daemon's log")
    if document.get("error") == "refused":
        raise refused(path)
    return document


def refused(path: Path) -> StatusError:
    """Return the error for a daemon that refuses this user the status."""
    return StatusError(
        f"{path}: permission denied; run as root, or as a member of the group status_socket.group"
    )


def healthy(document: dict[str, Any]) -> bool:
    """Return whether a status document has no health problem (``health.problems``)."""
    health = document.get("health")
    return isinstance(health, dict) and not health.get("problems")


# --- for people ----------------------------------------------------------------------------------


def render(document: dict[str, Any]) -> str:
    """Return a status document as text: health first, then plain values, then the sections.

    Control characters in the document are escaped.
    """
    first = {"health": document["health"]} if "health" in document else {}
    rest = {name: value for name, value in document.items() if name != "health"}
    return "\n".join(_lines({**first, **_plain_first(rest)}, "")) + "\n"


def _plain_first(section: dict[str, Any]) -> dict[str, Any]:
    nested = {name: value for name, value in section.items() if isinstance(value, dict)}
    return {name: value for name, value in section.items() if name not in nested} | nested


def _lines(section: dict[str, Any], indent: str) -> Iterator[str]:
    plain = [_safe(name) for name, value in section.items() if not isinstance(value, dict | list)]
    width = max(map(len, plain), default=0)
    for name, value in section.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{_safe(name)}"
            yield from _lines(_plain_first(value), indent + "  ")
        elif isinstance(value, list) and value:
            yield f"{indent}{_safe(name)}"
            for item in value:
                yield f"{indent}  - {_scalar(item)}"
        else:
            shown = str(value) if name == "pid" and value else _scalar(value)
            yield f"{indent}{_safe(name):<{width}}  {shown}"


def _scalar(value: object) -> str:
    match value:
        case None | [] | {}:
            return "-" if value is None else "none"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.3f}".rstrip("0").rstrip(".")
        case str():
            return _safe(value)
    return _safe(json.dumps(value, ensure_ascii=False))


def _safe(text: object) -> str:
    return printable(str(text))
