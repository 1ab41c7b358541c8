"""Filters on the real kernel: the processes of a script are dropped and counted."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ecs_schema.validate import validate
from support.daemon import Daemon
from support.truth import until

pytestmark = pytest.mark.kernel

CHILDREN = 10


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A monitoring script that starts some programs."""
    path = tmp_path / "check.sh"
    path.write_text(f"for i in $(seq {CHILDREN}); do /bin/true $i; done; /bin/echo done\n")
    return path


def checks(script: Path, then: Any = "drop") -> list[dict[str, Any]]:
    """A filter of the processes that a script starts."""
    when = {"ancestor.args": str(script), "process.user.id": "0"}
    return [{"name": "checks", "when": when, "then": then}]


def run(script: Path, token: str = "") -> None:
    """Run the script to its end, then a program with the token."""
    subprocess.run(["/bin/sh", str(script)], check=True, stdout=subprocess.DEVNULL)
    if token:
        subprocess.run(["/bin/true", token], check=True)


def await_end_of(daemon: Daemon, token: str) -> None:
    """Wait until the end of the program with the token is written."""

    def told() -> bool:
        lines = daemon.find(event__action="end")
        return any(token in each["process"].get("args", ()) for each in lines)

    until(told, 10, f"the end of {token}")


def named(daemon: Daemon, name: str) -> list[str]:
    """Return the actions of the lines of a program that the script has started."""
    return [
        each["event"]["action"]
        for each in daemon.documents()
        if each.get("process", {}).get("name") == name
        and "check.sh" in " ".join(each["process"]["parent"].get("args", ()))
    ]


def test_dropped_processes_are_counted(make_daemon: Callable[..., Daemon], script: Path) -> None:
    """The script itself is written; seen = written + dropped; the stream reports it at the end."""
    daemon = make_daemon({"filters": checks(script)}).start()
    run(script, "token")
    await_end_of(daemon, "token")
    assert named(daemon, "true") == []
    assert named(daemon, "echo") == []
    account = daemon.status()["pipeline"]["filters"]
    assert account["balanced"] is True
    assert daemon.status()["ledger"]["balanced"] is True
    # The programs, and the command substitution, which is a fork and an exec of seq.
    expected = 2 * (CHILDREN + 2)
    assert expected <= account["by_filter"]["checks"]["lines"] <= expected + 2
    daemon.stop()
    (told,) = daemon.find(event__action="sessiond-filtered")
    assert told["sessiond"]["filter"]["lines"] == account["by_filter"]["checks"]["lines"]
    assert [problem for each in daemon.documents() for problem in validate(each)] == []


def test_a_script_is_folded(make_daemon: Callable[..., Daemon], script: Path) -> None:
    """Each kind is written once, then as a count."""
    daemon = make_daemon({"filters": checks(script, {"fold": "1d"})}).start()
    for _ in range(3):
        run(script)
    run(script, "token")
    await_end_of(daemon, "token")
    daemon.stop()
    counts: dict[str, list[int]] = {}
    for each in daemon.find(event__action="sessiond-folded"):
        name = each["process"]["name"]
        counts.setdefault(name, []).append(each["sessiond"]["filter"]["count"])
        assert validate(each) == []
    assert counts["true"] == [1, 4 * CHILDREN - 1]
    assert counts["echo"] == [1, 3]
    assert named(daemon, "echo") == ["sessiond-folded", "sessiond-folded"]


def test_filters_are_live_and_outlive_a_crash(
    make_daemon: Callable[..., Daemon], script: Path
) -> None:
    """A reload applies them; SIGKILL loses no count."""
    daemon = make_daemon().start()
    run(script, "token1")
    await_end_of(daemon, "token1")
    before = named(daemon, "true")
    assert len(before) == 2 * CHILDREN
    daemon.configure({"filters": checks(script)})
    daemon.reload()
    run(script, "token2")
    await_end_of(daemon, "token2")
    first = daemon.status()["pipeline"]["filters"]["by_filter"]["checks"]["lines"]
    daemon.send(9)
    daemon.wait()
    daemon.start()
    run(script, "token3")
    await_end_of(daemon, "token3")
    daemon.stop()
    assert named(daemon, "true") == before
    told = daemon.find(event__action="sessiond-filtered")
    assert sum(each["sessiond"]["filter"]["lines"] for each in told) == 2 * first
