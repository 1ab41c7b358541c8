"""The status socket: answers with the status document, or with the process table.

A client that sends nothing gets the status document; a client that sends a ListRequest as a line of
JSON gets a list of processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson

from sessiond.errors import StatusError
from sessiond.pipeline.listing import ListRequest
from sessiond.system.files import opened_directory, through

_SO_PEERGROUPS = 59  # asm-generic/socket.h; not in Python's socket module


MAX_CLIENTS = 16  # simultaneous connections; further ones are closed at once
_REFUSED = b'{"error":"refused"}\n'
CLIENT_TIMEOUT = 2.0  # seconds in which a client must read the status document
REQUEST_TIMEOUT = 0.2  # seconds to wait for a request
LIST_TIMEOUT = 30.0  # seconds in which a client must read a part of a list: a pager may delay it
LIST_SLICE = 0.005  # seconds of work on a list before live events are handled
LIST_CHUNK = 256 * 1024  # bytes per write
MAX_REQUEST = 4096  # bytes


Provider = Callable[[], dict[str, Any]]
Lister = Callable[[ListRequest], Iterator[bytes]]
Reader = Callable[[int, frozenset[int]], bool]


class StatusServer:
    """Answers on a unix socket with the current results of ``provider`` and ``lister``.

    Root, the daemon's user, ``owner`` (a uid) and the members of ``group`` (a gid) may query the
    status. Only root, the daemon's user and users for whom ``may_read`` (uid, groups) is true may
    list processes, because arguments can contain secrets.
    """

    def __init__(
        self,
        path: Path,
        provider: Provider,
        *,
        mode: int = 0o660,
        owner: int | None = None,
        group: int | None = None,
        lister: Lister | None = None,
        may_read: Reader = lambda _uid, _groups: False,
    ) -> None:
        """Take the providers of answers; ``start`` binds the socket."""
        self._path, self._provider, self._mode = path, provider, mode
        self._lister, self._may_read = lister, may_read
        self._owner, self._group = owner, group
        self._server: asyncio.Server | None = None
        self._inode: tuple[int, int] | None = None
        self._active = 0
        self.counters: Counter[str] = Counter(answered=0, refused=0, too_many=0, too_slow=0)

    async def start(self) -> None:
        """Bind and listen; raises StatusError if the path is in use."""
        listener = self._bind()
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listener, limit=MAX_REQUEST
        )

    def is_lost(self) -> bool:
        """Return whether the socket's file is gone, so that no client can connect."""
        try:
            with opened_directory(self._path) as directory:
                return _inode(self._path.name, directory) != self._inode
        except OSError:
            return True

    async def start_again(self) -> None:
        """Listen on a new socket, if the path permits it."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(StatusError):
            await self.start()

    async def close(self) -> None:
        """Stop listening and remove the socket, if it is still ours."""
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(OSError), opened_directory(self._path) as directory:
            if _inode(self._path.name, directory) == self._inode:
                os.unlink(self._path.name, dir_fd=directory)

    def _bind(self) -> socket.socket:
        """Create the socket inside an open directory, so that no link can redirect it."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._path.parent.mkdir(mode=0o755, exist_ok=True)
            with opened_directory(self._path) as directory:
                _refuse_shared(self._path.parent, os.fstat(directory))
                _make_room(self._path, directory)
                # bind(2) gives the file the inode's mode, less the umask.
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

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = writer.get_extra_info("socket")
        if not self._may_ask(client) and not self._may_list(client):
            # At once, so that strangers do not take the places of others.
            self.counters["refused"] += 1
            writer.write(_REFUSED)
            writer.close()
            return
        if self._active >= MAX_CLIENTS:
            self.counters["too_many"] += 1
            writer.transport.abort()
            return
        self._active += 1
        try:
            request = await _request(reader)
            # Makes drain() wait until the client has read everything, within the time limit.
            writer.transport.set_write_buffer_limits(0)
            if isinstance(request, ListRequest):
                await self._list(request, client, writer)
            else:
                writer.write(self._answer(client) if request is None else request)
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
            return _REFUSED
        self.counters["answered"] += 1
        return orjson.dumps(self._provider(), default=str, option=orjson.OPT_APPEND_NEWLINE)

    def _may_ask(self, client: socket.socket) -> bool:
        uid, groups = _credentials(client)
        return uid in (0, os.geteuid(), self._owner) or self._group in groups

    def _may_list(self, client: socket.socket) -> bool:
        uid, groups = _credentials(client)
        return uid in (0, os.geteuid()) or self._may_read(uid, groups)

    async def _list(
        self, request: ListRequest, client: socket.socket, writer: asyncio.StreamWriter
    ) -> None:
        """Write a list in slices; live events are handled in between."""
        if self._lister is None or not self._may_list(client):
            self.counters["refused"] += 1
            writer.write(_REFUSED)
            await asyncio.wait_for(writer.drain(), CLIENT_TIMEOUT)
            return
        self.counters["answered"] += 1
        lines, more = self._lister(request), True
        while more:
            began, chunk = time.monotonic(), bytearray()
            more = False
            for line in lines:
                chunk += line
                if time.monotonic() - began > LIST_SLICE or len(chunk) > LIST_CHUNK:
                    more = True
                    break
            took = time.monotonic() - began
            writer.write(chunk)
            await asyncio.wait_for(writer.drain(), LIST_TIMEOUT)
            await asyncio.sleep(took)


async def _request(reader: asyncio.StreamReader) -> ListRequest | bytes | None:
    """Read a request: None for the status, bytes for the error answer to an invalid request."""
    try:
        line = await asyncio.wait_for(reader.readline(), REQUEST_TIMEOUT)
    except TimeoutError:
        return None
    except ValueError:
        return b'{"error":"the request is too long"}\n'
    if not line.strip():
        return None
    try:
        return msgspec.json.decode(line, type=ListRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return orjson.dumps(
            {"error": f"no such request: {error}"}, option=orjson.OPT_APPEND_NEWLINE
        )


def _credentials(client: socket.socket) -> tuple[int, frozenset[int]]:
    """Return the peer's uid and groups at the time of its connect, from the kernel."""
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, gid = struct.unpack("3i", credentials)
    try:  # getsockopt() returns at most 1024 bytes: with more than 256 groups none counts
        groups = client.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
    except OSError:
        groups = b""
    return uid, frozenset((gid, *struct.unpack(f"{len(groups) // 4}I", groups)))


def _refuse_shared(path: Path, facts: os.stat_result) -> None:
    """Refuse a directory in which other users could replace the socket."""
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
    """Remove a stale socket of a killed daemon; raises StatusError for anything else."""
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
