"""How the running daemon is asked for its health and counters, and how the answer is shown.

The server answers each connection to its unix socket with one JSON document and closes it. Who
asks is checked by the kernel's word (SO_PEERCRED, unix(7)), not by the file's permissions alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import stat
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from sessiond.errors import StatusError

_SO_PEERGROUPS = 59  # asm-generic/socket.h; not in Python's socket module
_LARGEST_ANSWER = 16 * 2**20  # bytes
_AT_ONCE = 16  # connections that are answered at the same time; more are closed at once
_PATIENCE = 2.0  # seconds that a client gets to take its answer

Provider = Callable[[], dict[str, Any]]


class StatusServer:
    """Answers on a unix socket with what ``provider`` returns at that moment.

    Allowed to ask: root, the own user, ``owner`` (a uid) and the members of ``group`` (a gid).
    """

    def __init__(
        self,
        path: Path,
        provider: Provider,
        *,
        mode: int = 0o660,
        owner: int | None = None,
        group: int | None = None,
    ) -> None:
        self._path, self._provider, self._mode = path, provider, mode
        self._owner, self._group = owner, group
        self._server: asyncio.Server | None = None
        self._inode: tuple[int, int] | None = None
        self._active = 0
        self.counters: Counter[str] = Counter(answered=0, refused=0, too_many=0, too_slow=0)

    async def start(self) -> None:
        """Bind and listen; raise StatusError when something else is in the way."""
        listener = self._bind()
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)

    async def close(self) -> None:
        """Stop listening and remove the socket, if it is still ours."""
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(OSError), _directory(self._path) as directory:
            if _inode(self._path.name, directory) == self._inode:
                os.unlink(self._path.name, dir_fd=directory)

    def _bind(self) -> socket.socket:
        """Make the socket inside a directory that is held open: no link can lead elsewhere."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._path.parent.mkdir(mode=0o755, exist_ok=True)
            with _directory(self._path) as directory:
                _refuse_shared(self._path.parent, os.fstat(directory))
                _make_room(self._path, directory)
                # The inode's mode before bind(2), less the umask, becomes the file's.
                os.fchmod(listener.fileno(), self._mode)
                umask = os.umask(0)
                try:
                    listener.bind(_through(directory, self._path))
                finally:
                    os.umask(umask)
                self._inode = _inode(self._path.name, directory)
                uid, gid = (-1 if it is None else it for it in (self._owner, self._group))
                if (uid, gid) != (-1, -1):
                    os.chown(self._path.name, uid, gid, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            listener.close()
            reason = (error.strerror or str(error)).lower()
            raise StatusError(f"{self._path}: the status socket can't be made: {reason}") from None
        except StatusError:
            listener.close()
            raise
        return listener

    async def _serve(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._active >= _AT_ONCE:
            self.counters["too_many"] += 1
            writer.transport.abort()
            return
        self._active += 1
        try:
            writer.write(self._answer(writer.get_extra_info("socket")))
            # So that drain() waits until all is taken, and the time limit covers it.
            writer.transport.set_write_buffer_limits(0)
            await asyncio.wait_for(writer.drain(), _PATIENCE)
        except (TimeoutError, ConnectionError):
            self.counters["too_slow"] += 1
            writer.transport.abort()
        finally:
            self._active -= 1
            writer.close()

    def _answer(self, client: socket.socket) -> bytes:
        if not self._may_ask(client):
            self.counters["refused"] += 1
            return b'{"error":"refused"}\n'
        self.counters["answered"] += 1
        return orjson.dumps(self._provider(), default=str, option=orjson.OPT_APPEND_NEWLINE)

    def _may_ask(self, client: socket.socket) -> bool:
        """Ask the kernel who connected: user, group and supplementary groups at that time."""
        credentials = client.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
        _pid, uid, gid = struct.unpack("3i", credentials)
        if uid in (0, os.geteuid(), self._owner):
            return True
        if self._group is None:
            return False
        try:  # getsockopt() takes at most 1024 bytes: of more than 256 groups none counts
            groups = client.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
        except OSError:
            groups = b""
        return self._group in {gid, *struct.unpack(f"{len(groups) // 4}I", groups)}


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    """Hold the directory of a path open."""
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _through(directory: int, path: Path) -> str:
    """Name a file in a held directory; this is short, where sun_path ends at 107 bytes."""
    return f"/proc/self/fd/{directory}/{path.name}"


def _refuse_shared(path: Path, facts: os.stat_result) -> None:
    """Refuse a directory in which others could swap the socket."""
    sticky = facts.st_mode & stat.S_ISVTX
    if facts.st_uid not in (0, os.geteuid()):
        raise StatusError(f"{path}: owned by uid {facts.st_uid}; the status socket needs our own")
    if facts.st_mode & stat.S_IWOTH and not sticky:
        raise StatusError(f"{path}: others can write it; chmod o-w {path}")


def _inode(name: str, directory: int) -> tuple[int, int] | None:
    try:
        facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino


def _make_room(path: Path, directory: int) -> None:
    """Remove what a killed daemon left; raise StatusError when it is anything else."""
    try:
        facts = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(facts.st_mode):
        raise StatusError(f"{path}: in the way of the status socket and not a socket; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        result = probe.connect_ex(_through(directory, path))
    if result != errno.ECONNREFUSED:
        raise StatusError(f"{path}: another sessiond answers here; stop it, or set status_socket")
    os.unlink(path.name, dir_fd=directory)


# --- the client ----------------------------------------------------------------------------------


def query(path: Path, timeout: float = 5.0) -> dict[str, Any]:
    """Ask the daemon behind ``path``; ``timeout`` is in seconds, for each step.

    Raises StatusError with what to do when nobody answers, or not us.
    """
    try:
        with (
            _directory(path) as directory,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client,
        ):
            client.settimeout(timeout)
            client.connect(_through(directory, path))
            answer = _read(client)
    except (FileNotFoundError, ConnectionRefusedError):
        raise StatusError(
            f"{path}: no daemon answers here; start it (systemctl start sessiond), or name its "
            "socket with --socket"
        ) from None
    except PermissionError:
        raise _refused(path) from None
    except TimeoutError:
        raise StatusError(f"{path}: no answer within {timeout:g} s; see the daemon's log") from None
    except OSError as error:
        raise StatusError(f"{path}: can't be asked: {(error.strerror or str(error))}") from None
    try:
        document = orjson.loads(answer)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise StatusError(f"{path}: what answers here is not sessiond, or broke off; see its log")
    if document.get("error") == "refused":
        raise _refused(path)
    return document


def _refused(path: Path) -> StatusError:
    return StatusError(
        f"{path}: not permitted; ask as root, or as a member of the group in status_socket.group"
    )


def _read(client: socket.socket) -> bytes:
    answer = bytearray()
    while chunk := client.recv(65536):
        answer += chunk
        if len(answer) > _LARGEST_ANSWER:
            break
    return bytes(answer)


def healthy(document: dict[str, Any]) -> bool:
    """Tell whether a status document names no problem (``health.problems``)."""
    health = document.get("health")
    return isinstance(health, dict) and not health.get("problems")


# --- for people ----------------------------------------------------------------------------------


def render(document: dict[str, Any]) -> str:
    """Write a status document as text: health first, then plain values, then the sections.

    Whatever the document holds, no control character reaches the terminal.
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
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))
