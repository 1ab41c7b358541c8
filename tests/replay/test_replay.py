"""Replay: logs are converted offline to the lines of the daemon."""

import io
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from ecs_schema.validate import validate_line
from support.auditlog import DATA, record_type
from support.replayed import documents, pipeline, replayed
from support.scripted import Host

from sessiond.ecs.dates import timestamp
from sessiond.replay.blocks import Block, Filter, Made, Pipelines
from sessiond.replay.replay import OwnWork, Replay
from sessiond.system.packed import UnreadableFileError, lines
from sessiond.units import SECOND

LOG = DATA / "debian-12-linux-6.18-stig.log"
NAMES = {1300: "SYSCALL", 1307: "CWD", 1309: "EXECVE", 1327: "PROCTITLE"}


def test_a_real_log_becomes_valid_events() -> None:
    """Every line is valid ECS, and the log's actions are present."""
    written, replay = replayed(LOG.read_bytes().splitlines())
    assert [problem for line in written for problem in validate_line(line)] == []
    assert replay.outcome.written == replay.outcome.events == len(written)
    assert replay.outcome.refused == 0
    actions = Counter(orjson.loads(line)["event"]["action"] for line in written)
    assert (actions["exec"], actions["end"], actions["setsid"]) == (39, 39, 5)
    assert actions["mounted"] == 3


def test_the_log_of_an_upgrade_tells_what_happened() -> None:
    """dpkg, a set clock, mounts, sockets, and an exec that Landlock refused."""
    written, replay = replayed((DATA / "debian-12-linux-6.18-package.log").read_bytes())
    assert [problem for line in written for problem in validate_line(line)] == []
    assert replay.outcome.refused == 0
    found = [orjson.loads(line) for line in written]
    renamed = [each["file"]["path"] for each in found if each["event"]["action"] == "renamed"]
    assert "/srv/lab/root/usr/share/lab/notes.dpkg-new" in renamed
    actions = Counter(each["event"]["action"] for each in found)
    assert (actions["mounted"], actions["unmounted"], actions["changed-system-time"]) == (3, 2, 4)
    assert actions["accepted-connection-from"] == 1
    clock = [each["auditd"]["data"] for each in found if "time-change" in each.get("tags", ())]
    assert [each["new"] for each in clock if each.get("op") == "tick"] == ["10001", "10000"]
    (refused,) = (each for each in found if "blockers" in each["auditd"].get("data", {}))
    assert (refused["event"]["action"], refused["error"]["code"]) == ("exec-failed", "EACCES")
    assert refused["auditd"]["data"]["blockers"] == "fs.execute"
    dpkg = next(each for each in found if each["process"].get("name") == "dpkg")["process"]
    split = next(each for each in found if each["process"].get("name") == "dpkg-split")["process"]
    assert split["parent"]["entity_id"] == dpkg["entity_id"]


def test_the_same_log_gives_the_same_lines() -> None:
    """The events' stamps are the clock, so that the time of the replay does not matter."""
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
    """The log starts with an end: its data is written, and missing data is named."""
    (document,) = documents(END)
    assert document["event"]["action"] == "end"
    process = document["process"]
    assert (process["pid"], process["executable"], process["exit_code"]) == (20, "/usr/bin/ls", 3)
    assert document["user"]["id"] == "1000"
    assert document["sessiond"]["incomplete"] == [
        "process: the log does not tell of it before its end"
    ]


def test_an_enriched_log_names_users_as_its_host_did() -> None:
    """The raw format of the same log has only the ids."""
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
    """The rest of the log is read; blank lines do not count."""
    lines = [
        b"garbage",
        b"",
        b"type=NEVER msg=audit(1.0:1): a=1",
        *LOG.read_bytes().splitlines()[:4],
    ]
    written, replay = replayed(lines)
    assert written
    assert replay.outcome.refused == 2
    assert replay.outcome.first_refused[0] == "line 1: not an audit record: b'garbage'"


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
    """Ten thousand processes start and end; the table holds those of the last seconds."""
    pipelines = Pipelines(pipeline)
    replay = Replay(OwnWork(pipelines), len, record_type)
    most = 0
    for _ in replay.read(_endless(10_000)):
        for of_boot, _ in pipelines.living.values():
            most = max(most, len(of_boot.table))
    assert replay.finish().written == 20_000
    assert 0 < most < 2_000


# Single logs


def of_log(name: str) -> list[dict[str, Any]]:
    """Replay a log of tests/data/replay; all lines are understood, and each result is valid ECS."""
    written, replay = replayed((DATA / "replay" / f"{name}.log").read_bytes())
    assert replay.outcome.first_refused == []
    assert [problem for line in written for problem in validate_line(line)] == []
    found = [orjson.loads(line) for line in written]
    assert len({each["event"]["id"] for each in found}) == len(found)
    return found


def told(document: dict[str, Any]) -> list[str]:
    incomplete: list[str] = document.get("sessiond", {}).get("incomplete", [])
    return [note for note in incomplete if "the log does not tell" not in note]


def test_a_record_names_the_parent_by_its_pid() -> None:
    """For a parent that the log does not contain, ppid= is the only data."""
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
    """ausearch writes the title first."""
    (executed,) = of_log("title-first")
    assert executed["process"]["args"] == ["hostname", "-f"]
    assert executed["process"]["title"] == "hostname"


def test_separators_of_ausearch_are_skipped() -> None:
    """Lines of dashes and times are skipped."""
    assert [each["process"]["name"] for each in of_log("ausearch")] == ["hostname", "id"]


def test_one_serial_is_one_event() -> None:
    """A user message and a system call may share one; the message is the subject."""
    (stopped,) = of_log("message-of-a-call")
    assert stopped["event"]["action"] == "stopped-service"
    assert stopped["auditd"]["data"]["syscall"] == "sendmsg"
    assert stopped["auditd"]["data"]["unit"] == "ntp"


def test_success_may_be_quoted() -> None:
    """The spelling of success= does not matter."""
    executed, failed = of_log("quoted-success")
    assert (executed["event"]["action"], executed["event"]["outcome"]) == ("exec", "success")
    assert (failed["event"]["action"], failed["event"]["outcome"]) == ("exec-failed", "failure")


def test_what_rhel_7_calls_objtype_is_nametype() -> None:
    """The directory is context, and the file is the changed one."""
    deleted, made, renamed = of_log("rhel7")
    assert deleted["file"]["path"] == "/var/log/messages"
    assert (made["file"]["path"], made["event"]["type"]) == ("/etc/cron.d/job", ["creation"])
    assert renamed["file"]["path"] == "/etc/group"
    assert renamed["auditd"]["summary"]["object"]["secondary"] == "/srv/group"


def test_the_actor_of_a_login_is_who_did_it() -> None:
    """The actor is the earlier login user, also in records of old kernels."""
    old, new = of_log("logins")
    assert old["auditd"]["summary"]["actor"]["primary"] == "unset"
    assert old["auditd"]["summary"]["object"]["primary"] == "1200"
    assert old["auditd"]["session"] == "71"
    assert new["auditd"]["summary"]["actor"]["primary"] == "1200"
    assert new["auditd"]["summary"]["object"]["primary"] == "1300"


def test_another_parent_means_another_process() -> None:
    """The pid was reused between the two execs, whose ends the log does not contain."""
    first, second = (each for each in of_log("pid-reused") if each["event"]["action"] == "exec")
    assert first["process"]["entity_id"] != second["process"]["entity_id"]
    assert second["process"]["parent"] == {"pid": 500}
    assert "previous" not in second["process"]


def test_another_user_and_program_mean_another_process() -> None:
    """Data of an earlier holder of the pid never appears for the current one."""
    documents = of_log("pid-reused-by-a-daemon")
    (opened,) = (each for each in documents if each["event"]["action"] == "opened-file")
    assert opened["process"]["executable"] == "/srv/implant"
    assert "args" not in opened["process"]
    assert opened["user"]["id"] == "0"
    inferred, seen = (each for each in documents if each["event"]["action"] == "end")
    assert documents.index(inferred) < documents.index(opened)
    assert seen["process"]["executable"] == "/srv/implant"
    assert inferred["process"]["executable"] == "/usr/bin/vim"
    assert "exit_code" not in inferred["process"]


@pytest.mark.parametrize("kind", [b"USER", b"USER_LOGIN", b"CRYPTO_KEY_USER"])
def test_another_sender_of_a_message_means_another_process(kind: bytes) -> None:
    """Every message of user space says the kernel's view of its sender."""
    executed = (DATA / "replay/pid-reused-by-a-daemon.log").read_bytes().splitlines()[:5]
    message = b"type=%b msg=audit(1712354600.000:50): pid=700 uid=0 auid=0 ses=9 msg='op=start'"
    written, _ = replayed([*executed, message % kind])
    told = next(
        each
        for each in map(orjson.loads, written)
        if each["auditd"].get("message_type") == kind.decode().lower()
    )
    assert "vim" not in told["process"].get("executable", "")
    assert told["user"]["audit"]["id"] == "0"


def test_a_parent_further_up_is_no_other_process() -> None:
    """A process whose parent ends gets an ancestor, or init, as parent."""
    _, *sleeps = of_log("reparented")
    assert len({each["process"]["entity_id"] for each in sleeps}) == 1
    assert [each["process"]["parent"]["pid"] for each in sleeps] == [700, 700, 700]


def test_an_input_that_pauses_is_written_so_far() -> None:
    """A user follows a log with tail -f. An event may still get records for two seconds."""
    lines = [_call(1_000 * number, number, 59, "1 50", "bash") for number in range(100, 200)]
    whole, _ = replayed(lines)
    written: list[bytes] = []
    work = _Slow(Pipelines(pipeline))
    replay = Replay(work, written.extend, record_type)
    seen = []

    def arriving() -> Iterator[bytes]:
        for number, line in enumerate(lines):
            yield line
            if number % 10 == 9:
                yield b""
                yield b""  # as after a timeout
                seen.append(len(written))

    assert all(step is None for step in replay.read(arriving()))
    replay.finish()
    assert written == whole
    assert seen == list(range(7, 100, 10))


class _Slow:
    """Makes lines only when it is asked for the rest, as another process may."""

    def __init__(self, pipelines: Pipelines) -> None:
        self._pipelines = pipelines
        self._waiting: list[Block] = []

    def submit(self, block: Block) -> list[Made]:
        self._waiting.append(block)
        return []

    def rest(self) -> list[Made]:
        waiting, self._waiting = self._waiting, []
        return [self._pipelines.take(block) for block in waiting]


def test_no_companion_makes_an_exec_something_else() -> None:
    """Records of security modules become fields; a type without a name changes no action."""
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
    """A big-endian host wrote it; the reader's byte order does not matter."""
    connections = [each for each in of_log("arches") if "destination" in each]
    assert {each["destination"]["ip"] for each in connections} == {"192.0.2.7"}
    assert {"s390x", "ppc64"} <= {each["auditd"]["data"]["arch"] for each in connections}


def test_a_record_of_any_machine_has_names() -> None:
    """Each machine did the same, under other numbers."""
    done: dict[str, list[str]] = {}
    for each in of_log("arches"):
        done.setdefault(each["auditd"]["data"]["arch"], []).append(each["event"]["action"])
    assert len(done) > 8
    assert {"riscv64", "loongarch64", "mipsel64", "aarch64", "arm"} <= done.keys()
    for actions in done.values():
        assert actions[:3] == ["exec", "connected-to", "end"]


# Several hosts and boots


def test_each_node_is_a_separate_host() -> None:
    """Equal stamps, serials and pids on two hosts are two events of two processes."""
    web, db = sorted(of_log("nodes"), key=lambda each: str(each["host"]["name"]))[::-1][:2]
    assert (web["host"]["name"], db["host"]["name"]) == ("web7", "db3")
    assert (web["process"]["args"], db["process"]["args"]) == (["hostname"], ["dropdb", "shop"])
    assert web["process"]["entity_id"] != db["process"]["entity_id"]
    assert web["user"]["name"] == "eve"
    assert db["user"]["name"] == "postgres"


def test_lines_of_all_hosts_are_numbered_as_one_stream() -> None:
    """A gap would indicate a loss."""
    numbers = [each["event"]["sequence"] for each in of_log("nodes")]
    assert numbers == list(range(1, len(numbers) + 1))


def test_one_node_can_be_wanted() -> None:
    """The records of other nodes are counted."""
    written, replay = replayed((DATA / "replay" / "nodes.log").read_bytes(), node="db3")
    assert {orjson.loads(line)["host"]["name"] for line in written} == {"db3"}
    assert replay.outcome.others == 3


def test_a_name_counts_from_its_event_on() -> None:
    """An id that now belongs to another user has the name of its time, in each event."""
    found = [each["user"].get("name") for each in of_log("renamed")]
    assert found == [None, "eve", "mallory", "mallory", None]


def test_processes_of_an_earlier_boot_are_not_relatives() -> None:
    """Pids are reused; ids differ even if pid and second are equal."""
    executed = [each for each in of_log("reboots") if each["event"]["action"] == "exec"]
    assert [each["process"]["name"] for each in executed] == ["shell", "one", "two", "three"]
    assert all(each["process"]["parent"] == {"pid": 700} for each in executed[1:])
    assert len({each["event"]["id"].partition("-")[0] for each in executed}) == 4


# Selection of the output


def test_only_a_span_of_time_can_be_written() -> None:
    """Earlier records are still read: their processes are parents of later ones."""
    log = (DATA / "replay" / "without-titles.log").read_bytes()
    since = Filter(since="2024-04-05T19:33:20.300000Z")
    (line,) = replayed(log, wanted=since)[0]
    assert orjson.loads(line)["process"]["parent"]["name"] == "sudo"
    before = Filter(until="2024-04-05T19:33:20.300000Z")
    assert len(replayed(log, wanted=before)[0]) == 2


def test_only_a_session_can_be_written() -> None:
    """The session has audit's number."""
    log = (DATA / "replay" / "pid-reused-by-a-daemon.log").read_bytes()
    written, _ = replayed(log, wanted=Filter(session="8"))
    assert {orjson.loads(line)["process"]["name"] for line in written} == {"vim"}


# Other formats of records


@pytest.mark.parametrize(
    "name",
    [
        "as-messages",
        "as-dmesg",
        "as-audispd",
        "as-rsyslog",
        "as-rfc5424",
        "as-bare",
        "as-escaped",
        "as-crlf",
        "as-journal",
        "as-export",
        "as-laurel",
    ],
)
def test_every_form_of_the_same_event_is_the_same(name: str) -> None:
    """The forwarding program does not matter."""
    (path,) = (DATA / "replay").glob(f"{name}.*")
    (document,) = documents(path.read_bytes())
    process = document["process"]
    assert process["args"] == ["hostname", "-f"]
    assert process["executable"] == "/usr/bin/hostname"
    assert process["title"] == "hostname -f"
    assert process["working_directory"] == "/home/eve"
    assert process["parent"] == {"pid": 700}
    assert document["@timestamp"] == "2024-04-05T19:33:20.100000Z"
    assert document["auditd"]["sequence"] == 40
    assert document["tags"] == ["watch"]
    assert document["file"]["path"] == "/usr/bin/hostname"
    if name not in ("as-dmesg", "as-bare", "as-crlf", "as-escaped"):
        assert document["host"]["name"] == "web7"
    if name in ("as-escaped", "as-laurel"):
        assert document["user"]["name"] == "eve"


def test_a_form_that_lost_a_part_is_named_with_what_to_do() -> None:
    """The line has the command to use instead."""
    interpreted = (
        b"type=SYSCALL msg=audit(04/05/2024 19:33:20.100:40) : arch=x86_64 syscall=execve "
        b"success=yes exit=0 pid=701\n"
    )
    short = b"Apr 05 19:33:20 web7 audit[701]: SYSCALL arch=c000003e syscall=59 success=yes\n"
    written, replay = replayed(interpreted * 2 + short)
    assert written == []
    said = list(replay.outcome.lost.items())
    assert [count for _, count in said] == [2, 1]
    assert "ausearch --raw" in said[0][0]
    assert "journalctl -o json" in said[1][0]


FORGED = b"type=SYSCALL msg=audit(1712345600.100:40): arch=c000003e syscall=59 success=yes"


@pytest.mark.parametrize(
    "line",
    [
        b"Apr  5 19:33:20 web7 sshd[9]: Invalid user " + FORGED,
        b"Apr  5 19:33:20 web7 mallory: " + FORGED,
        b"Apr  5 19:33:20 web7 kernel: mallory: " + FORGED,
        b"[   12.345678] mallory[9]: " + FORGED,
        b'{"__CURSOR":"1","_TRANSPORT":"syslog","MESSAGE":"' + FORGED + b'"}',
        b'{"__CURSOR":"1","_TRANSPORT":"stdout","_AUDIT_TYPE":"1300","MESSAGE":"SYSCALL a=1"}',
    ],
)
def test_no_text_of_a_user_passes_for_a_record(line: bytes) -> None:
    """The line belongs to another program, and is not an event."""
    written, replay = replayed(line + b"\n")
    assert written == []
    assert (replay.outcome.others, replay.outcome.refused) == (1, 0)


def test_the_lines_before_a_damage_are_read() -> None:
    """The error comes behind the records that are intact, wherever it is in a batch of lines."""

    def lines() -> Iterator[bytes]:
        for serial in range(700):
            yield b"type=CWD msg=audit(1700000000.123:%d): cwd=x\n" % serial
        raise UnreadableFileError("audit.log.gz: damaged")

    written: list[bytes] = []
    replay = Replay(OwnWork(Pipelines(pipeline)), written.extend, {"CWD": 1307}.get)
    with pytest.raises(UnreadableFileError, match="damaged"):
        deque(replay.read(lines()), maxlen=0)
    assert replay.finish().records == len(written) == 700


def test_a_damaged_export_hides_no_other_log() -> None:
    """The entries before the damage are events, and so are those of the next log."""
    export = (DATA / "replay" / "as-export.journal").read_bytes()
    whole = documents(export)
    damaged = export.rstrip(b"\n") + b"\n\nA\n" + b"\xff" * 8
    written: list[bytes] = []
    replay = Replay(OwnWork(Pipelines(pipeline)), written.extend, record_type)
    source = io.BytesIO(damaged)
    with pytest.raises(UnreadableFileError, match="log: damaged: a field of the journal"):
        deque(replay.read(lines("log", source), source, "log"), maxlen=0)
    other = b"type=CWD msg=audit(1812345600.100:90000): cwd=/"
    deque(replay.read([other]), maxlen=0)
    replay.finish()
    assert [orjson.loads(line)["auditd"]["sequence"] for line in written] == [
        whole[0]["auditd"]["sequence"],
        90000,
    ]


def test_records_joined_in_a_line_are_one_event() -> None:
    """They are of the host that the line begins with."""
    stamp = b"audit(1700000000.123:77)"
    joined = (
        b"node=web1 type=SYSCALL msg=%b: arch=c000003e syscall=59 success=yes exit=0 a0=1 a1=2 "
        b"a2=3 a3=4 items=2 ppid=10 pid=20 auid=1000 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 "
        b'sgid=0 fsgid=0 tty=pts0 ses=4 comm="id" exe="/usr/bin/id" key="k"ARCH=x86_64 '
        b'SYSCALL=execve AUID="ann" UID="root" type=EXECVE msg=%b: argc=2 a0="id" a1="-u" '
        b'type=CWD msg=%b: cwd="/srv" type=PATH msg=%b: item=0 name="/usr/bin/id" inode=7 '
        b"dev=fe:00 mode=0100755 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL "
        b"type=PROCTITLE msg=%b: proctitle=6964002D75"
    ) % ((stamp,) * 5)
    (document,) = documents([joined])
    assert document["host"]["name"] == "web1"
    process = document["process"]
    assert (process["args"], process["working_directory"]) == (["id", "-u"], "/srv")
    assert document["file"]["path"] == "/usr/bin/id"
    assert document["user"]["audit"] == {"id": "1000", "name": "ann"}
    assert not document["auditd"]["data"].keys() & {"type", "msg", "cwd", "name", "AUID"}


def test_what_a_kernel_says_of_lost_records_is_counted() -> None:
    """Its log is limited to so many lines in a time, and audit counts its losses since the boot."""
    messages = [
        "kauditd_printk_skb: 110 callbacks suppressed",
        "audit: audit_lost=7 audit_rate_limit=0 audit_backlog_limit=64",
        "kauditd_printk_skb: 40 callbacks suppressed",
        "audit: audit_lost=9 audit_rate_limit=0 audit_backlog_limit=64",
    ]
    for form in (
        "[   16.918529] %s",
        "May  1 10:11:12 web7 kernel: [   16.918529] %s",
        '{"__CURSOR":"s=1","_TRANSPORT":"kernel","MESSAGE":"%s"}',
    ):
        _, replay = replayed([(form % message).encode() for message in messages])
        outcome = replay.outcome
        assert (outcome.unwritten, outcome.lost_by_audit) == (150, 9)
        assert (outcome.others, outcome.refused) == (4, 0)
    _, replay = replayed([b"May  1 10:11:12 web7 eve: %b" % m.encode() for m in messages])
    assert (replay.outcome.unwritten, replay.outcome.others) == (0, 4)


@pytest.mark.parametrize("end", [b" auid", b" euid", b" suid"])
def test_a_cut_record_makes_nobody_root(end: bytes) -> None:
    """Ids that it does not tell are absent, in later events of the process too."""
    (call, exit_call) = (
        b"type=SYSCALL msg=audit(1700000000.123:%d): arch=c000003e syscall=%d success=yes exit=0 "
        b"a0=1 a1=2 a2=3 a3=4 items=2 ppid=10 pid=20 auid=1000 uid=1000 gid=1000 euid=1000 "
        b"suid=1000 fsuid=1000" % numbers
        for numbers in ((77, 59), (78, 231))
    )
    written, _ = replayed([each[: each.index(end)] for each in (call, exit_call)])
    assert len(written) == 2
    for line in written:
        assert validate_line(line) == []
        document = orjson.loads(line)
        process = document["process"]
        ids = [process.get(name, {}).get("id") for name in ("user", "real_user", "saved_user")]
        known = {b" auid": 0, b" euid": 1, b" suid": 2}[end]
        assert [each for each in ids if each is not None] == ["1000"] * known
        assert document.get("user", {}).get("id") == ("1000" if known else None)


def test_a_process_that_only_forks_is_the_parent_of_its_children() -> None:
    """A shell that is older than the log; vfork's record comes behind the exec of the child."""
    call = (
        "type=SYSCALL msg=audit(1700000000.%03d:%d): arch=c000003e syscall=%d success=yes exit=%d "
        "a0=%s a1=0 a2=0 a3=0 items=0 ppid=%d pid=%d auid=1000 uid=1000 gid=1000 euid=1000 "
        "suid=1000 fsuid=1000 egid=1000 sgid=1000 fsgid=1000 tty=pts0 ses=4 comm=%s exe=%s key=k"
    )
    records = [
        call % (1, 1, 56, 21, "1200011", 10, 20, '"bash"', '"/bin/bash"'),
        call % (2, 2, 59, 0, "1", 20, 21, '"id"', '"/bin/id"'),
        call % (4, 3, 59, 0, "1", 30, 31, '"ls"', '"/bin/ls"'),
        call % (3, 4, 58, 31, "1", 10, 30, '"make"', '"/bin/make"'),
        call % (5, 5, 87, 0, "1", 30, 31, '"ls"', '"/bin/ls"'),
    ]
    failed = call.replace("success=yes", "success=no")
    records += [
        failed % (6, 6, 56, -11, "1200011", 10, 40, '"full"', '"/bin/full"'),
        failed % (7, 7, 87, -2, "1", 10, 40, '"full"', '"/bin/full"'),
    ]
    found = documents([record.encode() for record in records])
    by_serial = {each["auditd"]["sequence"]: each["process"] for each in found}
    shell, child, make, removed = by_serial[1], by_serial[2], by_serial[4], by_serial[5]
    assert child["parent"]["entity_id"] == shell["entity_id"]
    assert child["parent"]["executable"] == shell["executable"] == "/bin/bash"
    assert child["parent"]["user"]["id"] == "1000"
    assert removed["parent"]["entity_id"] == make["entity_id"]
    assert removed["parent"]["executable"] == "/bin/make"
    assert "entity_id" not in by_serial[7]


def _call(time: int, serial: int, number: int, pids: str, program: str) -> bytes:
    """Return a SYSCALL record of a time in ms; ``pids`` are those of the parent and the caller."""
    ppid, pid = pids.split()
    seconds, ms = divmod(time, 1000)
    return (
        f"type=SYSCALL msg=audit({seconds}.{ms:03d}:{serial}): arch=c000003e syscall={number} "
        f"success=yes exit=0 a0=0 a1=0 a2=0 a3=0 items=0 ppid={ppid} pid={pid} auid=1000 uid=0 "
        "gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=pts0 ses=4 "
        f'comm="{program}" exe="/bin/{program}" key=(null)'
    ).encode()


@pytest.mark.parametrize("back", [10_000, 3_600_000, 100_000_000_000])
def test_a_clock_that_is_set_back_parts_no_relatives(back: int) -> None:
    """NTP's first answer, or a clock in local time; dates stay those of the records."""
    start = 1_700_000_000_000
    found = documents(
        [
            _call(start, 10, 59, "1 50", "sshd"),
            _call(start + 1_000, 11, 59, "50 51", "bash"),
            _call(start + 4_000 - back, 12, 59, "50 60", "login"),
            _call(start + 500, 13, 43, "1 50", "sshd"),  # accept(2) has waited since then
            _call(start + 5_000 - back, 14, 59, "60 61", "ls"),
            _call(start + 6_000 - back, 15, 231, "50 51", "bash"),
            _call(start + 7_000 - back, 16, 231, "1 50", "sshd"),
        ]
    )
    by_serial = {each["auditd"]["sequence"]: each for each in found}
    sshd, bash, login, accepted, _, end_of_bash, end_of_sshd = (
        by_serial[serial]["process"] for serial in range(10, 17)
    )
    assert bash["parent"]["entity_id"] == login["parent"]["entity_id"] == sshd["entity_id"]
    assert by_serial[14]["process"]["parent"]["entity_id"] == login["entity_id"]
    assert end_of_bash["entity_id"] == bash["entity_id"]
    assert accepted["entity_id"] == end_of_sshd["entity_id"] == sshd["entity_id"]
    dates = [by_serial[serial]["@timestamp"] for serial in (10, 12, 14, 16)]
    moments = [start, *(start + more - back for more in (4_000, 5_000, 7_000))]
    assert dates == [timestamp(ms * 1_000_000) for ms in moments]
    assert sshd["start"] == end_of_sshd["start"] == dates[0]
    assert login["start"] == dates[1]
    assert end_of_sshd["end"] == dates[3]


@pytest.mark.parametrize(
    ("sender", "program", "address"),
    [("0", "sshd", "192.0.2.7"), ("1000", "sshd", None), ("0", "sudo", None)],
)
def test_a_login_has_the_address_that_sshd_tells(
    sender: str, program: str, address: str | None
) -> None:
    """Only the kernel's word says who tells it: another user, or program, does not count."""
    login = (
        f"type=USER_LOGIN msg=audit(1.500:3): pid=51 uid={sender} auid=1000 ses=4 msg='op=login "
        'acct="ann" exe="/usr/sbin/sshd" addr=::ffff:192.0.2.7 terminal=ssh res=success\''
    ).encode()
    clone = _call(1_100, 2, 56, "1 50", program).replace(b"exit=0 a0=0", b"exit=51 a0=1200011")
    fork = _call(1_600, 4, 56, "50 51", program).replace(b"exit=0 a0=0", b"exit=52 a0=1200011")
    found = documents(
        [
            _call(1_000, 1, 59, "1 50", program),
            clone,
            login,
            fork,
            _call(1_700, 5, 112, "51 52", program),
            _call(1_800, 6, 59, "51 52", "bash"),
        ]
    )
    (shell,) = (each["process"] for each in found if each["auditd"]["sequence"] == 6)
    meta = shell["entry_leader"]["entry_meta"]
    assert meta.get("source", {}).get("ip") == address
    assert meta["type"] == ("sshd" if program == "sshd" else "unknown")


@pytest.mark.parametrize("argument", ["12000q1", "zz", "f" * 40, "\u0661"])
def test_a_damaged_argument_ends_no_replay(argument: str) -> None:
    """The flags of clone(2), and the code of exit_group(2)."""
    damaged = f"a0={argument} ".encode()
    found = documents(
        [
            _call(1_000, 1, 59, "1 50", "bash"),
            _call(1_100, 2, 56, "1 50", "bash").replace(b"exit=0 a0=0 ", b"exit=51 " + damaged),
            _call(1_200, 3, 231, "1 50", "bash").replace(b"a0=0 ", damaged),
        ]
    )
    assert [each["event"]["action"] for each in found] == ["exec", "clone", "end"]
    assert found[2]["process"]["exit_code"] == 0
