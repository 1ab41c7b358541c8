"""Keeps lines on disk, in order and within a size limit, while an output does not accept them.

A directory holds segments, files named after the number of their first line; lines are numbered
consecutively. A segment is a sequence of frames::

    FF 53 50 4C | length u32 | number u64 | crc32 u32 | the line

(little endian; the checksum covers length, number and line). The byte FF does not occur in UTF-8,
so the reader can find the next frame after a damaged one, and the numbers show how many are missing
in between. A file named ``position`` has the number of the next line to deliver. There is no index:
the reader handles every state that a kill can leave.

Guarantees:

* Lines are in the kernel's cache when ``append`` returns: they survive the death of this process,
  and of the machine after the next fsync (``sync_interval``, by a thread of its own).
* A line is removed or skipped only after its delivery was confirmed. ``position`` is written at
  most every half second, so a crash repeats the lines delivered in that time, but loses none.
* A damaged or torn frame is skipped and counted (``damaged``); lines beyond the limit are counted
  too (``dropped``).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sessiond.errors import OutputError
from sessiond.output.background import Background
from sessiond.output.backoff import Backoff
from sessiond.system.files import open_directory, open_file, trusted_users

Policy = Literal["oldest", "newest"]

_MAGIC = b"\xffSPL"
_HEADER = struct.Struct("<4sIQI")
_CHECKED = struct.Struct("<IQ")  # the part of the header that the checksum covers
_SEGMENT_NAME = re.compile(r"([0-9]{20})\.spool")
_POSITION = struct.Struct("<QI")


class Frame(NamedTuple):
    """A line as it is in a segment; ``end`` is the offset behind it, in bytes."""

    number: int
    line: bytes
    end: int


def encode(number: int, line: bytes) -> bytes:
    """Return the frame of ``line``, whose number is ``number``."""
    checksum = zlib.crc32(line, zlib.crc32(_CHECKED.pack(len(line), number)))
    return _HEADER.pack(_MAGIC, len(line), number, checksum) + line


def decode(segment: bytes) -> Iterator[Frame]:
    """Yield every complete frame in ``segment``, skipping damaged data."""
    at = segment.find(_MAGIC)
    while 0 <= at <= len(segment) - _HEADER.size:
        _, length, number, checksum = _HEADER.unpack_from(segment, at)
        start = at + _HEADER.size
        line = segment[start : start + length]
        checked = zlib.crc32(line, zlib.crc32(_CHECKED.pack(length, number)))
        if len(line) == length and checked == checksum:
            yield Frame(number, line, start + length)
            at = segment.find(_MAGIC, start + length)
        else:
            at = segment.find(_MAGIC, at + 1)


@dataclass(slots=True)
class _Segment:
    first: int  # the number of its first line
    size: int  # in bytes

    @property
    def name(self) -> str:
        return f"{self.first:020d}.spool"


class Spool:
    """A queue of lines on disk, with at most ``max_size`` bytes.

    ``append`` adds lines; ``peek`` and ``advance`` remove them; ``confirm`` marks them as
    delivered. Always: lines appended + inherited = advanced over + ``pending`` + ``dropped`` +
    ``damaged``.
    """

    SAVE_EVERY = 0.5  # seconds between writes of the position

    def __init__(
        self,
        directory: str,
        *,
        max_size: int = 256 * 1024 * 1024,
        drop: Policy = "oldest",
        sync_interval: float | None = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the directory's absolute path and its bound in bytes.

        ``drop`` says which lines to drop at the limit. ``sync_interval`` is in seconds; None leaves
        syncing to the kernel. ``clock`` returns monotonic seconds.
        """
        self.trouble: str | None = None
        self.dropped = 0  # lines beyond the limit
        self.damaged = 0  # unreadable lines
        self.inherited = 0  # lines of an earlier run
        self._path = directory
        self._max_size = max_size
        self._segment_size = min(max_size // 8, 4 * 1024 * 1024)
        self.drop = drop
        self._sync_interval = sync_interval
        self._clock = clock
        self._backoff = Backoff(0.25, 5.0)
        self._retry = 0.0
        self._background = Background("spool-sync")
        self._sync_failures = 0

        self._directory = -1
        self._segments: deque[_Segment] = deque()
        self._size = 0  # of all segments, in bytes
        self._next_in = 1  # the number of the next line to be appended
        self._next_out = 1  # the number of the next line to be returned
        self._writing: _Segment | None = None
        self._unsynced: dict[int, int] = {}  # first number -> descriptor; with the one written to
        self._reading: Iterator[Frame] = iter(())
        self._read_from = 1  # segments whose first number is below have been read
        self._ahead: deque[Frame] = deque()  # read, and not yet returned
        self._in_flight: deque[int] = deque()  # numbers returned and not confirmed
        self._confirmed = 1  # the number after the last confirmed line
        self._position = -1
        self._saved = 0
        self._save_due: float | None = None
        self._sync_due: float | None = None

    def open(self) -> None:
        """Find the lines of an earlier run. Raises OutputError if the spool is unusable."""
        try:
            with contextlib.suppress(FileExistsError):
                Path(self._path).mkdir(mode=0o700)
            self._directory = open_directory(self._path, trusted=trusted_users())
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._find_segments()
        except OSError as error:
            if self._directory >= 0:
                os.close(self._directory)
                self._directory = -1
            reason = f"can't use the spool: {error.strerror}"
            if isinstance(error, BlockingIOError):
                reason = "this spool is in use by another process; each needs its own"
            raise OutputError(f"{self._path}: {reason}") from None

    @property
    def pending(self) -> int:
        """The number of lines to be returned."""
        return self._next_in - self._next_out

    @property
    def fill(self) -> float:
        """The share of its maximum size in use, 0 to 1."""
        return self._size / self._max_size

    @property
    def in_flight(self) -> int:
        """The number of returned, unconfirmed lines that are still on the disk."""
        first = self._segments[0].first if self._segments else self._next_in
        return sum(number >= first for number in self._in_flight)

    def append(self, lines: list[bytes]) -> int:
        """Append ``lines``; return how many were handled: kept, or dropped and counted.

        The rest could not be written; ``trouble`` says why.
        """
        if self.trouble is not None and self._clock() < self._retry:
            return 0
        done = 0
        try:
            while done < len(lines):
                fitting = self._fitting(lines, done)
                if fitting:
                    done += self._write(lines[done : done + fitting])
                elif len(lines[done]) + _HEADER.size > self._max_size:
                    self.dropped += 1
                    done += 1
                elif self.drop == "oldest":
                    self._drop_oldest()
                else:
                    self.dropped += len(lines) - done
                    done = len(lines)
        except OSError as error:
            self._fail(error)
            return done
        if self.trouble is not None:
            self.trouble = None
            self._backoff.reset()
        return done

    def append_in_flight(self, lines: list[bytes]) -> int:
        """Append copies of lines that an output has not confirmed; return how many.

        Call this while nothing is pending: the copies count as returned.
        """
        before, dropped = self._next_in, self.dropped
        self.append(lines)
        self.dropped = dropped
        self._in_flight.extend(range(before, self._next_in))
        self._next_out = self._next_in
        return self._next_in - before

    def peek(self, limit: int) -> list[bytes]:
        """Return the next lines, about ``limit`` bytes of them, without removing them."""
        size = sum(len(frame.line) for frame in self._ahead)
        expected = self._ahead[-1].number + 1 if self._ahead else self._next_out
        try:
            while size < limit:
                frame = next(self._reading, None)
                if frame is None:
                    if not self._read_segment():
                        break
                elif expected <= frame.number < self._next_in:
                    self._ahead.append(frame)
                    expected = frame.number + 1
                    size += len(frame.line)
        except OSError as error:
            self._fail(error)
        else:
            if not self._ahead:  # everything is read; missing lines are lost
                self.damaged += self.pending
                self._next_out = self._next_in
        return [frame.line for frame in self._ahead]

    def advance(self, count: int) -> None:
        """Remove the first ``count`` lines that ``peek`` returned."""
        for _ in range(count):
            number = self._ahead.popleft().number
            self.damaged += number - self._next_out
            self._next_out = number + 1
            self._in_flight.append(number)

    def confirm(self, unconfirmed: int) -> None:
        """Confirm the removed lines, except the last ``unconfirmed`` ones."""
        while len(self._in_flight) > unconfirmed:
            self._confirmed = self._in_flight.popleft() + 1
        self._remove_delivered()
        self._plan_save()

    def deadline(self) -> float | None:
        """Return when ``tick`` is due, in monotonic seconds."""
        return min((t for t in (self._save_due, self._sync_due) if t is not None), default=None)

    def tick(self, now: float) -> None:
        """Save the position and sync the data, when due."""
        if self._save_due is not None and now >= self._save_due:
            self._save_position(self._delivered())
        if self._sync_due is not None and now >= self._sync_due:
            descriptors = self._to_sync()
            self._background.submit(lambda: self._sync(descriptors))

    def sync(self) -> None:
        """Sync everything to the disk before returning."""
        self._save_position(self._delivered())
        self._sync(self._to_sync())

    def close(self) -> None:
        """Save the position and release the directory."""
        if self._directory < 0:
            return
        self._writing = None
        self._remove_delivered()
        self.sync()
        self._background.close(timeout=2.0)
        if self._position >= 0:
            os.close(self._position)
        os.close(self._directory)
        self._directory = self._position = -1

    def status(self) -> dict[str, Any]:
        """Return the counters: lines, bytes and their bound, segments, dropped, damaged, ..."""
        return {
            "path": self._path,
            "lines": self.pending,
            "size": self._size,
            "max_size": self._max_size,
            "segments": len(self._segments),
            "dropped": self.dropped,
            "damaged": self.damaged,
            "inherited": self.inherited,
            "sync_failures": self._sync_failures,
            "trouble": self.trouble,
        }

    # Writing

    def _fitting(self, lines: list[bytes], start: int) -> int:
        """Return how many lines from ``start`` on fit into the bound and the current segment."""
        segment = self._writing
        if segment is None or segment.size >= self._segment_size:
            segment = self._begin_segment()
        room = self._max_size - self._size
        wanted = max(self._segment_size - segment.size, 1)  # the last line may exceed it
        size = count = 0
        for line in lines[start:]:
            size += _HEADER.size + len(line)
            if size > room:
                break
            count += 1
            if size >= wanted:
                break
        return count

    def _begin_segment(self) -> _Segment:
        self._writing = None
        if self._sync_interval is None:
            self._close_written()
        segment = _Segment(self._next_in, 0)
        if self._segments and self._segments[-1].first == segment.first:  # nothing written to it
            self._remove(self._segments[-1])
            self._segments.pop()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(segment.name, flags, 0o600, dir_fd=self._directory)
        self._unsynced[segment.first] = descriptor
        self._segments.append(segment)
        self._writing = segment
        return segment

    def _write(self, lines: list[bytes]) -> int:
        """Write ``lines`` to the current segment, complete frames only; return how many."""
        segment = self._segments[-1]
        descriptor = self._unsynced[segment.first]
        frames = [encode(number, line) for number, line in enumerate(lines, self._next_in)]
        written = os.write(descriptor, b"".join(frames))
        if self._sync_interval is not None and self._sync_due is None:
            self._sync_due = self._clock() + self._sync_interval
        whole = 0
        for frame in frames:
            if written < len(frame):
                break
            written -= len(frame)
            whole += 1
            segment.size += len(frame)
            self._size += len(frame)
        self._next_in += whole
        if whole < len(frames):
            with contextlib.suppress(OSError):  # the reader skips half a frame
                os.ftruncate(descriptor, segment.size)
            actual = os.fstat(descriptor).st_size
            self._size += actual - segment.size
            segment.size = actual
            if not whole:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole

    def _drop_oldest(self) -> None:
        end = self._remove_first()
        if end > self._next_out:
            self.dropped += end - self._next_out
            self._next_out = end
            while self._ahead and self._ahead[0].number < end:
                self._ahead.popleft()
        self._plan_save()

    def _remove_delivered(self) -> None:
        while self._segments and self._end_of_first() <= self._delivered():
            try:
                self._remove_first()
            except OSError as error:
                self._fail(error)
                return

    def _end_of_first(self) -> int:
        """Return the number after the last line of the first segment."""
        return self._segments[1].first if len(self._segments) > 1 else self._next_in

    def _remove_first(self) -> int:
        """Remove the first segment; return the number of the line after it."""
        # So that the next start can distinguish delivered lines from dropped ones.
        self._save_position(self._confirmed)
        end = self._end_of_first()
        if self._segments[0] is self._writing:
            self._writing = None
        self._remove(self._segments[0])
        self._segments.popleft()
        return end

    def _remove(self, segment: _Segment) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(segment.name, dir_fd=self._directory)
        self._size -= segment.size
        descriptor = self._unsynced.pop(segment.first, None)
        if descriptor is not None:
            os.close(descriptor)

    def _delivered(self) -> int:
        """Return the number of the first line that is not known to be delivered."""
        return self._in_flight[0] if self._in_flight else self._next_out

    def _fail(self, error: OSError) -> None:
        self.trouble = f"spool {self._path}: {error.strerror}"
        self._retry = self._clock() + self._backoff.delay()

    # Reading

    def _read_segment(self) -> bool:
        """Continue with the next segment; return False if there is none."""
        for segment in self._segments:
            if segment.first >= self._read_from and segment.size:
                break
        else:
            return False
        if segment is self._writing:  # a segment being read is no longer written
            self._writing = None
        self._reading = decode(self._load(segment))
        self._read_from = segment.first + 1
        return True

    def _load(self, segment: _Segment) -> bytes:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(segment.name, flags, dir_fd=self._directory)
            try:
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    with os.fdopen(descriptor, "rb", closefd=False) as file:
                        return file.read(max(segment.size, 0))
            finally:
                os.close(descriptor)
        except OSError as error:
            # Removed, replaced or unreadable: its lines count as damaged. Other errors (EMFILE,
            # ENOMEM) may be temporary.
            if error.errno not in {errno.ENOENT, errno.ELOOP, errno.EIO}:
                raise
        return b""

    def _find_segments(self) -> None:
        names = os.listdir(self._directory)  # noqa: PTH208 (pathlib knows no descriptors)
        for name in sorted(filter(_SEGMENT_NAME.fullmatch, names)):
            size = os.stat(name, dir_fd=self._directory, follow_symlinks=False).st_size
            segment = _Segment(int(name.removesuffix(".spool")), size)
            self._size += size
            if size:
                self._segments.append(segment)
            else:
                self._remove(segment)
        saved = self._load_position()
        position = saved or 1
        if self._segments:
            last = self._segments[-1]
            self._next_in, end = last.first, 0
            for frame in decode(self._load(last)):
                self._next_in, end = frame.number + 1, frame.end
            if end < last.size:
                self._next_in += 1  # the torn frame at the end was a line too
        self._next_in = max(self._next_in, position)
        first = self._segments[0].first if self._segments else self._next_in
        self._next_out = max(first, position)
        self.inherited = self.pending
        if saved is not None and first > saved:  # dropped by the last run, perhaps unreported
            self.dropped += first - saved
            self.inherited += first - saved
        self._read_from = self._segments[0].first if self._segments else 1
        self._confirmed = self._next_out
        self._remove_delivered()
        self._save_position(self._next_out)

    # The position: twelve bytes in one page, which a kill can't tear, written in place, so that it
    # needs no space on a full disk. A lost or damaged position repeats lines.

    def _load_position(self) -> int | None:
        try:
            descriptor = os.open(
                "position", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._directory
            )
        except OSError:
            return None
        try:
            number, checksum = _POSITION.unpack(os.read(descriptor, _POSITION.size))
        except (OSError, struct.error):
            return None
        finally:
            os.close(descriptor)
        return number if checksum == zlib.crc32(number.to_bytes(8, "little")) else None

    def _plan_save(self) -> None:
        if self._save_due is None and self._delivered() != self._saved:
            self._save_due = self._clock() + self.SAVE_EVERY

    def _save_position(self, number: int) -> None:
        self._save_due = None
        if number <= self._saved:
            return
        try:
            if self._position < 0:
                self._position, _ = open_file(
                    "position",
                    os.O_WRONLY,
                    directory=self._directory,
                    path=f"{self._path}/position",
                    mode=0o600,
                    trusted=trusted_users(),
                )
            checksum = zlib.crc32(number.to_bytes(8, "little"))
            os.pwrite(self._position, _POSITION.pack(number, checksum), 0)
            self._saved = number
        except (OSError, OutputError):  # retried; until then a crash would repeat more lines
            self._save_due = self._clock() + self.SAVE_EVERY

    # Synchronising

    def _to_sync(self) -> list[int]:
        """Return new descriptors of the files written since the last time."""
        self._sync_due = None
        # The directory holds the names of new segments.
        descriptors = [os.dup(fd) for fd in (*self._unsynced.values(), self._directory)]
        self._close_written()
        return descriptors

    def _sync(self, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            try:
                os.fsync(descriptor)
            except OSError:
                self._sync_failures += 1
            finally:
                os.close(descriptor)

    def _close_written(self) -> None:
        """Close the descriptors of segments that are no longer written."""
        for first in list(self._unsynced):
            if self._writing is None or first != self._writing.first:
                os.close(self._unsynced.pop(first))
