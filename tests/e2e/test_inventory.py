"""The inventory on the real kernel: older processes are written once, and first."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from support.daemon import Daemon, Document, value
from support.stream import malformed
from support.truth import until

from sessiond.sources.procfs.reader import Procfs

pytestmark = pytest.mark.kernel

INTRODUCTIONS = ("already_running", "fork", "exec")


@contextmanager
def sleepers(number: int) -> Iterator[set[int]]:
    """Start that many processes, which live until the end."""
    processes = [subprocess.Popen(["/bin/sleep", "600"]) for _ in range(number)]
    try:
        yield {process.pid for process in processes}
    finally:
        for process in processes:
            process.kill()
            process.wait()


def told(daemon: Daemon) -> list[Document]:
    """Return the inventory so far."""
    return daemon.find(event__action="already_running")


def pids(documents: list[Document]) -> set[int]:
    """Check that the inventory has their processes, each once."""
    found = [each["process"]["entity_id"] for each in documents]
    assert len(set(found)) == len(found)
    return {each["process"]["pid"] for each in documents}


def test_each_older_process_is_written_once(make_daemon: Callable[..., Daemon]) -> None:
    """Each has its current attributes, in at most 1.5 KB on average, without kernel threads."""
    with sleepers(30) as mine:
        before = [each for each in Procfs().snapshot() if not each.facts.kernel_thread]
        daemon = make_daemon().start()
        until(lambda: mine <= pids(told(daemon)), 10, "the inventory")
        lasting = {each.facts.pid for each in before} & {
            each.facts.pid for each in Procfs().snapshot()
        }
        until(lambda: lasting <= pids(told(daemon)), 10, "all that ran before")
        documents = told(daemon)
        (sleeper,) = [each for each in documents if each["process"]["pid"] == min(mine)]
        assert sleeper["process"]["args"] == ["/bin/sleep", "600"]
        assert sleeper["process"]["parent"]["name"]
        assert not [each for each in documents if each["process"].get("name") == "kthreadd"]
        assert malformed(daemon) == []
        # Other processes of this host may have arguments of any length.
        lines = [
            line
            for line in daemon.output.read_bytes().splitlines()
            if b'"already_running"' in line and b'"/bin/sleep","600"' in line
        ]
        assert sum(map(len, lines)) / len(lines) <= 1536


def test_a_restart_writes_only_new_processes(
    make_daemon: Callable[..., Daemon],
) -> None:
    """A crash keeps the state: written processes are not written again."""
    daemon = make_daemon().start()
    until(lambda: len(told(daemon)) > 5, 10, "the inventory")
    time.sleep(1)
    first = pids(told(daemon))
    with sleepers(1) as mine:
        until(lambda: daemon.find(event__action="exec", process__pid=min(mine)), 10, "its exec")
        executed, state = time.time(), daemon.directory / "run" / "state"
        until(lambda: state.exists() and state.stat().st_mtime > executed, 30, "a saved state")
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.wait()
        with sleepers(3) as missed:
            daemon.start()
            until(lambda: missed <= {each["process"]["pid"] for each in _new(daemon)}, 15, "them")
            again = pids(told(daemon)) - first
            assert not again & mine


def _new(daemon: Daemon) -> list[Document]:
    return [each for each in daemon.documents() if each["event"]["action"] in INTRODUCTIONS]


RELATIVES = ("parent", "group_leader", "session_leader", "entry_leader")


def test_a_start_in_a_storm_introduces_each_process_first(
    make_daemon: Callable[..., Daemon],
) -> None:
    """Each process is written exactly once, before any line that mentions it."""
    script = "i=0; while :; do i=$((i+1)); /bin/true $0 $i; (/bin/true; /bin/true); done"
    spawners = [
        subprocess.Popen(["/bin/sh", "-c", script, f"spawner-{number}"]) for number in range(2)
    ]
    try:
        daemon = make_daemon().start()
        ready = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        time.sleep(3)
        until(
            lambda: all(len(_counted(daemon, each.pid, ready)) > 60 for each in spawners),
            30,
            "execs of both spawners",
        )
        living = {each.facts.pid for each in Procfs().snapshot() if not each.facts.kernel_thread}
    finally:
        for spawner in spawners:
            spawner.kill()
            spawner.wait()
    documents = daemon.settle()
    introduced: dict[str, list[str]] = {}
    strange = []
    for each in documents:
        action, process = each["event"]["action"], each.get("process", {})
        if "entity_id" not in process:
            continue
        for name in RELATIVES:
            relative = process.get(name, {})
            # A process that ended before the start of the daemon has no start and no line.
            known = "start" not in relative or relative["entity_id"] in introduced
            if not known and relative["entity_id"] != process["entity_id"]:
                strange.append((action, process["pid"], name, relative["pid"]))
        seen = introduced.setdefault(process["entity_id"], [])
        if action == "already_running":
            assert seen == [], process
        if action in INTRODUCTIONS:
            seen.append(action)
        elif not seen:
            strange.append((action, process["pid"], process.get("name"), None))
    assert strange == []
    for once in ("already_running", "fork"):
        assert all(seen.count(once) <= 1 for seen in introduced.values())
    still = {each.facts.pid for each in Procfs().snapshot()} & living
    assert not still - {each["process"]["pid"] for each in documents if "pid" in each["process"]}
    for spawner in spawners:
        counted = _counted(daemon, spawner.pid, ready)
        assert len(counted) > 50
        assert counted == list(range(counted[0], counted[0] + len(counted)))


def _counted(daemon: Daemon, spawner: int, ready: str) -> list[int]:
    """Return the numbers that a spawner passed to its children, in the order of their execs."""
    return [
        int(each["process"]["args"][2])
        for each in sorted(daemon.documents(), key=lambda each: str(each["@timestamp"]))
        if each["event"]["action"] == "exec"
        and each["@timestamp"] > ready
        and value(each, "process.parent.pid") == spawner
        and len(each["process"]["args"]) == 3
    ]


@pytest.mark.parametrize("backend", ["proc_connector", "procfs"])
def test_other_sources_write_only_older_processes(
    make_daemon: Callable[..., Daemon], backend: str
) -> None:
    """A new process is introduced by its exec, even if it has to be looked up for that."""
    with sleepers(3) as older:
        daemon = make_daemon({"session_metadata": {"backend": backend}}).start()
        until(lambda: older <= pids(told(daemon)), 10, "the inventory")
        with sleepers(3) as newer:
            execs = {"event__action": "exec", "process__executable": "/usr/bin/sleep"}
            until(
                lambda: newer <= {each["process"]["pid"] for each in daemon.find(**execs)},
                10,
                "their execs",
            )
            time.sleep(1)
            assert not newer & pids(told(daemon))
