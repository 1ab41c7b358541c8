"""Replay: a log of auditd's, offline, becomes what the daemon would have written."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
from ecs_schema.validate import validate_line
from support.scripted import Host

from sessiond.audit.auditd_log import EnrichedNames
from sessiond.audit.rules import libaudit
from sessiond.cli.replay import Outcome, replay
from sessiond.config.schema import Config
from sessiond.daemon import factory
from sessiond.units import SECOND

LOG = Path(__file__).parents[1] / "data" / "debian-12-linux-6.18-stig.log"
NAMES = {1300: "SYSCALL", 1307: "CWD", 1309: "EXECVE", 1327: "PROCTITLE"}


def replayed(lines: Iterable[bytes]) -> tuple[list[bytes], Outcome]:
    names = EnrichedNames()
    written: list[bytes] = []
    pipeline = factory.offline_pipeline(Config(), names)
    outcome = replay(lines, pipeline, written.extend, libaudit.message_type, names)
    return written, outcome


def documents(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in replayed(lines)[0]]


def test_a_real_log_becomes_valid_events() -> None:
    """Every line is valid ECS, and what happened is in it."""
    written, outcome = replayed(LOG.read_bytes().splitlines())
    assert [problem for line in written for problem in validate_line(line)] == []
    assert outcome.written == len(written)
    assert outcome.refused == 0
    actions = Counter(orjson.loads(line)["event"]["action"] for line in written)
    assert (actions["exec"], actions["end"], actions["setsid"]) == (39, 39, 5)
    assert actions["mounted"] == 3


def test_the_same_log_gives_the_same_lines() -> None:
    """The events' own stamps are the clock: nothing depends on when it is read."""
    lines = LOG.read_bytes().splitlines()
    assert replayed(lines)[0] == replayed(lines)[0]


END = (
    (
        b"type=SYSCALL msg=audit(1700000000.123:77): arch=c000003e syscall=231 a0=3 ppid=10 "
        b"pid=20 auid=1000 uid=1000 gid=1000 euid=1000 suid=1000 fsuid=1000 egid=1000 sgid=1000 "
        b'fsgid=1000 tty=pts0 ses=4 comm="ls" exe="/usr/bin/ls" key=(null)'
    ),
    b"type=EOE msg=audit(1700000000.123:77): ",
)


def test_an_end_alone_says_what_is_not_known() -> None:
    """A log that begins with it: what the record has is told, and what the log has not."""
    (document,) = documents(END)
    assert document["event"]["action"] == "end"
    process = document["process"]
    assert (process["pid"], process["executable"], process["exit_code"]) == (20, "/usr/bin/ls", 3)
    assert document["user"]["id"] == "1000"
    assert document["sessiond"]["incomplete"] == [
        "process: the log does not tell of it before its end"
    ]


def test_an_enriched_log_names_users_as_its_host_did() -> None:
    """The raw format of the same log has the ids alone."""
    enriched = LOG.read_bytes().splitlines()
    raw = [line.partition(b"\x1d")[0] for line in enriched]
    named, bare = documents(enriched), documents(raw)
    assert [each["event"]["id"] for each in named] == [each["event"]["id"] for each in bare]
    assert any(each.get("user", {}).get("name") == "root" for each in named)
    assert not any("name" in each.get("user", {}) for each in bare)


def test_a_process_is_followed_through_the_log() -> None:
    """Its exec and its end have one identity."""
    found = documents(LOG.read_bytes().splitlines())
    identities = {
        action: {
            each["process"]["entity_id"]
            for each in found
            if each["event"]["action"] == action and "entity_id" in each["process"]
        }
        for action in ("exec", "end")
    }
    assert len(identities["exec"] & identities["end"]) >= 25


def test_what_is_no_record_is_counted_and_named() -> None:
    """The rest of the log is read on; blank lines are nothing."""
    lines = [
        b"garbage",
        b"",
        b"type=NEVER msg=audit(1.0:1): a=1",
        *LOG.read_bytes().splitlines()[:4],
    ]
    written, outcome = replayed(lines)
    assert written
    assert outcome.refused == 2
    assert outcome.first_refused[0] == "line 1: not an audit record: b'garbage'"


def _endless(number: int) -> Iterator[bytes]:
    host = Host()
    for index in range(number):
        time = 10 * SECOND + index * 10_000_000
        child, _ = host.shell.fork(1000 + index % 30_000, time)
        _, started = child.execute("true", time)
        _, ended = child.exit(0, time + 1_000_000)
        for kind, payload in (*started, *ended):
            if kind in NAMES:
                yield b"type=%b msg=%b" % (NAMES[kind].encode(), payload)


def test_a_long_log_does_not_fill_the_memory() -> None:
    """Ten thousand processes come and go; the table holds those of the last seconds."""
    names = EnrichedNames()
    pipeline = factory.offline_pipeline(Config(), names)
    outcome = replay(_endless(10_000), pipeline, len, libaudit.message_type, names)
    assert outcome.written == 20_000
    assert len(pipeline.table) < 2_000
