"""Reading many datagrams of a netlink socket in one system call: recvmmsg(2)."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
from typing import Final

# Most datagrams taken at once.
BATCH: Final = 256
# linux/netlink.h: struct nlmsghdr before each message.
NLMSGHDR: Final = 16
# libaudit.h: MAX_AUDIT_MESSAGE_LENGTH is 8970; rounded up so that every buffer is aligned.
DATAGRAM: Final = 9216


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
# and only this address tells a kernel's message from such a one. Group bits follow (multicast).
_KERNEL: Final = struct.pack("=HHI", socket.AF_NETLINK, 0, 0)
_NAME: Final = 12
_WORD: Final = 4


MEMORY: Final = BATCH * (DATAGRAM + ctypes.sizeof(_Mmsghdr))
_NO_LENGTHS: Final = memoryview(bytes(BATCH * _WORD)).cast("I")


def last_batch(memory: mmap.mmap) -> list[tuple[int, bytes]]:
    """Return the messages of the last batch that a reader with this memory has read."""
    messages = []
    with memoryview(memory) as data:
        for number in range(BATCH):
            at = BATCH * DATAGRAM + number * ctypes.sizeof(_Mmsghdr) + _Mmsghdr.len.offset
            length = int.from_bytes(data[at : at + _WORD], sys.byteorder)
            if not NLMSGHDR <= length <= DATAGRAM:
                break
            start = number * DATAGRAM
            kind = int.from_bytes(data[start + 4 : start + 6], sys.byteorder)
            messages.append((kind, bytes(data[start + NLMSGHDR : start + length])))
    return messages


def forget_batch(memory: mmap.mmap) -> None:
    """Let ``last_batch`` find nothing until the next batch is read."""
    at = BATCH * DATAGRAM + _Mmsghdr.len.offset
    memory[at : at + _WORD] = bytes(_WORD)


class BatchReader:
    """Preallocated buffers for one netlink socket, read in batches and never blocking.

    ``truncated`` counts datagrams longer than DATAGRAM (their head is handed out); ``forged``
    counts datagrams that did not come from the kernel (they are dropped). ``types`` are the
    nlmsg_types of the last batch, dropped ones included.
    """

    def __init__(self, fd: int, group_mask: int, memory: mmap.mmap | None = None) -> None:
        """Take the socket's descriptor and the group bits its datagrams carry (0 for unicast).

        ``memory`` of MEMORY bytes, if given, holds the last batch: where it is a file's, a batch
        that SIGKILL leaves unread is there for ``last_batch``.
        """
        self.truncated = 0
        self.forged = 0
        self.types: list[int] = []
        self._fd = fd
        shared = memoryview(memory if memory is not None else bytearray(MEMORY))
        self._data = shared[: BATCH * DATAGRAM]
        self._names = bytearray(BATCH * _NAME)
        self._iovecs = (_Iovec * BATCH)()
        raw_headers = shared[BATCH * DATAGRAM : MEMORY]
        self._headers = (_Mmsghdr * BATCH).from_buffer(raw_headers)
        self._from_kernel = (_KERNEL + struct.pack("=I", group_mask)) * BATCH

        data = ctypes.addressof(ctypes.c_char.from_buffer(self._data))
        names = ctypes.addressof(ctypes.c_char.from_buffer(self._names))
        iovecs = ctypes.addressof(self._iovecs)
        for i, (header, iovec) in enumerate(zip(self._headers, self._iovecs, strict=True)):
            iovec.base, iovec.len = data + i * DATAGRAM, DATAGRAM
            header.head.name, header.head.namelen = names + i * _NAME, _NAME
            header.head.iov, header.head.iovlen = iovecs + i * ctypes.sizeof(_Iovec), 1
        self._headers_at = ctypes.addressof(self._headers)

        # One strided view per column, so that a batch is taken apart without a Python loop.
        words = raw_headers.cast("I")
        per_header = ctypes.sizeof(_Mmsghdr) // _WORD
        self._lengths = words[_Mmsghdr.len.offset // _WORD :: per_header]
        self._flags = words[_Msghdr.flags.offset // _WORD :: per_header]
        self._types = self._data.cast("H")[2 :: DATAGRAM // 2]
        self._bytes = self._data
        self._starts = range(0, BATCH * DATAGRAM, DATAGRAM)
        self._payloads = range(NLMSGHDR, BATCH * DATAGRAM, DATAGRAM)

    def read(self) -> list[tuple[int, bytes]]:
        """Return what has arrived, at most BATCH messages, as (nlmsg_type, payload); [] for none.

        The payload ends where the datagram ends: audit's nlmsg_len leaves out the header in some
        messages and counts it in others (kernel/audit.c, kauditd_send_multicast_skb).
        Raises OSError, in particular ENOBUFS when the receive buffer was full meanwhile: that is
        told once, and what is in the buffer is still there to be read.
        """
        # Of what is in the memory then, only a batch of now counts.
        self._lengths[:] = _NO_LENGTHS
        number = _recvmmsg(self._fd, self._headers_at, BATCH, socket.MSG_DONTWAIT, None)
        if number < 0:
            self.types = []
            code = ctypes.get_errno()
            if code in (errno.EAGAIN, errno.EINTR):
                return []
            raise OSError(code, os.strerror(code))
        data = self._bytes
        self.types = self._types[:number].tolist()
        messages = [
            (kind, data[payload : start + length].tobytes())
            for kind, payload, start, length in zip(
                self.types,
                self._payloads,
                self._starts,
                self._lengths[:number].tolist(),
                strict=False,  # the ranges go on to the end of the buffers
            )
        ]
        size = number * _NAME
        if self._names[:size] != self._from_kernel[:size]:
            messages = self._genuine(messages)
        flags = self._flags[:number].tolist()
        if any(flags):
            self.truncated += sum(1 for flag in flags if flag & socket.MSG_TRUNC)
        return messages

    def _genuine(self, messages: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Leave out what other processes sent."""
        genuine = [
            message
            for i, message in enumerate(messages)
            if self._names[i * _NAME : i * _NAME + 8] == _KERNEL
        ]
        self.forged += len(messages) - len(genuine)
        return genuine
