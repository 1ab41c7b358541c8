"""Decodes the records of programs.c. Pure: no I/O; any bytes are handled."""

from __future__ import annotations

import struct
import zlib
from typing import Any, Protocol, TypeVar, cast

from sessiond.process.events import (
    OWN_FACTS,
    CgroupSeen,
    Changed,
    Executed,
    Exited,
    Facts,
    Forked,
    Observed,
    ProcessEvent,
    Program,
)

# struct event of programs.c, up to its data: kind, flags and time, the facts, and the rest.
_OWN = struct.Struct(f"={OWN_FACTS}Q")
_COMMON = struct.Struct(f"={26 - OWN_FACTS}Q?7x")
_FACTS = struct.Struct(f"{_OWN.format}{_COMMON.format[1:]}")
_HEAD = struct.Struct(f"=IIQ{_FACTS.size}sQIIIHHHHII16s")
_FACTS_AT = 3
(
    _OTHER_START,
    _OTHER,
    _ARGS_SIZE,
    _END,
    _EXECUTABLE,
    _CWD,
    _FILENAME,
    _ARGS,
    _OWNER,
    _MOUNTS,
    _COMM,
) = range(4, 15)
_CGROUP_ID = 25  # its place among the facts

_FORK, _EXEC, _EXIT, _SESSION, _GROUP, _IDS, _CGROUP, _SNAPSHOT = range(8)
# A reader of another version can decode records with the same layout.
LAYOUT = zlib.crc32(f"{_FACTS.format} {_HEAD.format} {Facts._fields}".encode())
# Slots of the per-CPU counters; further CPUs share them.
CPUS = 1024
# The kinds of loss, in the order of the counters.
LOSS_KINDS = ("fork", "exec", "exit", "session", "group", "ids", "cgroup")
_CHANGES = {_SESSION: "session", _GROUP: "group", _IDS: "ids"}

_CWD_KNOWN, _EXECUTABLE_KNOWN, _DELETED, _TRUNCATED = 1, 2, 4, 8
_ARGS_KNOWN, _GROUP_EXIT, _AUDIT_STAMP, _UNKNOWNS = 16, 32, 64, 128
_OWNER_KNOWN = 256

_MAX_PATHS = 4096  # remembered at a time
_MAX_FACTS = 256
_MAX_COMMON = 4096

_T = TypeVar("_T")


class _New(Protocol):
    def __call__(self, kind: type[_T], values: tuple[Any, ...], /) -> _T: ...


_new = cast("_New", tuple.__new__)  # a third faster than a named tuple's own


class MalformedRecordError(ValueError):
    """The bytes are not a record of the tracer."""


class Decoder:
    """Decodes records to events, and caches recurring values.

    Many processes have the same paths. The facts of a process usually stay the same from its fork
    to its end; then they are one object in all its events. Values that many processes share are
    kept in memory once.
    """

    def __init__(self) -> None:
        self._paths: dict[bytes, bytes] = {}
        self._facts: dict[bytes, Facts] = {}
        self._common: dict[bytes, tuple[Any, ...]] = {}

    def decode(self, data: bytes, offset: int, limit: int) -> tuple[ProcessEvent, int]:
        """Return the event that starts at ``offset`` and the offset behind it.

        Raises MalformedRecordError if there is no complete record of a known kind before ``limit``.
        """
        begin = offset + _HEAD.size
        if begin > limit:
            raise MalformedRecordError(f"{limit - offset} bytes are too few for a record")
        head = _HEAD.unpack_from(data, offset)
        behind = begin + head[_END]
        lengths = head[_EXECUTABLE] + head[_CWD] + head[_FILENAME] + head[_ARGS]
        if behind > limit or lengths > head[_END]:
            raise MalformedRecordError("a record's parts are longer than the record")
        return self._event(head, data, begin), behind

    def _event(self, head: tuple[Any, ...], data: bytes, begin: int) -> ProcessEvent:
        kind, flags, time = head[:3]
        if kind == _CGROUP:
            return CgroupSeen(
                _FACTS.unpack(head[_FACTS_AT])[_CGROUP_ID],
                data[begin : begin + head[_EXECUTABLE]].rstrip(b"\0"),
            )
        facts = self._facts_of(head[_FACTS_AT])
        if flags & _UNKNOWNS:
            facts = _without_unknowns(facts)
        if kind == _EXIT:
            return _new(Exited, (time, facts, head[_OTHER], bool(flags & _GROUP_EXIT)))
        if kind in _CHANGES:
            groups = None
            if kind == _IDS and flags & _ARGS_KNOWN:
                groups = _numbers(data[begin : begin + head[_ARGS]])
            return Changed(time, facts, _CHANGES[kind], groups)
        comm = head[_COMM].partition(b"\0")[0]
        end = begin + head[_EXECUTABLE]
        cwd_end = end + head[_CWD]
        cwd = self._path(data[end:cwd_end]) if flags & _CWD_KNOWN else None
        if kind == _FORK:
            creator_start = head[_OTHER_START] or None
            return _new(Forked, (time, facts, head[_OTHER], creator_start, comm, cwd, True))
        executable = None
        if flags & _EXECUTABLE_KNOWN:
            executable = self._path(data[begin:end])
            if flags & _TRUNCATED:
                executable = executable[1:]  # its beginning is unknown
        args_begin = cwd_end + head[_FILENAME]
        args = data[args_begin : args_begin + head[_ARGS]]
        program = _new(
            Program,
            (
                comm,
                executable,
                args if flags & _ARGS_KNOWN else None,
                head[_ARGS_SIZE] if flags & _ARGS_KNOWN else None,
                bool(flags & _DELETED),
                facts.euid if kind == _EXEC else None,
                head[_OWNER] if flags & _OWNER_KNOWN else None,
                head[_MOUNTS] or None,
                _argc(head) if kind == _EXEC else None,
            ),
        )
        if kind == _EXEC:
            stamp = head[_OTHER_START] if flags & _AUDIT_STAMP else None
            return _new(Executed, (time, facts, program, cwd, stamp))
        if kind == _SNAPSHOT:
            return Observed(time, facts, program, cwd, None)
        raise MalformedRecordError(f"there is no kind {kind}")

    def _facts_of(self, packed: bytes) -> Facts:
        facts = self._facts.get(packed)
        if facts is None:
            rest = packed[_OWN.size :]
            common = self._common.get(rest)
            if common is None:
                if len(self._common) >= _MAX_COMMON:
                    self._common.clear()
                common = self._common[rest] = _COMMON.unpack(rest)
            facts = _new(Facts, (*_OWN.unpack_from(packed), *common))
            if len(self._facts) >= _MAX_FACTS:
                self._facts.clear()
            self._facts[packed] = facts
        return facts

    def _path(self, names: bytes) -> bytes:
        """Turn the names bin, usr (each with its NUL) into /usr/bin."""
        path = self._paths.get(names)
        if path is None:
            path = b"/" + b"/".join(reversed(names.split(b"\0")[:-1]))
            if len(self._paths) >= _MAX_PATHS:
                self._paths.clear()
            self._paths[names] = path
        return path


def _argc(head: tuple[Any, ...]) -> int | None:
    """Return the number of arguments of an exec whose argv is cut."""
    argc: int = head[_OTHER]
    return argc if argc and head[_ARGS] < head[_ARGS_SIZE] else None


def _numbers(words: bytes) -> tuple[int, ...]:
    return struct.unpack(f"={len(words) // 4}I", words[: len(words) // 4 * 4])


def _without_unknowns(facts: Facts) -> Facts:
    return facts._replace(
        parent_start=facts.parent_start if facts.ppid else None,
        mount_namespace=facts.mount_namespace or None,
        network_namespace=facts.network_namespace or None,
        cgroup_id=facts.cgroup_id or None,
    )
