"""Reads many datagrams of a netlink socket with one system call: recvmmsg(2)."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
from typing import Final

# Maximum number of datagrams per read.
BATCH: Final = 256
# linux/netlink.h: struct nlmsghdr before each message.
NLMSGHDR: Final = 16
# libaudit.h: MAX_AUDIT_MESSAGE_LENGTH is 8970; rounded up.
DATAGRAM: Final = 9216
# The first bytes of the datagrams, usually all of them, are stored next to each other, the rest
# elsewhere: a batch of short records touches a few pages, not one per record.
_HEAD: Final = 512
_TAIL: Final = DATAGRAM - _HEAD


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int32),
    )


class _Mmsghdr(ctypes.Structure):
    """Struct mmsghdr of recvmmsg(2): a msghdr, and the datagram's length."""

    _fields_ = (("head", _Msghdr), ("len", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg = _libc.recvmmsg
_recvmmsg.argtypes = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_uint,
    ctypes.c_int,
    ctypes.c_void_p,
)
_recvmmsg.restype = ctypes.c_int

# A sockaddr_nl with nl_pid 0: the kernel. Anyone with CAP_NET_ADMIN can send to a netlink socket,
# and only this address distinguishes the kernel's messages. Group bits follow (multicast).
_KERNEL: Final = struct.pack("=HHI", socket.AF_NETLINK, 0, 0)
_NAME: Final = 12
_WORD: Final = 4


_HEADER: Final = ctypes.sizeof(_Mmsghdr)
_HEADERS_AT: Final = BATCH * _HEAD
_TAILS_AT: Final = _HEADERS_AT + BATCH * _HEADER
MEMORY: Final = _TAILS_AT + BATCH * _TAIL
_NO_LENGTHS: Final = memoryview(bytes(BATCH * _WORD)).cast("I")


def _payload(memory: mmap.mmap, number: int, length: int) -> bytes:
    """Return the payload of datagram ``number`` of a batch, which is ``length`` bytes long."""
    start = number * _HEAD
    head = memory[start + NLMSGHDR : start + min(length, _HEAD)]
    if length <= _HEAD:
        return head
    tail = _TAILS_AT + number * _TAIL
    return head + memory[tail : tail + length - _HEAD]


def last_batch(memory: mmap.mmap) -> list[tuple[int, bytes]]:
    """Return the messages of the last batch in this reader memory."""
    messages = []
    for number in range(BATCH):
        at = _HEADERS_AT + number * _HEADER + _Mmsghdr.len.offset
        length = int.from_bytes(memory[at : at + _WORD], sys.byteorder)
        if not NLMSGHDR <= length <= DATAGRAM:
            break
        start = number * _HEAD
        kind = int.from_bytes(memory[start + 4 : start + 6], sys.byteorder)
        messages.append((kind, _payload(memory, number, length)))
    return messages


def forget_batch(memory: mmap.mmap) -> None:
    """Make ``last_batch`` return nothing until the next batch is read."""
    at = _HEADERS_AT + _Mmsghdr.len.offset
    memory[at : at + _WORD] = bytes(_WORD)


class BatchReader:
    """Preallocated buffers for one netlink socket, read in batches and never blocking.

    ``truncated`` counts datagrams longer than DATAGRAM (their head is returned); ``forged`` counts
    datagrams that are not from the kernel (they are dropped). ``types`` are the nlmsg_types of the
    last batch, including dropped ones.
    """

    def __init__(self, fd: int, group_mask: int, memory: mmap.mmap | None = None) -> None:
        """Take the socket's descriptor and the group bits its datagrams carry (0 for unicast).

        ``memory`` of MEMORY bytes, if given, holds the last batch: if it is mapped from a file,
        ``last_batch`` can recover a batch after SIGKILL.
        """
        self.truncated = 0
        self.forged = 0
        self.types: list[int] = []
        self._fd = fd
        self._memory = mmap.mmap(-1, MEMORY) if memory is None else memory
        self._names = bytearray(BATCH * _NAME)
        self._iovecs = (_Iovec * (2 * BATCH))()
        shared = memoryview(self._memory)
        raw_headers = shared[_HEADERS_AT:_TAILS_AT]
        self._headers = (_Mmsghdr * BATCH).from_buffer(raw_headers)
        self._from_kernel = (_KERNEL + struct.pack("=I", group_mask)) * BATCH

        base = ctypes.addressof(ctypes.c_char.from_buffer(shared))
        names = ctypes.addressof(ctypes.c_char.from_buffer(self._names))
        iovecs = ctypes.addressof(self._iovecs)
        for i, header in enumerate(self._headers):
            head, tail = self._iovecs[2 * i], self._iovecs[2 * i + 1]
            head.base, head.len = base + i * _HEAD, _HEAD
            tail.base, tail.len = base + _TAILS_AT + i * _TAIL, _TAIL
            header.head.name, header.head.namelen = names + i * _NAME, _NAME
            header.head.iov, header.head.iovlen = iovecs + 2 * i * ctypes.sizeof(_Iovec), 2
        self._headers_at = ctypes.addressof(self._headers)

        # One strided view per column, so that a batch is split without a Python loop.
        words = raw_headers.cast("I")
        per_header = _HEADER // _WORD
        self._lengths = words[_Mmsghdr.len.offset // _WORD :: per_header]
        self._flags = words[_Msghdr.flags.offset // _WORD :: per_header]
        self._types = shared[:_HEADERS_AT].cast("H")[2 :: _HEAD // 2]
        self._starts = range(0, BATCH * _HEAD, _HEAD)
        self._payloads = range(NLMSGHDR, BATCH * _HEAD, _HEAD)
        self._filled = BATCH  # the number of lengths in the memory; initially another reader's

    def read(self) -> list[tuple[int, bytes]]:
        """Return at most BATCH messages as (nlmsg_type, payload); [] for none.

        The payload ends where the datagram ends: audit's nlmsg_len leaves out the header in some
        messages and counts it in others (kernel/audit.c, kauditd_send_multicast_skb).
        Raises OSError, in particular ENOBUFS if the receive buffer has been full: that is reported
        once, and the content of the buffer can still be read.
        """
        # From now on only a new batch in the memory counts.
        self._lengths[: self._filled] = _NO_LENGTHS[: self._filled]
        self._filled = 0
        number = _recvmmsg(self._fd, self._headers_at, BATCH, socket.MSG_DONTWAIT, None)
        if number < 0:
            self.types = []
            code = ctypes.get_errno()
            if code in (errno.EAGAIN, errno.EINTR):
                return []
            raise OSError(code, os.strerror(code))
        self._filled = number
        memory = self._memory
        self.types = self._types[:number].tolist()
        lengths = self._lengths[:number].tolist()
        if max(lengths, default=0) <= _HEAD:
            messages = [
                (kind, memory[payload : start + length])
                for kind, payload, start, length in zip(
                    self.types,
                    self._payloads,
                    self._starts,
                    lengths,
                    strict=False,  # the ranges go on to the end of the buffers
                )
            ]
        else:
            messages = [
                (kind, _payload(memory, i, length))
                for i, (kind, length) in enumerate(zip(self.types, lengths, strict=True))
            ]
        size = number * _NAME
        if self._names[:size] != self._from_kernel[:size]:
            messages = self._genuine(messages)
        flags = self._flags[:number].tolist()
        if any(flags):
            self.truncated += sum(1 for flag in flags if flag & socket.MSG_TRUNC)
        return messages

    def _genuine(self, messages: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Drop messages of other processes."""
        genuine = [
            message
            for i, message in enumerate(messages)
            if self._names[i * _NAME : i * _NAME + 8] == _KERNEL
        ]
        self.forged += len(messages) - len(genuine)
        return genuine
