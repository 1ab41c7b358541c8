"""The process generator's records agree with the shell and procfs."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from support.truth import WAYS, Truth, ends, images, read


@pytest.mark.parametrize("way", WAYS)
def test_every_way_leaves_its_traces(truth: Truth, way: str) -> None:
    """Each kind of spawn records its processes, with the run's token in their arguments."""
    told = truth.run(way, 2)
    assert told
    assert all(one.token.startswith(f"{way}-") for one in told if one.event == "exec" and one.argv)
    assert all(one.start > 0 and one.pid > 0 for one in told)


def test_spawned_processes_have_their_maker_as_parent(truth: Truth) -> None:
    """Twenty processes have one image and one end each, and the same parent."""
    told = truth.run("spawn", 20)
    assert Counter(one.event for one in told) == {"exec": 20, "end": 20}
    assert len({one.token for one in images(told)}) == 20
    assert len({one.ppid for one in images(told)}) == 1
    assert {(one.pid, one.start) for one in images(told)} == {
        (one.pid, one.start) for one in ends(told)
    }


def test_start_is_now(truth: Truth) -> None:
    """The start is in clock ticks since boot."""
    ticks = os.sysconf("SC_CLK_TCK")
    before = int(time.clock_gettime(time.CLOCK_BOOTTIME) * ticks)
    told = truth.run("spawn")
    after = time.clock_gettime(time.CLOCK_BOOTTIME) * ticks
    assert before <= told[0].start <= after


def test_a_chain_is_one_process_with_four_images(truth: Truth) -> None:
    """Execs in a row have one pid and one start, and arguments of their own."""
    told = images(truth.run("chain"))
    assert len({(one.pid, one.start) for one in told}) == 1
    assert [one.argv[2] for one in told] == [b"again:3", b"again:2", b"again:1", b"leave:6"]


def test_exec_in_a_thread_keeps_the_pid(truth: Truth) -> None:
    """The thread that executes a program takes over the pid of its process."""
    first, second = images(truth.run("thread"))
    assert (first.pid, first.start) == (second.pid, second.start)


def test_exit_codes_and_signals(truth: Truth) -> None:
    """Wait statuses are written as exit codes like a shell's."""
    assert [one.exit_code for one in ends(truth.run("code", 3))] == [0, 1, 2]
    killed = ends(truth.run("signal", 2))
    assert [one.status for one in killed] == [signal.SIGKILL, signal.SIGTERM]
    assert [one.exit_code for one in killed] == [137, 143]
    assert [one.exit_code for one in ends(truth.run("last_thread"))] == [5]


def test_a_daemon_leads_nothing_and_belongs_to_another(truth: Truth) -> None:
    """The double fork's grandchild is in the session of the child that has ended."""
    told = truth.run("daemon")
    leader = next(one for one in told if one.event == "setsid")
    (grandchild,) = images(told)
    assert leader.pid == leader.sid == grandchild.sid != grandchild.pid
    assert grandchild.ppid != leader.ppid  # it is the leader's pid while that one still ends


def test_an_orphan_executes_after_its_parent_ended(truth: Truth) -> None:
    """The process that forked it is no longer its parent."""
    told = truth.run("orphan")
    (forker,) = (one for one in told if one.event == "fork")
    (orphan,) = images(told)
    assert orphan.ppid != forker.pid


def test_a_subreaper_adopts(truth: Truth) -> None:
    """The orphan's parent is the subreaper, not init."""
    reaper, adopted = images(truth.run("subreaper"))
    assert adopted.ppid == reaper.pid


def test_a_session_and_a_group_are_led(truth: Truth) -> None:
    """setsid and setpgid change the ids of the process."""
    before, after = truth.run("setsid")[:2]
    assert before.sid != before.pid
    assert (after.event, after.sid, after.pgid) == ("setsid", after.pid, after.pid)
    before, after = images(truth.run("pgid"))
    assert (after.pgid, after.sid) == (after.pid, before.sid)


def test_arguments_of_any_bytes(truth: Truth) -> None:
    """Arguments are exact to the byte, including empty and invalid ones."""
    (odd,) = images(truth.run("arguments"))
    assert odd.argv[3] == b""
    assert {b"3005", b"\x80\xff", b"line\nbreak", b"\xed\xa0\x80"} < set(odd.argv)
    big, many = images(truth.run("long", 2))
    assert len(big.argv) == len(many.argv) == 604
    assert max(map(len, big.argv)) == 19999


def test_a_failed_exec_leaves_no_image(truth: Truth) -> None:
    """A failed exec leaves no program; the process exits with its own status."""
    told = truth.run("failed")
    assert not images(told)
    assert [one.exit_code for one in ends(told)] == [127]


def test_a_memory_file_is_executed(truth: Truth) -> None:
    """After fexecve of a memfd the executable has no path in the file system."""
    (image,) = images(truth.run("memfd"))
    assert image.exe.startswith(b"/memfd:truth")


@pytest.mark.kernel
def test_a_pid_is_used_twice(truth: Truth) -> None:
    """Two processes, one right after the other, have the same pid."""
    first, second = images(truth.run("reuse"))
    assert first.pid == second.pid
    assert [one.exit_code for one in ends(read(_last(truth)))] == [11, 22]


def test_the_rate_is_kept(truth: Truth) -> None:
    """Twenty processes at a hundred a second take two tenths of a second."""
    begin = time.monotonic()
    truth.run("spawn", 20, rate=100)
    assert 0.19 <= time.monotonic() - begin < 5


def _last(truth: Truth) -> Path:
    return max(truth.directory.glob("run-*.json"), key=lambda path: path.stat().st_mtime_ns)
