"""Real entries, as procfs shows them: the rules, the reader and the table together."""

from __future__ import annotations

import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.containers import Runc
from support.logins import Sshd

from sessiond.process import container
from sessiond.process.table import ITSELF, Process, ProcessTable, Relative
from sessiond.sources.procfs.reader import Procfs

pytestmark = pytest.mark.kernel


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """Run a command for the duration of the block."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def find(wanted: Callable[[Process], bool]) -> Process:
    """Take snapshots into new tables until a process is present."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        table = ProcessTable(lambda pid, start: f"{pid}@{start}")
        for process in table.snapshot(Procfs().snapshot()):
            if wanted(process):
                return process
        time.sleep(0.05)
    pytest.fail("the process never came")


def executes(*args: str) -> Callable[[Process], bool]:
    """Return a predicate for a process with this argv."""
    return lambda process: process.state.program.argv == tuple(each.encode() for each in args)


def entry_of(process: Process) -> Process:
    leader: Relative = process.state.entry_leader
    if leader is ITSELF:
        return process
    assert isinstance(leader, Process)
    return leader


@pytest.mark.parametrize("terminal", [True, False])
def test_an_ssh_login_says_where_it_came_from(sshd: Sshd, terminal: bool) -> None:
    """The login shell is the entry leader, by sshd, from the client's address."""
    # It ends with the client: by a hangup with a terminal, at the end of the input without one.
    token = f"/{uuid.uuid4()}"
    command = f"cat - {token}; true"
    with running(sshd.command(command, terminal=terminal)):
        cat = find(executes("cat", "-", token))
    entry = entry_of(cat)
    assert entry.entry_type == "sshd"
    assert entry.entry_source == "127.0.0.1"
    assert entry.state.program.args is not None
    assert entry.state.program.argv[1:] == (b"-c", command.encode())
    assert cat.creator is entry
    assert (entry.state.facts.tty_major == 136) == terminal


def test_a_containers_first_process_came_in_by_the_container(runc: Runc) -> None:
    """Its id is in the path of its cgroup, and its inner pid is 1."""
    ids: list[str] = []
    run = threading.Thread(target=lambda: ids.append(runc.run("/bin/sleep", "3.14")))
    run.start()
    try:
        sleep = find(executes("/bin/sleep", "3.14"))
    finally:
        run.join()
    assert entry_of(sleep) is sleep
    assert sleep.entry_type == "container"
    assert sleep.state.facts.vpid == 1
    assert sleep.cgroup is not None
    found = container.identify(sleep.cgroup)
    assert found is not None
    assert [found.id] == ids
