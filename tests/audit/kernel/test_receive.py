"""Netlink messages in batches, from a real socket of the kernel."""

from __future__ import annotations

import gc
import mmap
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sessiond.audit.kernel.receive import (
    BATCH,
    MEMORY,
    NLMSGHDR,
    BatchReader,
    forget_batch,
    last_batch,
)

NETLINK_ROUTE, RTM_NEWLINK, RTM_GETLINK = 0, 16, 18
NLM_F_REQUEST_AND_ACK = 5
ERROR = 2


@contextmanager
def netlink() -> Iterator[socket.socket]:
    """Open a socket whose requests the kernel answers with an error, for any user."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as opened:
        opened.bind((0, 0))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        yield opened


def ask(opened: socket.socket, number: int) -> None:
    """Make the kernel answer ``number`` times; the answer repeats the request's number."""
    for each in range(number):
        # A type that does not exist: the answer is an error with the request in it.
        opened.send(struct.pack("=IHHII", NLMSGHDR, 255, NLM_F_REQUEST_AND_ACK, each, 0))


def numbers(messages: list[tuple[int, bytes]]) -> list[int]:
    """Return the numbers of the requests that these answers belong to."""
    return [struct.unpack_from("=I", payload, 4 + 8)[0] for _, payload in messages]


def test_messages_come_in_order_in_batches() -> None:
    """Messages are read in order, at most BATCH at a time, each once."""
    with netlink() as opened:
        reader = BatchReader(opened.fileno(), 0)
        assert reader.read() == []
        ask(opened, BATCH + 3)
        first, second, third = reader.read(), reader.read(), reader.read()
        assert numbers(first) == list(range(BATCH))
        assert numbers(second) == [BATCH, BATCH + 1, BATCH + 2]
        assert third == []
        assert {kind for kind, _ in first} == {ERROR}
        assert (reader.truncated, reader.forged) == (0, 0)


def test_long_messages_come_whole() -> None:
    """Long messages between short ones, with lengths near the boundary between the buffers."""
    with netlink() as opened, mmap.mmap(-1, MEMORY) as memory:
        reader = BatchReader(opened.fileno(), 0, memory)
        sizes = [0, 400, *range(440, 520, 4), 1000, 4, 8000, 0]
        for number, size in enumerate(sizes):
            # The answer repeats the whole request.
            text = bytes(range(256)) * 32
            head = struct.pack("=IHHII", NLMSGHDR + size, 255, NLM_F_REQUEST_AND_ACK, number, 0)
            opened.send(head + text[:size])
        messages = reader.read()
        assert numbers(messages) == list(range(len(sizes)))
        for (_, payload), size in zip(messages, sizes, strict=True):
            assert payload[4 + NLMSGHDR :] == (bytes(range(256)) * 32)[:size]
        assert last_batch(memory) == messages
        assert reader.truncated == 0
        del reader
        gc.collect()


def test_what_another_process_sends_is_dropped_and_counted() -> None:
    """Any process with the capability can send to a netlink socket: only the kernel is accepted."""
    with netlink() as opened, netlink() as other:
        reader = BatchReader(opened.fileno(), 0)
        forged = struct.pack("=IHHII", NLMSGHDR, 1300, 0, 0, 0) + b"audit(1.000:1): forged"
        try:
            other.sendto(forged, opened.getsockname())
        except PermissionError:
            pytest.skip("needs CAP_NET_ADMIN, to send to another's socket")
        ask(opened, 1)
        assert numbers(reader.read()) == [0]
        assert reader.forged == 1


def test_the_last_batch_outlives_its_reader() -> None:
    """The memory holds the last batch until ``forget_batch``."""
    with netlink() as opened, mmap.mmap(-1, MEMORY) as memory:
        reader = BatchReader(opened.fileno(), 0, memory)
        ask(opened, 3)
        messages = reader.read()
        assert last_batch(memory) == messages
        ask(opened, 1)
        messages = reader.read()
        assert last_batch(memory) == messages
        forget_batch(memory)
        assert last_batch(memory) == []
        ask(opened, 2)
        assert len(reader.read()) == len(last_batch(memory)) == 2
        del reader, messages
        gc.collect()


def test_a_closed_socket_is_an_error() -> None:
    """Reading raises an error instead of returning nothing forever."""
    with netlink() as opened:
        reader = BatchReader(opened.fileno(), 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        reader.read()
