"""The calls of bpf(2) that the tracer needs; libc has no function for them.

Structs and numbers are those of linux/bpf.h. All descriptors are closed on exec. Every function
raises OSError if the kernel refuses.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from typing import Final, NamedTuple

# The number of the system call, by platform.machine().
BPF_SYSCALL: Final = {"x86_64": 321, "aarch64": 280}

# enum bpf_prog_type
_RAW_TRACEPOINT, _TRACING = 17, 26

# enum bpf_attach_type of TRACING programs
TRACEPOINT, ITERATOR = 23, 28

# enum bpf_cmd
_MAP_CREATE, _PROG_LOAD, _OBJ_GET_INFO_BY_FD, _RAW_TRACEPOINT_OPEN = 0, 5, 15, 17
_LINK_CREATE, _ITER_CREATE = 28, 33

_NAME: Final = 15  # characters of a name: BPF_OBJ_NAME_LEN without the NUL
_LOG_SIZE: Final = 1 << 20  # bytes of the verifier's messages


class Target(NamedTuple):
    """What a TRACING program is attached to.

    The BTF id is that of the tracepoint's type, or of the iterator's function bpf_iter_NAME.
    """

    attach_type: int
    btf_id: int


class Map(NamedTuple):
    """What a map is created from; names are cut to 15 characters."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


class _MapAttributes(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("inner_map", ctypes.c_uint32),
        ("numa_node", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
    )


class _MapInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
    )


class _InfoAttributes(ctypes.Structure):
    _fields_ = (
        ("descriptor", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("info", ctypes.c_uint64),
    )


class _ProgramAttributes(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("instructions_count", ctypes.c_uint32),
        ("instructions", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log", ctypes.c_uint64),
        ("kernel_version", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
        ("interface", ctypes.c_uint32),
        ("expected_attach_type", ctypes.c_uint32),
        ("btf", ctypes.c_uint32),
        ("function_info_size", ctypes.c_uint32),
        ("function_info", ctypes.c_uint64),
        ("function_info_count", ctypes.c_uint32),
        ("line_info_size", ctypes.c_uint32),
        ("line_info", ctypes.c_uint64),
        ("line_info_count", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
    )


class _RawTracepointAttributes(ctypes.Structure):
    _fields_ = (("name", ctypes.c_uint64), ("program", ctypes.c_uint32))


class _LinkAttributes(ctypes.Structure):
    _fields_ = (
        ("program", ctypes.c_uint32),
        ("target", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


class _IteratorAttributes(ctypes.Structure):
    _fields_ = (("link", ctypes.c_uint32), ("flags", ctypes.c_uint32))


def create_map(definition: Map) -> int:
    """Create a map; return its descriptor."""
    name, *numbers = definition
    return _bpf(_MAP_CREATE, _MapAttributes(*numbers, 0, 0, name.encode()[:_NAME]))


def map_of(descriptor: int) -> Map:
    """Return what the map of a descriptor was created from."""
    info = _MapInfo()
    size = ctypes.sizeof(info)
    _bpf(_OBJ_GET_INFO_BY_FD, _InfoAttributes(descriptor, size, ctypes.addressof(info)))
    return Map(
        info.name.decode(), info.type, info.key_size, info.value_size, info.max_entries, info.flags
    )


def load_program(name: str, instructions: bytes, target: Target | None) -> int:
    """Load a program; return its descriptor.

    Its type is TRACING if it has a ``target``, else RAW_TRACEPOINT. If the kernel refuses, the
    verifier's messages go to standard error.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_ = ctypes.create_string_buffer(b"GPL")  # helpers that read memory require it
    attributes = _ProgramAttributes(
        type=_RAW_TRACEPOINT if target is None else _TRACING,
        instructions_count=len(instructions) // 8,
        instructions=ctypes.addressof(code),
        license=ctypes.addressof(license_),
        name=name.encode()[:_NAME],
        expected_attach_type=0 if target is None else target.attach_type,
        attach_btf_id=0 if target is None else target.btf_id,
    )
    try:
        return _bpf(_PROG_LOAD, attributes)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise  # before the verifier
        log = ctypes.create_string_buffer(_LOG_SIZE)
        attributes.log_level, attributes.log_size = 1, len(log)
        attributes.log = ctypes.addressof(log)
        try:
            return _bpf(_PROG_LOAD, attributes)
        finally:
            sys.stderr.write(log.value.decode(errors="replace"))


def attach_tracepoint(program: int, tracepoint: str | None) -> int:
    """Attach a program to a tracepoint; return the link's descriptor.

    None means the tracepoint that is the program's target.
    """
    if tracepoint is None:
        return _bpf(_RAW_TRACEPOINT_OPEN, _RawTracepointAttributes(0, program))
    name = ctypes.create_string_buffer(tracepoint.encode())
    return _bpf(_RAW_TRACEPOINT_OPEN, _RawTracepointAttributes(ctypes.addressof(name), program))


def attach_iterator(program: int) -> int:
    """Return the descriptor of a link to an iterator's program, for ``open_iterator``."""
    return _bpf(_LINK_CREATE, _LinkAttributes(program, 0, ITERATOR))


def open_iterator(link: int) -> int:
    """Start a new pass of an iterator; read the descriptor to its end."""
    return _bpf(_ITER_CREATE, _IteratorAttributes(link))


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(
        BPF_SYSCALL[platform.machine()],
        command,
        ctypes.byref(attributes),
        ctypes.sizeof(attributes),
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
