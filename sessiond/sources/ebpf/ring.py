"""The reader's side of a BPF ring buffer, directly in its memory.

Documentation/bpf/ringbuf.rst: one page with the consumer's position, one with the producer's, then
the data, twice in a row, so that records are contiguous. Each record starts with its length, whose
two highest bits mark it as still being written, or discarded.

The data is mapped in a window, which moves on as it is read. The kernel counts every mapped page as
memory of the process, and the whole ring would be more than all else that the daemon uses.
"""

from __future__ import annotations

import mmap
import sys
import threading
from collections.abc import Callable, Iterator

_BUSY, _DISCARDED = 1 << 31, 1 << 30
_WINDOW = 1 << 18  # bytes


class Ring:
    """Reads a ring buffer of ``size`` bytes, a power of two. ``fileno`` stays the caller's."""

    def __init__(self, fileno: int, size: int) -> None:
        page = mmap.PAGESIZE
        self._fileno = fileno
        self._size = size
        self._consumer_page = mmap.mmap(fileno, page)
        self._producer_page = mmap.mmap(fileno, page, prot=mmap.PROT_READ, offset=page)
        self._consumer = memoryview(self._consumer_page).cast("Q")
        self._producer = memoryview(self._producer_page).cast("Q")
        # The longest possible record fits, wherever in a page it starts.
        self._window_size = min(size + page, _WINDOW)
        self._begin = 0  # the position at which the window begins
        self._window = self._map(0)
        self._data = memoryview(self._window)
        self._words = self._data.cast("I")
        self._order = threading.Lock()
        # Called with each chunk before the kernel may write over it.
        self.on_received: Callable[[bytes], None] = _nothing

    def read(self) -> Iterator[tuple[bytes, list[tuple[int, int]]]]:
        """Yield chunks with the bounds of their records, up to the current producer position."""
        end = self._producer[0]
        while (start := self._consumer[0]) < end:
            self._fence()
            if end > self._begin + self._window_size:
                self._move(start)
            first = start - self._begin
            spans, size = self._committed(first, min(end - start, self._window_size - first))
            if not size:
                return
            self._fence()
            chunk = bytes(self._data[first : first + size])
            self.on_received(chunk)
            self._fence()
            self._consumer[0] = start + size
            yield chunk, spans

    def close(self) -> None:
        """Unmap the memory."""
        self._consumer.release()
        self._producer.release()
        self._unmap()
        self._consumer_page.close()
        self._producer_page.close()

    def _map(self, begin: int) -> mmap.mmap:
        """Map the window at a position, a multiple of the page size."""
        offset = 2 * mmap.PAGESIZE + begin % self._size
        return mmap.mmap(self._fileno, self._window_size, prot=mmap.PROT_READ, offset=offset)

    def _unmap(self) -> None:
        self._words.release()
        self._data.release()
        self._window.close()

    def _move(self, start: int) -> None:
        """Let the window begin in the page of a position."""
        begin = start - start % mmap.PAGESIZE
        if begin != self._begin:
            window = self._map(begin)
            self._unmap()
            self._begin, self._window = begin, window
            self._data = memoryview(window)
            self._words = self._data.cast("I")

    def _committed(self, first: int, most: int) -> tuple[list[tuple[int, int]], int]:
        """Return the complete records from the window's byte ``first`` on, and their size in bytes.

        At most ``most`` bytes are visible.
        """
        words = self._words
        spans = []
        begin = offset = 0
        while offset < most:
            length = words[(first + offset) >> 2]
            if length & _BUSY:
                break
            begin = offset + 8
            if length & _DISCARDED:
                length &= ~_DISCARDED
            else:
                spans.append((begin, begin + length))
            offset = (begin + length + 7) & ~7
        if offset > most:
            # The last record continues beyond what is visible.
            offset = begin - 8
            if spans and spans[-1][0] == begin:
                spans.pop()
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
