"""Replay: a log of auditd's, offline, becomes what the daemon would have written."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from ecs_schema.validate import validate_line
from support.auditlog import DATA, record_type
from support.scripted import Host

from sessiond.audit.auditd_log import EnrichedNames
from sessiond.cli.replay import Outcome, replay
from sessiond.config.schema import Config
from sessiond.daemon import factory
from sessiond.units import SECOND

LOG = DATA / "debian-12-linux-6.18-stig.log"
NAMES = {1300: "SYSCALL", 1307: "CWD", 1309: "EXECVE", 1327: "PROCTITLE"}


def replayed(lines: Iterable[bytes]) -> tuple[list[bytes], Outcome]:
    names = EnrichedNames()
    written: list[bytes] = []
    pipeline = factory.offline_pipeline(Config(), names)
    outcome = replay(lines, pipeline, written.extend, record_type, names)
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
    outcome = replay(_endless(10_000), pipeline, len, record_type, names)
    assert outcome.written == 20_000
    assert len(pipeline.table) < 2_000


# What a log tells, log by log


def of_log(name: str) -> list[dict[str, Any]]:
    """Replay a log of tests/data/replay; all of it is understood, and each line is good ECS."""
    written, outcome = replayed((DATA / "replay" / f"{name}.log").read_bytes().splitlines())
    assert outcome.first_refused == []
    assert [problem for line in written for problem in validate_line(line)] == []
    found = [orjson.loads(line) for line in written]
    assert len({each["event"]["id"] for each in found}) == len(found)
    return found


def told(document: dict[str, Any]) -> list[str]:
    incomplete: list[str] = document.get("sessiond", {}).get("incomplete", [])
    return [note for note in incomplete if "the log does not tell" not in note]


def test_a_record_names_the_parent_by_its_pid() -> None:
    """Of a parent that the log does not tell of, ppid= is all that there is."""
    executed, opened, other = of_log("parent-by-pid")
    assert executed["process"]["parent"] == {"pid": 700}
    assert opened["process"]["parent"] == {"pid": 700}
    assert other["process"]["parent"] == {"pid": 700}
    assert opened["process"]["entity_id"] == executed["process"]["entity_id"]


def test_events_without_title_and_end_are_whole() -> None:
    """Many logs have no PROCTITLE records, and none has EOE."""
    sudo, command, whoami = of_log("without-titles")
    assert [told(each) for each in (sudo, command, whoami)] == [[], [], []]
    assert whoami["process"]["parent"]["executable"] == "/usr/bin/sudo"


def test_the_order_of_records_does_not_matter() -> None:
    """The title comes first in what ausearch writes."""
    (executed,) = of_log("title-first")
    assert executed["process"]["args"] == ["hostname", "-f"]
    assert executed["process"]["title"] == "hostname"


def test_what_ausearch_writes_between_events_is_nothing() -> None:
    """Lines of dashes and times are passed over."""
    assert [each["process"]["name"] for each in of_log("ausearch")] == ["hostname", "id"]


def test_one_serial_is_one_event() -> None:
    """A message of user space and a system call may have one; the message is what it is about."""
    (stopped,) = of_log("message-of-a-call")
    assert stopped["event"]["action"] == "stopped-service"
    assert stopped["auditd"]["data"]["syscall"] == "sendmsg"
    assert stopped["auditd"]["data"]["unit"] == "ntp"


def test_success_may_be_quoted() -> None:
    """A failure is one, however success= is written."""
    executed, failed = of_log("quoted-success")
    assert (executed["event"]["action"], executed["event"]["outcome"]) == ("exec", "success")
    assert (failed["event"]["action"], failed["event"]["outcome"]) == ("exec-failed", "failure")


def test_what_rhel_7_calls_objtype_is_nametype() -> None:
    """The directory is context, and the file is what was changed."""
    deleted, made, renamed = of_log("rhel7")
    assert deleted["file"]["path"] == "/var/log/messages"
    assert (made["file"]["path"], made["event"]["type"]) == ("/etc/cron.d/job", ["creation"])
    assert renamed["file"]["path"] == "/etc/group"
    assert renamed["auditd"]["summary"]["object"]["secondary"] == "/srv/group"


def test_the_actor_of_a_login_is_who_did_it() -> None:
    """The login user before; also as old kernels write it."""
    old, new = of_log("logins")
    assert old["auditd"]["summary"]["actor"]["primary"] == "unset"
    assert old["auditd"]["summary"]["object"]["primary"] == "1200"
    assert old["auditd"]["session"] == "71"
    assert new["auditd"]["summary"]["actor"]["primary"] == "1200"
    assert new["auditd"]["summary"]["object"]["primary"] == "1300"


def test_another_parent_means_another_process() -> None:
    """The pid was given away between the two execs, whose ends the log does not tell."""
    first, second = (each for each in of_log("pid-reused") if each["event"]["action"] == "exec")
    assert first["process"]["entity_id"] != second["process"]["entity_id"]
    assert second["process"]["parent"] == {"pid": 500}
    assert "previous" not in second["process"]


def test_another_user_and_program_mean_another_process() -> None:
    """Nothing of the process that had the pid before is told of the one that has it now."""
    documents = of_log("pid-reused-by-a-daemon")
    (opened,) = (each for each in documents if each["event"]["action"] == "opened-file")
    assert opened["process"]["executable"] == "/srv/implant"
    assert "args" not in opened["process"]
    assert opened["user"]["id"] == "0"
    seen, inferred = (each for each in documents if each["event"]["action"] == "end")
    assert seen["process"]["executable"] == "/srv/implant"
    assert inferred["process"]["executable"] == "/usr/bin/vim"
    assert "exit_code" not in inferred["process"]


def test_a_parent_further_up_is_no_other_process() -> None:
    """Whose parent ends gets one of its ancestors, or init."""
    _, *sleeps = of_log("reparented")
    assert len({each["process"]["entity_id"] for each in sleeps}) == 1
    assert [each["process"]["parent"]["pid"] for each in sleeps] == [700, 700, 700]


def test_no_companion_makes_an_exec_something_else() -> None:
    """What security modules say of it are fields; a type without a name changes no action."""
    *execs, opened = of_log("companions")
    assert {each["event"]["action"] for each in execs} == {"exec"}
    assert {each["event"]["outcome"] for each in execs} == {"success"}
    assert {each["auditd"]["message_type"] for each in execs} == {"syscall"}
    data = [each["auditd"]["data"] for each in execs]
    assert data[0]["subj_apparmor"] == data[1]["subj_apparmor"] == "unconfined"
    assert data[2]["obj_selinux"] == "system_u:object_r:bin_t:s0"
    assert (data[4]["seresult"], data[4]["seperms"]) == ("denied", "execute")
    assert data[5]["subj_trust"] == "2"
    assert data[6]["blockers"] == "fs.execute"
    assert data[7]["cause"] == "missing-hash"
    assert data[8]["ipe_hook"] == "BPRM_CHECK"
    assert data[9]["verdict"] == "odd"
    assert opened["event"]["action"] == "opened-file"
    assert opened["auditd"]["data"]["subj_apparmor"] == "unconfined"


def test_an_address_is_in_the_byte_order_of_its_machine() -> None:
    """A big-endian host wrote it in its own, wherever the log is read."""
    connections = [each for each in of_log("arches") if "destination" in each]
    assert {each["destination"]["ip"] for each in connections} == {"192.0.2.7"}
    assert {"s390x", "ppc64"} <= {each["auditd"]["data"]["arch"] for each in connections}
