"""The wall clock of the host is set while the daemon runs, and between two runs.

The tests set the real clock by a few seconds, and restore it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from support.daemon import Daemon, Document, value
from support.stream import agree, inconsistent, malformed, nanoseconds
from support.truth import until

from sessiond.system.clock import boot_id, measure_offset
from sessiond.system.clock_file import ClockFile
from sessiond.units import SECOND

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]

STEP = 3_000_000_000

# Begins sessions one after the other until a signal stops it, and prints their number.
SESSIONS = """
import os, select, sys
number = 0
while not select.select([0], [], [], 0)[0]:
    pid = os.fork()
    if not pid:
        os.setsid()
        os._exit(7)
    os.waitpid(pid, 0)
    number += 1
print(number)
"""


def step(by: int) -> None:
    time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns() + by)


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Restore the clock in any case."""
    offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    try:
        yield
    finally:
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        time.clock_settime_ns(time.CLOCK_REALTIME, boot + offset)


def changes(documents: list[Document]) -> list[int]:
    """Return the seconds by which the clock was set, according to the stream."""
    return [
        round(value(each, "sessiond.clock.step"))
        for each in documents
        if each["event"]["action"] == "sessiond-clock-changed"
    ]


def execute_true() -> tuple[int, range]:
    """Run a program; return its pid, and the wall clock's ns in which it was executed."""
    before = time.time_ns()
    with subprocess.Popen(["/bin/true"]) as process:
        pass
    return process.pid, range(before - SECOND, time.time_ns() + SECOND)


def test_dates_follow_the_clock(daemon: Daemon) -> None:
    """A step forward and back is reported soon; written dates of a process stay."""
    with restored(), subprocess.Popen(["/bin/sleep", "60"]) as sleeper:
        started = daemon.await_one(event__action="exec", process__pid=sleeper.pid)
        for by, seen in ((STEP, [3]), (-STEP, [3, -3])):
            step(by)
            until(lambda seen=seen: changes(daemon.documents()) == seen, 5, "the event of the step")
            pid, when = execute_true()
            line = daemon.await_one(5, event__action="exec", process__pid=pid)
            assert nanoseconds(line["@timestamp"]) in when
            assert nanoseconds(line["process"]["start"]) <= nanoseconds(line["@timestamp"])
        sleeper.kill()
        sleeper.wait()
        end = daemon.await_one(5, event__action="end", process__pid=sleeper.pid)
        assert end["process"]["start"] == started["process"]["start"]
        assert end["process"]["entity_id"] == started["process"]["entity_id"]
    daemon.settle()
    agree(malformed(daemon))


def test_no_session_is_doubled_or_lost_around_a_step(daemon: Daemon) -> None:
    """Audit's stamps follow the clock that is set, the tracer's times follow one that never is."""
    with (
        restored(),
        subprocess.Popen(
            [sys.executable, "-c", SESSIONS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as sessions,
    ):
        for by in (STEP, -STEP, STEP):
            time.sleep(0.7)
            step(by)
        time.sleep(0.7)
        output, _ = sessions.communicate(b"\n")
        number = int(output)
        documents = daemon.settle()
    unenriched = [
        each
        for each in documents
        if value(each, "process.parent.pid") == sessions.pid
        and value(each, "process.entity_id") is None
    ]
    assert unenriched == []
    told = Counter(
        (each["process"]["entity_id"], each["event"]["action"])
        for each in documents
        if value(each, "process.parent.pid") == sessions.pid
    )
    assert set(told.values()) == {1}
    actions = Counter(action for _, action in told)
    assert (actions["setsid"], actions["end"]) == (number, number)
    codes = {
        value(each, "process.exit_code")
        for each in documents
        if each["event"]["action"] == "end" and value(each, "process.parent.pid") == sessions.pid
    }
    assert codes == {7}
    joined = [
        each["event"]["provider"]
        for each in documents
        if each["event"]["action"] == "setsid" and value(each, "process.parent.pid") == sessions.pid
    ]
    assert joined.count(["auditd", "ebpf"]) > 0.9 * number


def test_a_wrong_time_of_boot_is_put_right_at_the_start(make_daemon: MakeDaemon) -> None:
    """An earlier run with a wrong clock has left its offset in the runtime directory."""
    daemon = make_daemon()
    path = daemon.directory / "run/boot_time"
    path.parent.mkdir(parents=True)
    ClockFile(path, boot_id()).write([(0, 0, measure_offset() - 3600 * SECOND)])
    daemon.start()
    pid, when = execute_true()
    line = daemon.await_one(5, event__action="exec", process__pid=pid)
    assert nanoseconds(line["@timestamp"]) in when
    assert changes(daemon.documents()) == [3600]
    agree(inconsistent(daemon.documents()))
