"""The write-ahead log: a saved state and the input since then, for a start after a SIGKILL.

The runtime directory, a tmpfs, holds two things: the *state*, a snapshot of the pipeline, and the
*log*, all input since the snapshot, appended before it is processed. The next start restores the
state, replays the log, and so reaches the same point. From time to time, when all lines of the
input are written, a new state and an empty log replace them. Two more files hold the last reading
of the kernel's counter of lost records, and losses that may not have been written.

State and log have the same number. The previous log is kept until the new state is complete, so
that one pair is whole whenever the process ends. Lines written after the state was saved are made
again, with the same ``event.id``: see ``WrittenLines``.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sessiond.audit.kernel.receive import MEMORY, forget_batch, last_batch
from sessiond.audit.record import REPLACE, USER
from sessiond.errors import OutputError
from sessiond.restart import event_log
from sessiond.sources.ebpf import records
from sessiond.system.files import open_directory, open_file, read_file, replace_file, trusted_users

# Minimum number of seconds between two states. A state takes about 10 us per process.
PERIOD: Final = 10.0
# Maximum share of the time spent on saving states.
SHARE: Final = 0.01
# Bytes of the log that trigger a new state even earlier.
MAX_LOG_SIZE: Final = 32 << 20
# Maximum size of a state that is read, in bytes.
MAX_STATE: Final = 1 << 30
# Kinds of entries: a chunk of the tracer's ring, whose records have this layout, and events of
# another source. Audit records use their types, which are lower.
RING: Final = 1 << 31 | records.LAYOUT >> 1
EVENTS: Final = 1 << 30 | event_log.LAYOUT >> 2
_NO_RECORD: Final = 1 << 30

# A batch of entries: their number, all kinds, all sizes, the data.
_WORD: Final = 4
_NUMBER: Final = struct.Struct("=Q")
_CHECKED: Final = struct.Struct("=QI")  # number, CRC-32 of the rest
_LOGS: Final = ("log.0", "log.1")  # of even and of odd numbers
_STATE: Final = "state"
_READING: Final = "kernel"
_LOSSES: Final = "losses"
_BATCH: Final = "last-batch"
_COUNTER: Final = struct.Struct("=QQ")

Entry = tuple[int, bytes]


def is_record(entry: Entry) -> bool:
    """Return whether the entry is an audit record."""
    return USER <= entry[0] < _NO_RECORD


def _is_known(kind: int) -> bool:
    return kind in (RING, EVENTS) or USER <= kind < _NO_RECORD


class KernelReading(NamedTuple):
    """A reading of the kernel's audit status: the records ``lost`` by ``time`` (ns since boot)."""

    lost: int
    time: int


class _Log(NamedTuple):
    """A log's content: ``whole`` bytes of complete batches, and a ``cut`` batch at its end."""

    number: int
    whole: int
    entries: list[Entry]
    cut: list[Entry]

    @classmethod
    def of(cls, number: int, data: bytes, offset: int) -> _Log:
        """Parse the data from ``offset`` on."""
        entries: list[Entry] = []
        while offset + _WORD <= len(data):
            (count,) = array("I", data[offset : offset + _WORD])
            end = offset + _WORD * (1 + 2 * count)
            if end > len(data):
                break
            numbers = array("I", data[offset + _WORD : end])
            batch = []
            for kind, size in zip(numbers[:count], numbers[count:], strict=True):
                if end + size <= len(data):
                    batch.append((kind, data[end : end + size]))
                end += size
            if end > len(data):
                return cls(number, offset, entries, batch)
            entries += batch
            offset = end
        return cls(number, offset, entries, [])


class WriteAheadLog:
    """The state and the log.

    ``state`` is the saved state of an earlier run of this boot, None if it is missing or unusable;
    ``entries`` are that run's later input, in order; ``kernel_reading`` is its last reading of the
    kernel's status, ``losses`` those that it may not have written. ``unfinished`` says that there
    was such a run and that it was not stopped properly. ``problem`` describes a failure.
    """

    def __init__(self, directory: Path, boot: str, layout: str, now: float) -> None:
        """Read the files, and continue after their content.

        Records are valid within one ``boot``; a state also requires the same ``layout``. ``now`` is
        in seconds of a monotonic clock. Raises OutputError if the files can't be opened.
        """
        self.problem = ""
        self.size = 0
        self._directory = directory
        self._log_head = f"sessiond batches {boot}\n".encode()
        self._state_head = f"sessiond state {boot} {layout}\n".encode()
        self._due = now
        number, self.state = self._read_state()
        logs = sorted(log for log in map(self._read_log, _LOGS) if log is not None)
        if self.state is not None:
            logs = [log for log in logs if log.number == number]
        self.entries: list[Entry] = [entry for log in logs for entry in (*log.entries, *log.cut)]
        known = [entry for entry in self.entries if _is_known(entry[0])]
        if len(known) < len(self.entries):
            self.problem = "events of a process source of another version can't be read"
            self.entries = known
        self.unfinished = bool(logs) or self.state is not None
        self._reading_head = f"sessiond look {boot}\n".encode()
        self.kernel_reading = self._read_kernel_reading()
        self._losses_head = f"sessiond losses {boot}\n".encode()
        losses = self._read(_LOSSES)
        ours = losses.startswith(self._losses_head)
        self.losses = losses.removeprefix(self._losses_head) if ours else b""
        self._number = logs[-1].number if logs else number
        self._logs = [_open(directory, name) for name in _LOGS]
        # The batch being read, in case of a kill before it is added: recvmmsg(2) writes into this
        # file as shared memory.
        file = _open(directory, _BATCH)
        os.ftruncate(file, MEMORY)
        self.memory = mmap.mmap(file, MEMORY)
        os.close(file)
        self._reading_file = _open(directory, _READING, append=False)
        self._files = {name: _inode(directory / name) for name in (*_LOGS, _BATCH, _READING)}
        if not logs:
            self._empty(self._number)
            return
        # Continue the log: its content has not been processed yet.
        self.size = logs[-1].whole
        os.ftruncate(self._logs[self._number % 2], self.size)
        self.add(logs[-1].cut)
        last = self._missing(last_batch(self.memory))
        self.add(last)
        self.entries += last

    def _missing(self, batch: list[Entry]) -> list[Entry]:
        """Return the part of the last batch that was not added to the log."""
        batch = [entry for entry in batch if entry[0] >= USER and entry[0] != REPLACE]
        records = [entry for entry in self.entries if is_record(entry)]
        for number in range(len(batch), 0, -1):
            if records[-number:] == batch[:number]:
                return batch[number:]
        return batch

    def _read_state(self) -> tuple[int, bytes | None]:
        data = self._read(_STATE)
        if not data:
            return 0, None
        head = len(self._state_head) + _CHECKED.size
        if not data.startswith(self._state_head) or len(data) < head:
            self.problem = f"{self._directory / _STATE} is of another boot or version"
            return 0, None
        number, checksum = _CHECKED.unpack_from(data, len(self._state_head))
        if zlib.crc32(data[head:]) != checksum:
            self.problem = f"{self._directory / _STATE} is damaged"
            return 0, None
        return number, data[head:]

    def _read_kernel_reading(self) -> KernelReading | None:
        data, head = self._read(_READING), self._reading_head
        if not data.startswith(head) or len(data) != len(head) + _COUNTER.size:
            return None
        return KernelReading(*_COUNTER.unpack_from(data, len(head)))

    def _read_log(self, name: str) -> _Log | None:
        data = self._read(name)
        head = len(self._log_head) + _NUMBER.size
        if not data:
            return None
        if not data.startswith(self._log_head) or len(data) < head:
            self.problem = f"{self._directory / name} is of another boot, or damaged"
            return None
        (number,) = _NUMBER.unpack_from(data, len(self._log_head))
        return _Log.of(number, data, head)

    def _read(self, name: str) -> bytes:
        try:
            return read_file(self._directory / name, MAX_STATE)
        except FileNotFoundError:
            pass
        except (OSError, OutputError) as error:
            self.problem = str(error)
        return b""

    def check(self) -> None:
        """Note it as a problem if another process has deleted or replaced a file. Never raises."""
        gone = [name for name, was in self._files.items() if _inode(self._directory / name) != was]
        if gone:
            self.problem = (
                f"another process has taken {', '.join(gone)} from {self._directory}: "
                "a kill loses or repeats events until the next start"
            )

    def due(self, now: float) -> bool:
        """Return whether a new state is due; never before any input was read."""
        anything = self.size > len(self._log_head) + _NUMBER.size
        return anything and (now >= self._due or self.full)

    @property
    def full(self) -> bool:
        """Whether the log's size requires a new state."""
        return self.size > MAX_LOG_SIZE

    @property
    def overfull(self) -> bool:
        """Whether a new state is required even with unwritten lines, to bound the log."""
        return self.size > 4 * MAX_LOG_SIZE

    def begin(self, state: bytes, took: float, now: float) -> None:
        """Save this state, which took ``took`` seconds to make, and empty the log.

        All lines of the input must be written. ``now`` is as for ``due``. Never raises.
        """
        self._due = now + max(PERIOD, took / SHARE)
        number = self._number + 1
        try:
            self._empty(number)
            # The entry is in the current log; from now on it is in the state.
            forget_batch(self.memory)
            head = self._state_head + _CHECKED.pack(number, zlib.crc32(state))
            replace_file(self._directory / _STATE, head, state, mode=0o600)
            os.ftruncate(self._logs[self._number % 2], 0)
        except (OSError, OutputError) as error:
            self.problem = f"the state can't be written: {error}"
        else:
            self._number = number

    def _empty(self, number: int) -> None:
        log = self._logs[number % 2]
        os.ftruncate(log, 0)
        self.size = os.write(log, self._log_head + _NUMBER.pack(number))

    def add(self, entries: Sequence[Entry]) -> None:
        """Append new input. Never raises."""
        if not entries:
            return
        kinds, texts = zip(*entries, strict=True)
        numbers = array("I", (len(entries), *kinds, *map(len, texts)))
        try:
            self.size += os.write(
                self._logs[self._number % 2], b"".join((numbers.tobytes(), *texts))
            )
        except OSError as error:
            self.problem = f"the log of what is read can't be written: {error.strerror}"

    def save_reading(self, reading: KernelReading) -> None:
        """Save the last reading of the kernel's status. Never raises."""
        data = self._reading_head + _COUNTER.pack(*reading)
        with contextlib.suppress(OSError):  # ``add`` reports a full file system
            os.pwrite(self._reading_file, data, 0)

    def keep_losses(self, losses: bytes) -> None:
        """Save losses that may not have been written, for ``losses`` of the next run."""
        if losses != self.losses:
            self.losses = losses
            try:
                replace_file(self._directory / _LOSSES, self._losses_head + losses, mode=0o600)
            except (OSError, OutputError) as error:
                self.problem = f"losses can't be kept: {error}"

    def clear(self) -> None:
        """Delete everything: the next run starts from scratch."""
        self.memory[:] = bytes(MEMORY)
        for log in (*self._logs, self._reading_file):
            with contextlib.suppress(OSError):
                os.ftruncate(log, 0)
        for name in (_STATE, _LOSSES):
            with contextlib.suppress(OSError):
                (self._directory / name).unlink()

    def close(self) -> None:
        """Close the files and keep their content."""
        for log in (*self._logs, self._reading_file):
            os.close(log)
        with contextlib.suppress(BufferError):  # a reader of the audit socket still has views of it
            self.memory.close()


def _inode(path: Path) -> tuple[int, int] | None:
    """Return what identifies the file of that name; None without one."""
    try:
        facts = path.lstat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _open(directory: Path, name: str, *, append: bool = True) -> int:
    opened = open_directory(str(directory), trusted=trusted_users())
    try:
        file, _ = open_file(
            name,
            os.O_RDWR | (os.O_APPEND if append else 0),
            directory=opened,
            path=str(directory / name),
            mode=0o600,
            trusted=trusted_users(),
        )
    finally:
        os.close(opened)
    return file
