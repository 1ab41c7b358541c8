"""The causes of lines, and suggested filters: an hour of a simulated busy host."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from support.scripted import Actor
from support.story import Bench
from support.truth import until

from sessiond.cli import main
from sessiond.config.filters import Filters
from sessiond.filters.exposure import exposures
from sessiond.filters.traffic import PEOPLE, Suggestions, Traffic
from sessiond.process.events import Program
from sessiond.units import SECOND

MINUTES, CHILDREN = 15, 40
ZABBIX = dict.fromkeys(("uid", "euid", "suid"), 110)


class BusyHost(Bench):
    """A host with cron, a monitoring agent, a build and two people."""

    def __init__(self, filters: Filters = Filters()) -> None:  # noqa: B008 -- it never changes
        """Simulate some minutes."""
        super().__init__(filters=filters, fork_events="needed")
        facts = self.host.shell.facts._replace(
            pid=1, start=1, ppid=0, pgid=1, sid=1, tty_major=0, tty_minor=0
        )
        init = Actor(self.host, 1, 1, facts, Program(b"init", b"/sbin/init", b"init\0", None))
        self._pid = 100
        self.people = [self._run(self.host.shell, "bash", str(n)) for n in range(2)]
        self.cron = self._run(init, "cron")
        agent = self._run(init, "agent", **ZABBIX)
        builder = self._run(init, "runner", **dict.fromkeys(("uid", "euid", "suid"), 120))
        for minute in range(MINUTES):
            self.now += 30 * SECOND
            self._end(self._run(self.cron, "sh", "-c", "/usr/lib/sysstat/sa1"))
            script = self._run(agent, "sh", "/etc/zabbix/check.sh")
            for number in range(CHILDREN):
                self._end(self._run(script, "df", str(number)))
            self._end(script)
            for number in range(20):
                self._end(self._run(builder, "cc", f"{minute}-{number}.c"))
            for person in self.people:
                self._end(self._run(person, "ls", f"dir-{minute}"))

    def _run(self, parent: Actor, name: str, *args: str, **ids: int) -> Actor:
        self._pid += 1
        self.now += 1_000_000
        child, forked = parent.fork(self._pid, self.now)
        child.facts = child.facts._replace(**ids)  # type: ignore[arg-type]
        event, records = child.execute(name, self.now + 1000, *args)
        child.program = event.program._replace(owner=0)
        self.tell(forked, event._replace(program=child.program), audit=records)
        return child

    def _end(self, actor: Actor) -> None:
        self.now += 1_000_000
        event, records = actor.exit(0, self.now)
        self.tell(event, audit=records)

    def of_people(self) -> set[str]:
        """Return the ids of lines of programs that people ran."""
        return {
            each["event"]["id"]
            for each in self.settle()
            if "process" in each and each["process"].get("interactive")
        }


@pytest.fixture(scope="module")
def busy() -> BusyHost:
    """The lines without filters."""
    return BusyHost()


def suggested(documents: list[dict[str, Any]]) -> Filters:
    """The suggested filters."""
    suggestions = Suggestions()
    for document in documents:
        suggestions.take(document)
    found = [{"when": each.conditions, "then": "fold"} for each in suggestions.best([])]
    return Filters.parse([{"name": "people", "when": dict(PEOPLE), "then": "keep"}, *found])


def test_suggested_filters_leave_a_tenth_and_all_of_people(busy: BusyHost) -> None:
    """The account is exact to the line."""
    before = busy.settle()
    filters = suggested(before)
    assert all(each.safe for each in exposures(filters, []))
    after = BusyHost(filters)
    people = after.of_people()
    assert people == busy.of_people()
    assert len(people) > 4 * MINUTES
    noise = len(before) - len(people)
    assert len(after.written) - len(people) < noise / 10
    account = after.pipeline.status()["filters"]
    assert account["balanced"] is True
    whole = account["written"] + account["folded"] + account["dropped"]
    # Relatives of only folded processes are not written.
    assert abs(whole - len(before)) <= 4


def test_lines_are_counted_by_what_makes_them(busy: BusyHost) -> None:
    """All causes are counted at once."""
    traffic = Traffic(["executable", "parent"])
    for document in busy.settle():
        traffic.take(document, 10)
    assert traffic.lines["/bin/df", "/bin/sh"] == 2 * CHILDREN * MINUTES
    assert traffic.bytes["/bin/df", "/bin/sh"] == 20 * CHILDREN * MINUTES
    assert traffic.lines.total() == len(busy.written)
    assert traffic.first < traffic.last


def test_the_commands_show_suggest_and_try(
    busy: BusyHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output of top --suggest is valid for filters, which shows its effect."""
    events = tmp_path / "events.ndjson"
    events.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in busy.settle()))
    assert main.run(["top", "--by", "executable,user", str(events)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].split()[-2:] == ["/bin/df", "110"]
    assert shown[-1].endswith("in all")
    assert main.run(["top", "--suggest", str(events)]) == 0
    text = capsys.readouterr().out
    people, *others = yaml.safe_load(text)["filters"]
    assert (people["name"], people["then"]) == ("people", "keep")
    assert [each["then"] for each in others] == ["fold"] * len(others)
    assert "  #   such as df 0" in text
    config = tmp_path / "new.yml"
    config.write_text(text)
    config.chmod(0o600)
    assert main.run(["filters", "-c", str(config), str(events)]) == 0
    told = capsys.readouterr().out
    assert "suggestion 1: folds" in told
    assert "such as" in told
    config.write_text("filters: [{name: all, when: {process.name: '*'}, then: drop}]")
    assert main.run(["filters", "-c", str(config), "--json", str(events)]) == 1
    assert orjson.loads(capsys.readouterr().out)["filters"]["all"]["safe"] is False


def test_a_live_table_counts_new_lines_and_is_redrawn(busy: BusyHost, tmp_path: Path) -> None:
    """On a terminal it stays in place, within its size; rates are those since the last one."""
    events = tmp_path / "events.ndjson"
    lines = [orjson.dumps(each) + b"\n" for each in busy.settle()]
    events.write_bytes(b"".join(lines[:100]))
    controller, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 8, 60, 0, 0))
    command = [sys.executable, "-m", "sessiond", "top", "--live", "--by", "executable,parent"]
    # pytest's readline has set COLUMNS, which only os.environ does not have.
    running = subprocess.Popen(
        [*command, str(events)], stdin=side, stdout=side, env=dict(os.environ)
    )
    os.close(side)
    os.set_blocking(controller, False)
    screen = b""

    def frames() -> list[list[str]]:
        nonlocal screen
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(controller, 1 << 16):
                screen += chunk
        whole = [each for each in screen.decode().split("\x1b[H")[1:] if each.count("\x1b[J")]
        return [each.replace("\x1b[K", "").split("\x1b[J")[0].splitlines() for each in whole]

    try:
        until(lambda: len(frames()) > 0, 20, "the first table")
        with events.open("ab") as file:
            file.write(b"".join(lines[100:300]))
        until(lambda: frames()[-1][-1].split()[0] == "200", 20, "a table with the new lines")
        counted = frames()[-1]
        until(lambda: frames()[-1] != counted, 20, "the next table")
        first, last = frames()[0], frames()[-1]
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
        os.close(controller)
    assert first[-1].split() == ["0", "-", "0", "0.0", "0", "in", "all"]
    assert counted[0].startswith("new lines since ")
    assert counted[1].split()[:2] == ["lines", "%"]
    assert max(map(len, counted)) < 60, counted
    assert len(counted) <= 8
    assert float(counted[-1].split()[3]) > 50
    assert last[-1].split()[3] == "0.0"


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mistakes on the command line, in the file, and in the configuration."""
    empty = tmp_path / "empty.ndjson"
    empty.write_text("[]\n")
    config = tmp_path / "none.yml"
    config.write_text("# nothing")
    assert main.run(["top", str(empty)]) == 8
    assert "no event" in capsys.readouterr().err
    assert main.run(["filters", "-c", str(config), str(empty)]) == 2
    assert "no filters" in capsys.readouterr().err
    packed = tmp_path / "events.gz"
    packed.write_bytes(gzip.compress(b"{}"))
    assert main.run(["top", "--live", str(packed)]) == 8
    assert "can't grow" in capsys.readouterr().err
    for words in (["--live", "--suggest"], ["--live", "a", "b"]):
        assert main.run(["top", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit):
        main.run(["top", "-n", "0"])
    assert "'0' is not a number of rows" in capsys.readouterr().err
