"""Reading a ring buffer's memory, which the test writes like the kernel."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessiond.sources.ebpf.ring import Ring

SIZE = mmap.PAGESIZE
LARGE = 1 << 19  # several windows
BUSY, DISCARDED = 1 << 31, 1 << 30


class Writer:
    """The kernel's side: writes records at the producer's position.

    The kernel maps the data twice in a row; the file has it twice.
    """

    def __init__(self, size: int = SIZE) -> None:
        self.fileno = os.memfd_create("ring")
        self._size = size
        os.truncate(self.fileno, 2 * mmap.PAGESIZE + 2 * size)
        self._memory = mmap.mmap(self.fileno, 2 * mmap.PAGESIZE + 2 * size)

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
            place = 2 * mmap.PAGESIZE + (at + index) % self._size
            self._memory[place] = self._memory[place + self._size] = byte

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


def test_records_of_a_large_ring_come_through_the_window() -> None:
    """The window moves on, also past the end of the memory, while records wait and while not."""
    writer = Writer(LARGE)
    ring = Ring(writer.fileno, LARGE)
    # Not a divisor of the page size, so that records cross the window's end.
    payloads = [bytes([number % 251]) * 5003 for number in range(3 * LARGE // 5003)]
    for payload in payloads[:10]:
        writer.write(payload)
        assert read(ring) == [payload]
    batch = LARGE // 5016
    for begin in range(10, len(payloads), batch):
        waiting = payloads[begin : begin + batch]
        for number, payload in enumerate(waiting):
            writer.write(payload, flags=0 if number % 3 else DISCARDED)
        assert read(ring) == [payload for number, payload in enumerate(waiting) if number % 3]
    ring.close()
    writer.close()


def test_a_small_part_of_a_large_ring_is_mapped() -> None:
    """The kernel counts what is mapped as memory of the process."""
    size = 8 << 20
    descriptor = os.memfd_create("a large ring")
    os.truncate(descriptor, 2 * mmap.PAGESIZE + 2 * size)
    ring = Ring(descriptor, size)
    mapped = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "memfd:a large ring" in line:
            begin, end = line.split()[0].split("-")
            mapped += int(end, 16) - int(begin, 16)
    ring.close()
    os.close(descriptor)
    assert 0 < mapped <= size // 16


def test_records_behind_a_busy_one_beyond_the_window_come_later() -> None:
    """An unfinished record holds up the window, too."""
    writer = Writer(LARGE)
    ring = Ring(writer.fileno, LARGE)
    at = writer.write(b"being written", BUSY)
    payloads = [b"x" * 5003] * (LARGE // 5016 - 1)
    for payload in payloads:
        writer.write(payload)
    assert read(ring) == read(ring) == []
    writer.commit(at, len(b"being written"))
    assert read(ring) == [b"being written", *payloads]
    ring.close()
    writer.close()


def test_a_reader_continues_far_into_the_stream() -> None:
    """A restarted daemon begins where the earlier one has ended."""
    writer = Writer(LARGE)
    first = Ring(writer.fileno, LARGE)
    for _ in range(3 * LARGE // 5016):
        writer.write(b"x" * 5003)
        read(first)
    first.close()
    second = Ring(writer.fileno, LARGE)
    writer.write(b"next")
    assert read(second) == [b"next"]
    second.close()
    writer.close()
