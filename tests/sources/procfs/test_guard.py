"""No process blocks the reader of /proc; a pipe without a writer stands for its memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sources.procfs.test_reader import STATUS, Tree
from support.truth import until

from sessiond.sources.procfs import guard
from sessiond.sources.procfs.guard import MAX_LEFT_BEHIND, GuardedProcfs
from sessiond.sources.procfs.reader import Procfs


def status_text(pid: int, uid: int) -> bytes:
    return (STATUS % {b"tgid": pid}).replace(b"Uid:\t1000", b"Uid:\t%d" % uid)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def procfs(tree: Tree) -> Iterator[GuardedProcfs]:
    with closing(GuardedProcfs(tree.root, timeout=0.3)) as guarded:
        yield guarded


def hang(tree: Tree, pid: int, uid: int = 4242) -> None:
    """Make a process whose arguments block their reader."""
    directory = tree.add(pid, {"status": status_text(pid, uid)})
    (directory / "cmdline").unlink()
    os.mkfifo(directory / "cmdline")


def test_a_helper_reads_what_the_reader_itself_would() -> None:
    """A look-up finds this host's processes, and None for ended ones."""
    with closing(GuardedProcfs()) as procfs:
        own = procfs.lookup(os.getpid())
        assert own is not None
        plain = Procfs().lookup(os.getpid())
        assert plain is not None
        assert own._replace(time=0) == plain._replace(time=0)
        assert procfs.lookup(4_000_000) is None
        assert os.getpid() in {each.facts.pid for each in procfs.snapshot()}
    assert procfs.left_behind == 0


def test_a_helper_that_was_prepared_is_the_one_that_reads() -> None:
    """The helper is started once, and ended if it is not needed."""
    with closing(GuardedProcfs()) as procfs:
        procfs.prepare()
        worker = procfs._worker
        assert worker is not None
        procfs.prepare()
        procfs.begin()
        assert procfs._worker is worker
    with closing(GuardedProcfs()) as procfs:
        procfs.prepare()
    assert procfs.left_behind == 0


def test_an_unreadable_process_has_no_arguments(tree: Tree, procfs: GuardedProcfs) -> None:
    """All other processes are read completely, in unchanged time."""
    tree.add(500)
    hang(tree, 501)
    tree.add(502)
    began = time.monotonic()
    seen = {each.facts.pid: each.program for each in procfs.snapshot()}
    assert time.monotonic() - began < 5
    assert [pid for pid, program in seen.items() if program.args is None] == [501]
    assert seen[501].executable == seen[500].executable
    assert procfs.unreadable == 1


def test_a_user_delays_the_reader_once(tree: Tree, procfs: GuardedProcfs) -> None:
    """The memory of the user's other processes is not read, nor that of the same one again."""
    for pid in range(501, 520):
        hang(tree, pid)
    assert len(procfs.snapshot()) == len(procfs.pids())
    assert procfs.lookup(507) is not None
    assert procfs.unreadable == 1


def test_a_user_is_trusted_again(
    tree: Tree, procfs: GuardedProcfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while the arguments of other processes of that user are read."""
    monkeypatch.setattr(guard, "DISTRUST_PERIOD", 0.0)
    hang(tree, 501)
    tree.add(502, {"status": status_text(502, 4242)})
    procfs.lookup(501)
    until(lambda: procfs.left_behind == 0, 5, "the end of the helper")
    again = procfs.lookup(502)
    assert again is not None
    assert again.program.args is not None


def test_a_user_keeps_at_most_one_helper(
    tree: Tree, procfs: GuardedProcfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a helper waits for the user's process, no other one is risked, however long it is."""
    monkeypatch.setattr(guard, "DISTRUST_PERIOD", 0.0)
    with monkeypatch.context() as blocked:
        blocked.setattr("subprocess.Popen.kill", lambda _self: None)
        for pid in (501, 502, 503):
            hang(tree, pid)
            assert procfs.lookup(pid) is not None
        tree.add(504, {"status": status_text(504, 4343)})
        other = procfs.lookup(504)
    assert (procfs.unreadable, procfs.left_behind) == (1, 1)
    assert other is not None
    assert other.program.args is not None
    for process in procfs._left_behind:
        process.kill()
        process.wait()
    assert procfs.lookup(502) is not None
    assert procfs.unreadable == 2


def test_helpers_that_can_not_be_ended_are_few(
    tree: Tree, procfs: GuardedProcfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL does not end a blocked read; with too many, no process's memory is read."""
    monkeypatch.setattr("subprocess.Popen.kill", lambda _self: None)
    for number in range(8):
        hang(tree, 501 + number, uid=5000 + number)
    try:
        assert len(procfs.snapshot()) == len(procfs.pids())
        assert procfs.left_behind == MAX_LEFT_BEHIND
        assert procfs.unreadable == MAX_LEFT_BEHIND
    finally:
        for process in procfs._left_behind:
            process.send_signal(9)
            process.wait()


def test_a_helper_that_was_ended_is_replaced(tree: Tree, procfs: GuardedProcfs) -> None:
    """It does not matter which program ended it."""
    tree.add(500)
    assert procfs.lookup(500) is not None
    assert procfs._worker is not None
    procfs._worker._process.kill()
    procfs._worker._process.wait()
    found = procfs.lookup(500)
    assert found is not None
    assert found.program.args is not None


def test_while_audit_is_read_no_helper_is_waited_for(tree: Tree, procfs: GuardedProcfs) -> None:
    """Its exec may wait for the reader: until it is ready, only non-blocking data is read."""
    tree.add(500)
    procfs.waits_for_helpers = False
    first = procfs.lookup(500)
    assert first is not None
    assert first.program.args is None
    assert procfs._starting is not None
    procfs._starting.join(20)
    later = procfs.lookup(500)
    assert later is not None
    assert later.program.args is not None
