"""``sessiond ps`` on the real kernel: the daemon's table compared with /proc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest
from support.daemon import Daemon
from support.truth import until

from sessiond.cli import ps
from sessiond.pipeline.listing import ListRequest, Row
from sessiond.sources.procfs.reader import Procfs

pytestmark = pytest.mark.kernel


@pytest.fixture
def load() -> Iterator[None]:
    """Two shells that start processes without a pause."""
    script = "while :; do /bin/true; (/bin/true | /bin/cat); setsid -f /bin/true; done"
    spawners = [subprocess.Popen(["/bin/sh", "-c", script]) for _ in range(2)]
    try:
        yield
    finally:
        for spawner in spawners:
            spawner.kill()
            spawner.wait()


def asked(daemon: Daemon, **request: object) -> list[bytes]:
    """Query the daemon like the command does."""
    socket = daemon.directory / "run" / "status.sock"
    return list(ps.listed(socket, ListRequest(**request)))  # type: ignore[arg-type]


def command(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``sessiond ps``."""
    return subprocess.run(
        [sys.executable, "-m", "sessiond", "ps", "-c", daemon.config, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.usefixtures("load")
def test_every_living_process_is_as_proc_shows_it(daemon: Daemon) -> None:
    """No process is missing or superfluous, and each has the attributes that the kernel shows."""
    absent_before: set[tuple[int, str]] = set()
    for _ in range(5):
        before = {(each.facts.pid, each.facts.start): each for each in Procfs().snapshot()}
        objects = {each["pid"]: each for each in map(json.loads, asked(daemon, form="objects"))}
        listed = [msgspec.json.decode(each, type=Row) for each in asked(daemon)]
        after = {(each.facts.pid, each.facts.start): each for each in Procfs().snapshot()}
        pids = [row.pid for row in listed]
        assert len(set(pids)) == len(pids)
        lasting = {
            key: each
            for key, each in before.items()
            if key in after and (each.facts, each.program) == (after[key].facts, after[key].program)
        }
        assert len(lasting) > 20
        rows = {row.pid: row for row in listed}
        for (pid, _), each in lasting.items():
            facts = each.facts
            assert pid in rows, f"{each} is missing"
            row, told = rows[pid], objects[pid]
            assert row.ppid == facts.ppid, each
            assert (row.session or 0) == (facts.sid or 0), each
            assert told["user"]["id"] == str(facts.euid), each
            if facts.pgid and "group_leader" in told:
                assert told["group_leader"]["pid"] == facts.pgid, each
            if each.program.executable is not None:
                assert told["executable"] == os.fsdecode(each.program.executable), each
                if each.program.args and not each.program.args_cut:
                    args = [arg.decode("utf-8", "backslashreplace") for arg in each.program.argv]
                    assert told.get("args") == args, each
        # A process in neither snapshot lived between them; one that stays in the table has ended.
        there = {pid for pid, _ in (*before, *after)}
        absent = {(row.pid, row.start) for row in listed if row.pid not in there}
        assert not absent & absent_before, "told as living, and not in /proc"
        absent_before = absent


def test_the_command_shows_a_process_its_tree_and_its_facts(daemon: Daemon) -> None:
    """It shows a child of the tests as table, tree and JSON, by user and by pid."""
    with subprocess.Popen(["/bin/sleep", "4321"]) as child:
        try:
            until(lambda: "sleep 4321" in command(daemon).stdout, 10, "the child in the table")
            (line,) = [line for line in command(daemon).stdout.splitlines() if "sleep 4321" in line]
            assert line.split()[0] == str(child.pid)
            assert "─ /bin/sleep 4321" in command(daemon, "--tree").stdout
            facts = command(daemon, "--pid", str(child.pid)).stdout
            assert facts.startswith(f"process {child.pid}\n")
            assert f"forked by {os.getpid()}\n" in facts
            assert "ebpf, exec " in facts
            objects = command(daemon, "--json", "--user", "root", "--session", str(os.getsid(0)))
            (mine,) = [
                each
                for each in map(json.loads, objects.stdout.splitlines())
                if each["pid"] == child.pid
            ]
            assert mine["parent"]["pid"] == os.getpid()
            event = daemon.await_one(event__action="exec", process__pid=child.pid)
            assert mine["entity_id"] == event["process"]["entity_id"]
        finally:
            child.kill()
    missing = command(daemon, "--pid", "4194304")
    assert (missing.returncode, missing.stderr) == (
        7,
        "sessiond: process 4194304 is not known\n",
    )
