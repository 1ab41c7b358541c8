"""Reading a ring buffer's memory, which the test writes like the kernel."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessiond.sources.ebpf.ring import Ring

SIZE = mmap.PAGESIZE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Writer:
    """The kernel's side: writes records at the producer's position."""

    def __init__(self) -> None:
        self.fileno = os.memfd_create("ring")
        os.truncate(self.fileno, 2 * mmap.PAGESIZE + SIZE)
        self._memory = mmap.mmap(self.fileno, 2 * mmap.PAGESIZE + SIZE)

    @property
    def consumed(self) -> int:
        """The consumer's position."""
        return int(struct.unpack_from("=Q", self._memory)[0])

    @property
    def produced(self) -> int:
        """The producer's position."""
        return int(struct.unpack_from("=Q", self._memory, mmap.PAGESIZE)[0])

    def write(self, payload: bytes, flags: int = 0) -> int:
        """Append a record; return the offset of its header."""
        at = self.produced
        self._put(at, struct.pack("=II", len(payload) | flags, 0) + payload)
        behind = at + (8 + len(payload) + 7) // 8 * 8
        struct.pack_into("=Q", self._memory, mmap.PAGESIZE, behind)
        return at

    def commit(self, at: int, length: int) -> None:
        """Clear the busy flag of a record's header."""
        self._put(at, struct.pack("=I", length))

    def _put(self, at: int, data: bytes) -> None:
        for index, byte in enumerate(data):
            self._memory[2 * mmap.PAGESIZE + (at + index) % SIZE] = byte

    def close(self) -> None:
        """Free the memory."""
        self._memory.close()
        os.close(self.fileno)


@pytest.fixture
def writer() -> Iterator[Writer]:
    """An empty ring."""
    writer = Writer()
    yield writer
    writer.close()


@pytest.fixture
def ring(writer: Writer) -> Iterator[Ring]:
    """The reader of that ring."""
    ring = Ring(writer.fileno, SIZE)
    yield ring
    ring.close()


def read(ring: Ring) -> list[bytes]:
    """Return all complete records."""
    return [chunk[begin:end] for chunk, spans in ring.read() for begin, end in spans]


def test_records_come_once_and_in_order(ring: Ring, writer: Writer) -> None:
    """A record is read once."""
    for payload in (b"first", b"", b"second one"):
        writer.write(payload)
    assert read(ring) == [b"first", b"", b"second one"]
    assert read(ring) == []
    assert writer.consumed == writer.produced


def test_discarded_records_are_passed_over(ring: Ring, writer: Writer) -> None:
    """Their writer has abandoned them."""
    writer.write(b"given up", DISCARDED)
    writer.write(b"kept")
    assert read(ring) == [b"kept"]


def test_nothing_behind_a_busy_record_is_read(ring: Ring, writer: Writer) -> None:
    """Records after an unfinished one wait for it, so that the order is kept."""
    writer.write(b"before")
    at = writer.write(b"being written", BUSY)
    writer.write(b"after")
    assert read(ring) == [b"before"]
    assert read(ring) == []
    writer.commit(at, len(b"being written"))
    assert read(ring) == [b"being written", b"after"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.binary(max_size=700), max_size=30))
def test_records_wrap_around_the_end(ring: Ring, writer: Writer, payloads: list[bytes]) -> None:
    """Records that cross the end of the memory are complete."""
    for payload in payloads:
        writer.write(payload)
        assert read(ring) == [payload]
