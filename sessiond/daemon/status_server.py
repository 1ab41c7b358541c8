"""The status socket: answers each client with the status document."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from sessiond.errors import StatusError
from sessiond.system.files import opened_directory, through

_SO_PEERGROUPS = 59  # asm-generic/socket.h; not in Python's socket module


MAX_CLIENTS = 16  # connections that are answered at the same time; more are closed at once


CLIENT_TIMEOUT = 2.0  # seconds that a client gets to take its answer


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
        with contextlib.suppress(OSError), opened_directory(self._path) as directory:
            if _inode(self._path.name, directory) == self._inode:
                os.unlink(self._path.name, dir_fd=directory)

    def _bind(self) -> socket.socket:
        """Make the socket inside a directory that is held open: no link can lead elsewhere."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._path.parent.mkdir(mode=0o755, exist_ok=True)
            with opened_directory(self._path) as directory:
                _refuse_shared(self._path.parent, os.fstat(directory))
                _make_room(self._path, directory)
                # The inode's mode before bind(2), less the umask, becomes the file's.
                os.fchmod(listener.fileno(), self._mode)
                umask = os.umask(0)
                try:
                    listener.bind(through(directory, self._path))
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
        if self._active >= MAX_CLIENTS:
            self.counters["too_many"] += 1
            writer.transport.abort()
            return
        self._active += 1
        try:
            writer.write(self._answer(writer.get_extra_info("socket")))
            # So that drain() waits until all is taken, and the time limit covers it.
            writer.transport.set_write_buffer_limits(0)
            await asyncio.wait_for(writer.drain(), CLIENT_TIMEOUT)
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
        result = probe.connect_ex(through(directory, path))
    if result != errno.ECONNREFUSED:
        raise StatusError(f"{path}: another sessiond answers here; stop it, or set status_socket")
    os.unlink(path.name, dir_fd=directory)
