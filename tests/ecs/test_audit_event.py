"""Audit events as documents: real records in, ECS out, and nothing that a record says forges it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from ecs_schema.validate import validate
from hypothesis import given
from hypothesis import strategies as st
from support.auditlog import DATA, FixedNames, SmallTables, event, events, syscall

from sessiond.audit.record import EXECVE, PATH, PROCTITLE, SYSCALL
from sessiond.ecs import normalizations
from sessiond.ecs.audit_event import AuditEventEncoder, Options
from sessiond.ecs.audit_fields import OBJ_PID, SOCKADDR

GOLDEN = Path(__file__).parent / "golden"


def describe(
    *records: tuple[int, bytes], options: Options | None = None, enriched: bool = False
) -> dict[str, Any]:
    """Describe records that all can be read, and hold the document against ECS."""
    describer = AuditEventEncoder(FixedNames(), SmallTables(), options)
    document, warnings = describer.describe(event(*records), enriched=enriched)
    assert warnings == []
    assert validate(document) == []
    return document


# Golden documents


@pytest.mark.parametrize("log", sorted(GOLDEN.glob("*.log")), ids=lambda path: path.stem)
def test_golden(log: Path, update_golden: bool) -> None:
    """The records of NAME.log give the documents of NAME.json, and these are good ECS."""
    libaudit = pytest.importorskip("sessiond.audit.rules.libaudit")
    describer = AuditEventEncoder(FixedNames(), libaudit, Options(include_warnings=True))
    documents = [describer.describe(one)[0] for one in events(log)]
    assert [validate(document) for document in documents] == [[]] * len(documents)
    golden = log.with_suffix(".json")
    if update_golden:
        text = json.dumps(documents, indent=1, ensure_ascii=False, sort_keys=True)
        golden.write_text(text + "\n", encoding="utf-8")
    assert documents == json.loads(golden.read_text(encoding="utf-8"))


@pytest.mark.parametrize("log", sorted(DATA.glob("*.log")), ids=lambda path: path.stem)
def test_every_event_of_a_real_log_is_good_ecs(log: Path) -> None:
    """Whatever a real rule set brings has a category, a type and an action, and no warnings."""
    libaudit = pytest.importorskip("sessiond.audit.rules.libaudit")
    describer = AuditEventEncoder(FixedNames(), libaudit)
    for one in events(log):
        document, warnings = describer.describe(one)
        assert (one, warnings, validate(document)) == (one, [], [])
        assert document["event"]["category"]
        assert document["event"]["type"]
        assert document["event"]["action"]
        assert document["auditd"]["summary"]["actor"]


# Executions


def test_a_successful_execve_is_an_exec() -> None:
    """Category, type and action are what a process tree starts from."""
    document = describe(syscall(59), (EXECVE, b'argc=2 a0="uname" a1="-a"'))
    assert document["event"] == {
        "kind": "event",
        "action": "exec",
        "category": ["process"],
        "type": ["start"],
        "outcome": "success",
    }
    assert document["process"]["args"] == ["uname", "-a"]


def test_a_failed_execve_says_why() -> None:
    """It starts nothing, and error.code has the error's name."""
    document = describe(syscall(59, success="no", exit="-13"))
    assert document["event"]["action"] == "exec-failed"
    assert document["event"]["type"] == ["info"]
    assert document["event"]["outcome"] == "failure"
    assert document["error"] == {"code": "EACCES"}
    assert document["auditd"]["data"]["exit"] == "EACCES"


def test_an_error_that_never_reaches_user_space_has_its_name_too() -> None:
    """A connect that a signal interrupts has exit=-512."""
    document = describe(syscall(42, success="no", exit="-512"))
    assert document["error"] == {"code": "ERESTARTSYS"}


def test_what_an_enriched_caller_knows_better_is_left_out() -> None:
    """Of process there is the pid and the title."""
    document = describe(
        syscall(59),
        (EXECVE, b'argc=1 a0="uname"'),
        (PROCTITLE, b"proctitle=756E616D65002D61"),
        enriched=True,
    )
    assert document["process"] == {"pid": 10043, "title": "uname -a"}


def test_an_unknown_syscall_is_named_by_its_number() -> None:
    """Such a document has a user, an action and an outcome."""
    document = describe(syscall(999))
    assert document["event"]["action"] == "syscall-999"
    assert document["event"]["category"] == ["process"]
    assert document["auditd"]["data"]["syscall"] == "999"


def test_an_unknown_record_is_named_by_its_type() -> None:
    """A kernel newer than the tables brings records too."""
    document = describe((1398, b'pid=7 uid=0 what="new"'))
    assert document["event"]["action"] == "newer-than-us"
    assert document["auditd"]["message_type"] == "newer_than_us"
    assert document["auditd"]["data"] == {"what": "new"}


# Absent is absent


def test_a_syscall_without_a_result_has_an_unknown_outcome() -> None:
    """An exit_group record has neither success= nor exit=."""
    document = describe((SYSCALL, b"arch=c000003e syscall=112 pid=7 uid=0"))
    assert document["event"]["outcome"] == "unknown"
    assert "exit" not in document["auditd"]["data"]


def test_the_record_of_an_end_has_the_exit_code() -> None:
    """exit_group(2) is given an int in hexadecimal, of which the lowest byte is the code."""
    record = (SYSCALL, b"arch=c000003e syscall=231 a0=ffffff0b pid=7 uid=0")
    assert describe(record)["process"]["exit_code"] == 11
    assert "exit_code" not in describe(record, enriched=True)["process"]


# Tags, paths, addresses, arguments


def test_several_keys_are_several_tags() -> None:
    """The kernel joins the keys of a rule with the byte 1, and so writes them in hex."""
    assert describe(syscall(112, key="73657373696F6E017365636F6E64"))["tags"] == [
        "session",
        "second",
    ]
    assert describe(syscall(112, key='"one"'))["tags"] == ["one"]


def test_a_relative_path_is_completed_where_it_can_be() -> None:
    """file.path is the whole path; auditd.paths has it as it was given."""
    document = describe(
        syscall(2),
        (1307, b'cwd="/home/ann"'),
        (PATH, b'item=0 name="notes" inode=7 mode=0100600 ouid=4242 ogid=4242 nametype=NORMAL'),
    )
    assert document["file"]["path"] == "/home/ann/notes"
    assert document["auditd"]["paths"][0]["name"] == "notes"
    assert document["auditd"]["summary"]["object"] == {"type": "file", "primary": "notes"}


def test_an_open_that_makes_the_file_is_a_creation() -> None:
    """The record says so: nametype=CREATE."""
    document = describe(
        syscall(2, a1="42", a2="1b6"),
        (PATH, b'item=0 name="/tmp/" inode=1 mode=041777 nametype=PARENT'),
        (PATH, b'item=1 name="/tmp/new" inode=8 mode=0100644 nametype=CREATE'),
    )
    assert document["event"]["type"] == ["creation"]
    assert document["file"]["path"] == "/tmp/new"
    assert document["auditd"]["arguments"] == {"flags": "O_RDWR|O_CREAT", "mode": "0666"}


def test_a_path_below_a_descriptor_is_only_a_name() -> None:
    """No record says which directory it is."""
    document = describe(
        syscall(263, a0="4"),
        (1307, b'cwd="/home/ann"'),
        (PATH, b'item=0 name="old/notes" inode=7 nametype=DELETE'),
    )
    assert document["file"] == {"name": "notes", "inode": "7"}


def test_a_device_node_has_its_own_number() -> None:
    """file.device is the device that a node is; 00:00 is none."""
    record = b"item=0 name=/dev/null inode=4 dev=00:05 mode=020666 rdev=01:03 nametype=NORMAL"
    assert describe(syscall(2), (PATH, record))["file"]["device"] == "01:03"
    record = record.replace(b"01:03", b"00:00")
    assert "device" not in describe(syscall(2), (PATH, record))["file"]


def test_an_ipv6_peer_is_a_destination() -> None:
    """The kernel writes the sockaddr as it lies in memory."""
    saddr = b"saddr=0A0001BB0000000020010DB800000000000000000000000700000000"
    document = describe(syscall(42), (SOCKADDR, saddr))
    assert document["destination"] == {"address": "2001:db8::7", "ip": "2001:db8::7", "port": 443}
    assert document["network"] == {"direction": "egress", "type": "ipv6"}
    assert document["auditd"]["data"]["socket_family"] == "ipv6"


def test_a_signal_has_a_target() -> None:
    """OBJ_PID has the target, the argument the signal."""
    document = describe(
        syscall(62, a0="1d15", a1="f"),
        (OBJ_PID, b'opid=7445 oauid=-1 ouid=4242 oses=-1 ocomm="sleep"'),
    )
    assert document["auditd"]["summary"]["object"] == {
        "type": "process",
        "primary": "sleep",
        "secondary": "7445",
    }
    assert document["auditd"]["arguments"] == {"pid": "7445", "signal": "SIGTERM"}
    assert "oauid" not in document["auditd"]["data"]


def test_every_target_of_a_signal_is_told() -> None:
    """A signal to a process group has a record of each; what they say stands in their order."""
    document = describe(
        syscall(62, a0="ffffe2eb", a1="f"),
        (OBJ_PID, b'opid=7445 oauid=-1 ouid=4242 oses=-1 ocomm="sleep"'),
        (OBJ_PID, b'opid=7446 oauid=-1 ouid=4242 oses=-1 ocomm="sleep"'),
        (OBJ_PID, b'opid=7447 oauid=-1 ouid=0 oses=-1 ocomm="sudo"'),
    )
    data = document["auditd"]["data"]
    assert data["opid"] == ["7445", "7446", "7447"]
    assert data["ocomm"] == ["sleep", "sleep", "sudo"]
    assert data["ouid"] == ["4242", "4242", "0"]
    assert document["auditd"]["summary"]["object"]["secondary"] == "7445"


def test_both_adjustments_of_a_clock_are_told() -> None:
    """One call of clock_adjtime(2) can change several values, with a record of each."""
    document = describe(
        syscall(62),
        (1333, b"op=offset old=0 new=524"),
        (1333, b"op=freq old=-42 new=17"),
    )
    data = document["auditd"]["data"]
    assert (data["op"], data["old"], data["new"]) == (
        ["offset", "freq"],
        ["0", "-42"],
        ["524", "17"],
    )


def test_a_script_is_told_by_its_own_name() -> None:
    """That python did it says nothing."""
    document = describe(syscall(112, comm='"backup"', exe='"/usr/bin/python3.11"'))
    assert document["auditd"]["summary"]["how"] == "backup"


# User space


def test_a_message_of_user_space_says_so() -> None:
    """What the kernel wrote about the sender stays, whatever the message claims."""
    hostile = (
        b"pid=31 uid=4242 auid=4242 ses=3 subj=unconfined msg='op=x type=SYSCALL "
        b'msg=audit(1.0:1): pid=1 uid=0 auid=0 ses=9 subj=a:b:c exe="/bin/x" res=success\''
    )
    document = describe((1112, hostile))
    assert document["auditd"]["origin"] == "user"
    assert document["auditd"]["message_type"] == "user_login"
    assert document["process"]["pid"] == 31
    assert document["user"]["id"] == "4242"
    assert document["user"]["audit"]["id"] == "4242"
    assert "selinux" not in document["user"]
    assert document["auditd"]["session"] == "3"


def test_an_account_has_a_target() -> None:
    """The added user and the acting user are two."""
    document = describe((1114, b"pid=7 uid=0 msg='op=adding user id=4242 exe=\"/x\" res=success'"))
    assert document["user"]["target"] == {"id": "4242", "name": "ann"}
    assert document["user"]["id"] == "0"


def test_an_account_that_sshd_does_not_know_is_no_target() -> None:
    """Its words for them are no user names."""
    document = describe((1112, b"pid=7 uid=0 msg='op=login acct=\"(unknown)\" res=failed'"))
    assert "target" not in document["user"]
    assert document["auditd"]["data"]["acct"] == "(unknown)"


# Options


def test_raw_messages_are_an_option() -> None:
    """They are written as auditd's log has them."""
    document = describe(
        syscall(112), (PROCTITLE, b'proctitle="x"'), options=Options(include_raw_message=True)
    )
    assert document["auditd"]["messages"][1] == (
        'type=PROCTITLE msg=audit(1777630272.123:8972): proctitle="x"'
    )


def test_warnings_are_counted_and_an_option() -> None:
    """What can't be read is left out, and told."""
    describer = AuditEventEncoder(FixedNames(), SmallTables(), Options(include_warnings=True))
    document, warnings = describer.describe(event(syscall(112, uid="root")))
    assert warnings == ["root is no uid"]
    assert document["auditd"]["warnings"] == warnings
    assert "id" not in document["user"]
    assert validate(document) == []


# Any bytes

VALUES = st.one_of(
    st.binary(max_size=40),
    st.integers(-(2**70), 2**70).map(lambda number: str(number).encode()),
    st.binary(max_size=24).map(lambda raw: raw.hex().encode()),
    st.sampled_from([b"", b"?", b"(null)", b"(none)", b'"', b"'", b"4294967295", b"-1", b'"x"']),
)
FIELD_NAMES = st.sampled_from(
    "arch syscall success exit a0 a1 a2 a3 items ppid pid auid uid gid euid suid fsuid egid sgid "
    "fsgid tty ses comm exe subj key msg res argc item name inode dev mode ouid ogid rdev nametype "
    "obj cwd proctitle saddr opid ocomm acct id grp addr rport laddr lport hostname terminal op "
    "apparmor list sig code table a1[0] a1_len".split()
)
TEXTS = st.one_of(
    st.binary(max_size=200),
    st.lists(st.tuples(FIELD_NAMES, VALUES), max_size=30).map(
        lambda pairs: b" ".join(name.encode() + b"=" + value for name, value in pairs)
    ),
    st.lists(st.tuples(FIELD_NAMES, VALUES), max_size=10).map(
        lambda pairs: (
            b"pid=1 uid=0 msg='"
            + b" ".join(name.encode() + b"=" + value for name, value in pairs)
            + b"'"
        )
    ),
)
TYPES = st.one_of(
    st.sampled_from([SYSCALL, PATH, EXECVE, 1307, PROCTITLE, SOCKADDR, OBJ_PID, 1321]),
    st.sampled_from(sorted(normalizations.RECORD_TYPES)),
    st.integers(0, 2**16),
)


@given(st.lists(st.tuples(TYPES, TEXTS), max_size=8), st.integers(0, 10**20), st.booleans())
def test_any_bytes_give_good_ecs(
    records: list[tuple[int, bytes]], serial: int, enriched: bool
) -> None:
    """No record can make a document that isn't valid UTF-8, JSON and ECS, nor make it fail."""
    options = Options(include_raw_message=True, include_warnings=True)
    describer = AuditEventEncoder(FixedNames(), SmallTables(), options)
    document, warnings = describer.describe(event(*records, serial=serial), enriched=enriched)
    assert validate(document) == []
    assert json.loads(orjson.dumps(document)) == document
    assert all(isinstance(warning, str) and warning for warning in warnings)


@given(st.lists(st.tuples(st.just(SYSCALL), TEXTS), min_size=1, max_size=1), VALUES, VALUES)
def test_any_syscall_gives_good_ecs(
    records: list[tuple[int, bytes]], path: bytes, saddr: bytes
) -> None:
    """The fields of the records that a syscall's event has are as good as their values."""
    number, text = syscall(59)
    records = [(number, text + b" " + records[0][1]), (PATH, b"item=0 name=" + path + b" mode=x")]
    records.append((SOCKADDR, b"saddr=" + saddr))
    document, _ = AuditEventEncoder(FixedNames(), SmallTables()).describe(event(*records))
    assert validate(document) == []
    assert document["process"]["pid"] == 10043
