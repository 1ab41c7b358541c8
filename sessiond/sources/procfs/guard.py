"""Reads procfs through a helper process, so that no process can block the reader.

A process can delay reads of its memory: if its arguments are in a FUSE mapping, /proc/PID/cmdline
and environ block as long as it likes, and no signal ends the wait. A helper process (worker.py)
therefore reads them. If the helper does not answer in time, it is abandoned and replaced, and only
kernel data of the process is read. The same applies to the user's other processes for a while, and
as long as the abandoned helper waits, because each could cause the same delay: no user can keep
more than one helper.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

import sessiond
from sessiond.process.events import Observed
from sessiond.process.user import User, user_of
from sessiond.sources.procfs.reader import Procfs
from sessiond.sources.procfs.worker import MAX_MESSAGE, READY, Answer, Request

ANSWER_TIMEOUT: Final = 0.5  # seconds for one process
START_TIMEOUT: Final = 10.0  # seconds until a helper is ready: a busy host starts slowly
DISTRUST_PERIOD: Final = 60.0  # seconds without reads that could block, for a user's processes
END_TIMEOUT: Final = 0.2  # seconds for an idle helper to exit
MAX_LEFT_BEHIND: Final = 4
_BATCH: Final = 128


class _Distrust(NamedTuple):
    """Why a user's processes are read without what could block."""

    until: float  # monotonic seconds
    helper: subprocess.Popen[bytes]


class GuardedProcfs(Procfs):
    """The processes in a procfs mounted at ``root``; no process can block a call.

    ``unreadable`` counts the processes that could not be read within ``timeout`` seconds.
    """

    def __init__(self, root: Path = Path("/proc"), *, timeout: float = ANSWER_TIMEOUT) -> None:
        """Start without a helper."""
        super().__init__(root)
        self._mounted_at = root
        self._light = Procfs(root, memory=False)
        self._timeout = timeout
        self._worker: _Worker | None = None
        self._left_behind: list[subprocess.Popen[bytes]] = []
        self._distrusted: dict[User, _Distrust] = {}
        self.unreadable = 0
        # The exec of a helper may wait for room in audit's backlog, which this process must read.
        # A thread therefore starts helpers while the daemon reads.
        self.waits_for_helpers = True
        self._starting: threading.Thread | None = None

    @property
    def left_behind(self) -> int:
        """The number of abandoned helpers that are still blocked."""
        self._left_behind = [worker for worker in self._left_behind if worker.poll() is None]
        return len(self._left_behind)

    def prepare(self) -> None:
        """Start a helper, which initialises itself in parallel."""
        if self._worker is None:
            self._start()

    def begin(self) -> None:
        """Make sure that a helper runs; from now on start helpers in the background."""
        self.lookup(os.getpid())
        self.waits_for_helpers = False

    def snapshot(self) -> list[Observed]:
        """Return every process except zombies, whose ends have been reported."""
        seen = self._observe_all(self.pids(), zombies=False)
        return [observed for observed in seen if observed is not None]

    def lookup(self, pid: int) -> Observed | None:
        """Return the process with the pid; None if there is none, or for a thread's id."""
        return self._observe_all([pid], zombies=True)[0]

    def lookup_all(self, pids: list[int]) -> list[Observed | None]:
        """Return the process of each pid, as by ``lookup``."""
        return self._observe_all(pids, zombies=True)

    def close(self) -> None:
        """End the helper."""
        if self._worker is not None:
            process = self._abandon()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_TIMEOUT)

    def _start(self) -> None:
        if self.waits_for_helpers:
            self._worker = _Worker(self._mounted_at, self._args_limit)
        elif self._starting is None or not self._starting.is_alive():
            self._starting = threading.Thread(target=self._start_apart, daemon=True)
            self._starting.start()

    def _start_apart(self) -> None:
        worker = _Worker(self._mounted_at, self._args_limit)
        try:
            worker.wait_until_ready()
        except OSError:
            self._left_behind.append(worker.abandon())
        else:
            self._worker = worker

    def _abandon(self) -> subprocess.Popen[bytes]:
        assert self._worker is not None  # noqa: S101 -- narrows the type
        process = self._worker.abandon()
        self._left_behind.append(process)
        self._worker = None
        return process

    def _observe_all(self, pids: list[int], *, zombies: bool) -> list[Observed | None]:
        found: list[Observed | None] = []
        while len(found) < len(pids):
            rest = pids[len(found) : len(found) + _BATCH]
            light = self._lightly(rest[0], zombies=zombies)
            if light is not None:
                found.append(light)
                continue
            if self._distrusted:
                rest = rest[:1]  # the next one may belong to a distrusted user
            found += self._ask(rest, zombies=zombies)
        return found

    def _lightly(self, pid: int, *, zombies: bool) -> Observed | None:
        """Read only non-blocking data, for processes of a distrusted user; None for others."""
        if not self._distrusted and self._may_start():
            return None
        observed = self._light.observe(pid, zombies=zombies)
        if observed is None or not self._may_start():
            return observed
        user = user_of(observed.facts, observed.cgroup)
        distrust = self._distrusted.get(user)
        if distrust is None:
            return None
        if distrust.until > time.monotonic() or distrust.helper.poll() is None:
            return observed
        del self._distrusted[user]
        return None

    def _may_start(self) -> bool:
        return self._worker is not None or self.left_behind < MAX_LEFT_BEHIND

    def _ask(self, pids: list[int], *, zombies: bool) -> list[Observed | None]:
        """Read processes by the helper; returns fewer than requested if one of them blocks."""
        if self._worker is None and self._may_start():
            self._start()
        if self._worker is None:
            return [self._light.observe(pids[0], zombies=zombies)]
        worker = self._worker
        found: list[Observed | None] = []
        try:
            worker.ask(Request(zombies, pids))
            for _ in pids:
                answer = worker.answer(self._timeout)
                self.denied += answer.denied
                self.malformed += answer.malformed
                found.append(answer.observed)
        except TimeoutError:
            helper = self._abandon()
            self.unreadable += 1
            observed = self._light.observe(pids[len(found)], zombies=zombies)
            if observed is not None:
                user = user_of(observed.facts, observed.cgroup)
                until = time.monotonic() + DISTRUST_PERIOD
                self._distrusted[user] = _Distrust(until, helper)
            found.append(observed)
        except (OSError, msgspec.DecodeError):
            # Another process has killed it.
            self.close()
            if not found and worker.answered:
                return []
            found.append(self._light.observe(pids[len(found)], zombies=zombies))
        return found


def _places() -> list[str]:
    """Return the directories of the packages that the helper imports."""
    files = (sessiond.__file__, msgspec.__file__)
    return list(dict.fromkeys(str(Path(file).parent.parent) for file in files))


class _Worker:
    """A helper process, and the daemon's end of the socket pair."""

    def __init__(self, root: Path, args_limit: int) -> None:
        self.is_new = True
        self.answered = False
        self._decoder = msgspec.msgpack.Decoder(Answer)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Without the module site, which imports what other packages ask it to.
        command = [sys.executable, "-P", "-S", "-m", "sessiond.sources.procfs.worker"]
        command += [str(theirs.fileno()), str(root), str(args_limit)]
        with theirs:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(_places())},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C must reach only the daemon, which then ends the helper
            )

    def wait_until_ready(self) -> None:
        self._channel.settimeout(START_TIMEOUT)
        if self.is_new and self._channel.recv(MAX_MESSAGE) != READY:
            raise ConnectionResetError
        self.is_new = False

    def ask(self, request: Request) -> None:
        self.wait_until_ready()
        self._channel.send(msgspec.msgpack.encode(request))

    def answer(self, timeout: float) -> Answer:
        """Return the next answer. Raises TimeoutError, and OSError when the helper has ended."""
        self._channel.settimeout(timeout)
        data = self._channel.recv(MAX_MESSAGE)
        if not data:
            raise ConnectionResetError
        self.answered = True
        return self._decoder.decode(data)

    def abandon(self) -> subprocess.Popen[bytes]:
        """Kill it without waiting: even SIGKILL does not end a blocked read."""
        self._channel.close()
        self._process.kill()
        return self._process
