"""The calls of bpf(2) and perf_event_open(2) that the tracer needs; libc has no functions for them.

Structs and numbers are those of linux/bpf.h and linux/perf_event.h. All descriptors are closed on
exec. Every function raises OSError if the kernel refuses.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import sys
from typing import Final, NamedTuple

# The numbers of the system calls, by platform.machine().
BPF_SYSCALL: Final = {"x86_64": 321, "aarch64": 280}
_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241}

# enum bpf_prog_type
TRACEPOINT, RAW_TRACEPOINT, TRACING = 5, 17, 26

# enum bpf_cmd
_MAP_CREATE, _PROG_LOAD, _OBJ_GET_INFO_BY_FD, _RAW_TRACEPOINT_OPEN = 0, 5, 15, 17
_LINK_CREATE, _ITER_CREATE = 28, 33

_TRACE_ITER = 28  # enum bpf_attach_type
_NAME: Final = 15  # characters of a name: BPF_OBJ_NAME_LEN without the NUL
_LOG_SIZE: Final = 1 << 20  # bytes of the verifier's messages
_PERF_TYPE_TRACEPOINT, _PERF_SAMPLE_RAW, _PERF_FLAG_FD_CLOEXEC = 2, 1 << 10, 8
_PERF_EVENT_IOC_SET_BPF, _PERF_EVENT_IOC_ENABLE = 0x40042408, 0x2400


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


class _PerfAttributes(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("breakpoint_type", ctypes.c_uint32),
        ("config1", ctypes.c_uint64),
    )


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


def load_program(name: str, kind: int, instructions: bytes, iterates: int = 0) -> int:
    """Load a program of the ``kind`` TRACEPOINT, RAW_TRACEPOINT or TRACING; return its descriptor.

    ``iterates`` is the BTF id of the kernel's function bpf_iter_NAME, for an iterator's program.
    If the kernel refuses, the verifier's messages go to standard error.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_ = ctypes.create_string_buffer(b"GPL")  # helpers that read memory require it
    attributes = _ProgramAttributes(
        type=kind,
        instructions_count=len(instructions) // 8,
        instructions=ctypes.addressof(code),
        license=ctypes.addressof(license_),
        name=name.encode()[:_NAME],
        expected_attach_type=_TRACE_ITER if iterates else 0,
        attach_btf_id=iterates,
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


def attach_raw_tracepoint(program: int, tracepoint: str) -> int:
    """Attach a program to a tracepoint; return the link's descriptor."""
    name = ctypes.create_string_buffer(tracepoint.encode())
    return _bpf(_RAW_TRACEPOINT_OPEN, _RawTracepointAttributes(ctypes.addressof(name), program))


def attach_tracepoint(program: int, number: int) -> int:
    """Attach a program to the tracepoint with this id in tracefs; return the event's descriptor.

    The program runs on every CPU: that of the event matters only for its samples, which nobody
    reads.
    """
    attributes = _PerfAttributes(
        type=_PERF_TYPE_TRACEPOINT,
        size=ctypes.sizeof(_PerfAttributes),
        config=number,
        sample_period=1,
        sample_type=_PERF_SAMPLE_RAW,
        wakeup_events=1,
    )
    event = _syscall(_PERF_EVENT_OPEN, ctypes.byref(attributes), -1, 0, -1, _PERF_FLAG_FD_CLOEXEC)
    try:
        fcntl.ioctl(event, _PERF_EVENT_IOC_SET_BPF, program)
        fcntl.ioctl(event, _PERF_EVENT_IOC_ENABLE, 0)
    except OSError:
        os.close(event)
        raise
    return event


def attach_iterator(program: int) -> int:
    """Return the descriptor of a link to an iterator's program, for ``open_iterator``."""
    return _bpf(_LINK_CREATE, _LinkAttributes(program, 0, _TRACE_ITER))


def open_iterator(link: int) -> int:
    """Start a new pass of an iterator; read the descriptor to its end."""
    return _bpf(_ITER_CREATE, _IteratorAttributes(link))


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    size = ctypes.sizeof(attributes)
    return _syscall(BPF_SYSCALL, command, ctypes.byref(attributes), size)


def _syscall(numbers: dict[str, int], *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(numbers[platform.machine()], *arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
