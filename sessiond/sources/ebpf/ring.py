"""The reader's side of a BPF ring buffer, directly in its memory.

Documentation/bpf/ringbuf.rst: one page with the consumer's position, one with the producer's, then
the data. Each record starts with its length, whose two highest bits mark it as still being written,
or discarded. Mapping the data twice in a row would keep records contiguous; copying the data read
achieves the same with half the memory.
"""

from __future__ import annotations

import mmap
import sys
import threading
from collections.abc import Callable, Iterator

_BUSY, _DISCARDED = 1 << 31, 1 << 30
_MAX_READ = 1 << 20  # bytes


class Ring:
    """Reads a ring buffer of ``size`` bytes, a power of two. ``fileno`` stays the caller's."""

    def __init__(self, fileno: int, size: int) -> None:
        page = mmap.PAGESIZE
        self._size = size
        self._consumer_page = mmap.mmap(fileno, page)
        self._pages = mmap.mmap(fileno, page + size, prot=mmap.PROT_READ, offset=page)
        self._consumer = memoryview(self._consumer_page).cast("Q")
        self._producer = memoryview(self._pages)[:8].cast("Q")
        self._data = memoryview(self._pages)[page:]
        self._words = self._data.cast("I")
        self._order = threading.Lock()
        # Called with each chunk before the kernel may write over it.
        self.on_received: Callable[[bytes], None] = _nothing

    def read(self) -> Iterator[tuple[bytes, list[tuple[int, int]]]]:
        """Yield chunks with the bounds of their records, up to the current producer position."""
        end = self._producer[0]
        while (start := self._consumer[0]) < end:
            self._fence()
            spans, size = self._committed(start, min(end - start, _MAX_READ))
            if not size:
                return
            self._fence()
            chunk = self._copy(start % self._size, size)
            self.on_received(chunk)
            self._fence()
            self._consumer[0] = start + size
            yield chunk, spans

    def close(self) -> None:
        """Unmap the memory."""
        for view in (self._consumer, self._producer, self._words, self._data):
            view.release()
        self._consumer_page.close()
        self._pages.close()

    def _copy(self, first: int, length: int) -> bytes:
        tail = self._size - first
        if length <= tail:
            return bytes(self._data[first : first + length])
        return bytes(self._data[first:]) + bytes(self._data[: length - tail])

    def _committed(self, start: int, most: int) -> tuple[list[tuple[int, int]], int]:
        """Return the complete records from ``start`` on, and their size in bytes."""
        words, mask = self._words, self._size - 1
        spans = []
        offset = 0
        while offset < most:
            length = words[((start + offset) & mask) >> 2]
            if length & _BUSY:
                break
            begin = offset + 8
            if length & _DISCARDED:
                length &= ~_DISCARDED
            else:
                spans.append((begin, begin + length))
            offset = (begin + length + 7) & ~7
        return spans, offset

    def _fence(self) -> None:
        """Act as a memory barrier between earlier and later accesses.

        arm64 may reorder plain loads and stores. Releasing a lock orders earlier accesses,
        acquiring it orders later ones.
        """
        with self._order:
            pass
        with self._order:
            pass


def spans(chunk: bytes) -> Iterator[tuple[int, int]]:
    """Yield the bounds of the records in a chunk of ``Ring.read``."""
    offset = 0
    while offset + 8 <= len(chunk):
        length = int.from_bytes(chunk[offset : offset + 4], sys.byteorder)
        begin = offset + 8
        end = begin + (length & ~(_BUSY | _DISCARDED))
        if not length & _DISCARDED and end <= len(chunk):
            yield begin, end
        offset = (end + 7) & ~7


def _nothing(_: bytes) -> None:
    pass
