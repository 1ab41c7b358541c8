"""Audit events as documents: real records in, ECS out, and no record can forge a field."""

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
    """Describe records that are all valid, and check the document against ECS."""
    encoder = AuditEventEncoder(FixedNames(), SmallTables(), options)
    document, warnings = encoder.describe(event(*records), enriched=enriched)
    assert warnings == []
    assert validate(document) == []
    return document


# Golden documents


@pytest.mark.parametrize("log", sorted(GOLDEN.glob("*.log")), ids=lambda path: path.stem)
def test_golden(log: Path, update_golden: bool) -> None:
    """The records of NAME.log yield the documents of NAME.json, which are valid ECS."""
    kernel_names = pytest.importorskip("sessiond.audit.kernel_names")
    encoder = AuditEventEncoder(FixedNames(), kernel_names, Options(include_warnings=True))
    documents = [encoder.describe(one)[0] for one in events(log)]
    assert [validate(document) for document in documents] == [[]] * len(documents)
    golden = log.with_suffix(".json")
    if update_golden:
        text = json.dumps(documents, indent=1, ensure_ascii=False, sort_keys=True)
        golden.write_text(text + "\n", encoding="utf-8")
    assert documents == json.loads(golden.read_text(encoding="utf-8"))


@pytest.mark.parametrize("log", sorted(DATA.glob("*.log")), ids=lambda path: path.stem)
def test_every_event_of_a_real_log_is_good_ecs(log: Path) -> None:
    """Every event of a real rule set has a category, a type and an action, and no warning."""
    kernel_names = pytest.importorskip("sessiond.audit.kernel_names")
    encoder = AuditEventEncoder(FixedNames(), kernel_names)
    for one in events(log):
        document, warnings = encoder.describe(one)
        assert (one, warnings, validate(document)) == (one, [], [])
        assert document["event"]["category"]
        assert document["event"]["type"]
        assert document["event"]["action"]
        # The kernel frees the rules of Landlock on its own.
        if document["event"]["action"] != "landlock-domain":
            assert document["auditd"]["summary"]["actor"]


# Executions


def test_a_successful_execve_is_an_exec() -> None:
    """A process tree starts from its category, type and action."""
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
    """No process starts, and error.code has the error's name."""
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


def test_an_enriched_event_has_only_pid_and_title() -> None:
    """The process has only the pid and the title."""
    document = describe(
        syscall(59),
        (EXECVE, b'argc=1 a0="uname"'),
        (PROCTITLE, b"proctitle=756E616D65002D61"),
        enriched=True,
    )
    assert document["process"] == {"pid": 10043, "title": "uname -a"}


def test_a_machine_may_have_numbers_of_its_own() -> None:
    """On MIPS 146 is ECONNREFUSED; the oldest Unix errors are the same everywhere."""
    tables = pytest.importorskip("sessiond.audit.kernel_names")
    refused = syscall(5041, arch="80000008", success="no", exit="-146", a0="2", a1="2")
    document, _ = AuditEventEncoder(FixedNames(), tables).describe(event(refused))
    assert document["error"] == {"code": "-146"}
    assert "arguments" not in document["auditd"]
    refused = syscall(5040, arch="80000008", success="no", exit="-13")
    document, _ = AuditEventEncoder(FixedNames(), tables).describe(event(refused))
    assert document["error"] == {"code": "EACCES"}


def test_an_unknown_syscall_is_named_by_its_number() -> None:
    """The document has a user, an action and an outcome."""
    document = describe(syscall(999))
    assert document["event"]["action"] == "syscall-999"
    assert document["event"]["category"] == ["process"]
    assert document["auditd"]["data"]["syscall"] == "999"


def test_an_unknown_record_is_named_by_its_type() -> None:
    """A newer kernel has records that the tables lack."""
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
    """The argument of exit_group(2) is an int in hexadecimal, whose lowest byte is the code."""
    record = (SYSCALL, b"arch=c000003e syscall=231 a0=ffffff0b pid=7 uid=0")
    assert describe(record)["process"]["exit_code"] == 11
    assert "exit_code" not in describe(record, enriched=True)["process"]


# Tags, paths, addresses, arguments


def test_several_keys_are_several_tags() -> None:
    """The kernel joins the keys of a rule with the byte 1, and therefore writes them in hex."""
    assert describe(syscall(112, key="73657373696F6E017365636F6E64"))["tags"] == [
        "session",
        "second",
    ]
    assert describe(syscall(112, key='"one"'))["tags"] == ["one"]
    assert describe(syscall(112, key='"key=one"'))["tags"] == ["one"]
    assert "tags" not in describe(syscall(112, key="(null)ARCH=x86_64"))


def test_a_changed_rule_is_known_by_its_key() -> None:
    """The tag is added to the key of the rule that recorded the event, if any."""
    changed = (1305, b'auid=4242 ses=1 op=add_rule key="time" list=4 res=1')
    document = describe(changed)
    assert document["tags"] == ["time"]
    assert document["auditd"]["data"] == {"op": "add_rule", "list": "exit"}
    assert describe(syscall(42, key='"net"'), changed, changed)["tags"] == ["net", "time"]


def test_what_the_kernel_tells_of_a_call_is_about_both() -> None:
    """A denied unlink is an event of a file, too; audit's own socket adds no network."""
    denied = b'apparmor="DENIED" operation="unlink" profile="x" name="/y" pid=7 comm="rm"'
    document = describe(syscall(263, success="no", exit="-13"), (1400, denied))
    assert document["event"]["category"] == ["intrusion_detection", "file"]
    assert document["event"]["type"] == ["denied", "deletion"]
    changed = describe(syscall(42), (1305, b"op=add_rule list=4 res=1"))
    assert changed["event"]["category"] == ["process", "configuration"]


def test_a_denial_that_is_not_enforced_leaves_the_outcome_to_the_call() -> None:
    """As with SELinux in permissive mode; without the call's record only the verdict is known."""
    denied = b"avc:  denied  { read } for  pid=7 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file"
    document = describe(syscall(2), (1400, denied))
    assert document["event"]["outcome"] == "success"
    assert document["event"]["type"][0] == "denied"
    assert document["auditd"]["summary"]["actor"]["primary"] == "a:b:c:s0"
    assert describe((1400, denied))["event"]["outcome"] == "failure"


def test_a_program_beside_the_call_is_not_the_acting_one() -> None:
    """Landlock's record of a domain has the program that made it."""
    document = describe(
        (1423, b"domain=1a2 blockers=scope.signal opid=1 ocomm=x"),
        (1424, b'domain=1a2 status=allocated pid=7 uid=0 exe="/srv/box" comm="box"'),
        syscall(62, exe='"/bin/kill"', success="no", exit="-13"),
    )
    assert document["auditd"]["summary"]["how"] == "/bin/kill"
    assert document["auditd"]["data"]["exe"] == "/srv/box"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1324, b"proto=6 saddr=192.0.2.1 daddr=192.0.2.2 sport=1025 dport=443"),
        (1423, b"domain=1a2 blockers=net.x saddr=192.0.2.1 src=1025 daddr=192.0.2.2 dest=443"),
    ],
)
def test_addresses_of_the_kernel_have_their_ports(number: int, text: bytes) -> None:
    """A packet of netfilter and a refused connection of an LSM name them differently."""
    document = describe((number, text))
    assert document["source"] == {"address": "192.0.2.1", "ip": "192.0.2.1", "port": 1025}
    assert document["destination"] == {"address": "192.0.2.2", "ip": "192.0.2.2", "port": 443}


def test_a_relative_path_is_completed_where_it_can_be() -> None:
    """file.path is the whole path; auditd.paths has it as it was recorded."""
    document = describe(
        syscall(2),
        (1307, b'cwd="/home/ann"'),
        (PATH, b'item=0 name="notes" inode=7 mode=0100600 ouid=4242 ogid=4242 nametype=NORMAL'),
    )
    assert document["file"]["path"] == "/home/ann/notes"
    assert document["auditd"]["paths"][0]["name"] == "notes"
    assert document["auditd"]["summary"]["object"] == {"type": "file", "primary": "notes"}


def test_an_open_that_makes_the_file_is_a_creation() -> None:
    """The record says nametype=CREATE."""
    document = describe(
        syscall(2, a1="42", a2="1b6"),
        (PATH, b'item=0 name="/tmp/" inode=1 mode=041777 nametype=PARENT'),
        (PATH, b'item=1 name="/tmp/new" inode=8 mode=0100644 nametype=CREATE'),
    )
    assert document["event"]["type"] == ["creation"]
    assert document["file"]["path"] == "/tmp/new"
    assert document["auditd"]["arguments"] == {"flags": "O_RDWR|O_CREAT", "mode": "0666"}


def test_a_path_below_a_descriptor_is_only_a_name() -> None:
    """No record names the directory that the path is relative to."""
    document = describe(
        syscall(263, a0="4"),
        (1307, b'cwd="/home/ann"'),
        (PATH, b'item=0 name="old/notes" inode=7 nametype=DELETE'),
    )
    assert document["file"] == {"name": "notes", "inode": "7"}


def test_a_device_node_has_its_own_number() -> None:
    """file.device is the device that a node represents; the kernel writes 00:00 for other files."""
    record = b"item=0 name=/dev/null inode=4 dev=00:05 mode=020666 rdev=01:03 nametype=NORMAL"
    assert describe(syscall(2), (PATH, record))["file"]["device"] == "01:03"


@pytest.mark.parametrize(
    ("name", "mode", "file"),
    [
        ("notes.tar.gz", "0100644", {"name": "notes.tar.gz", "extension": "gz"}),
        (".profile", "0100644", {"name": ".profile"}),
        ("sub/notes.", "0100644", {"name": "notes."}),
        ("conf.d/", "040755", {"name": "conf.d"}),
        ("conf.d", "040755", {"name": "conf.d"}),
    ],
)
def test_a_file_has_a_name_and_an_extension(name: str, mode: str, file: dict[str, str]) -> None:
    """The name is the last part of the path, the extension the part after a file's last dot."""
    document = describe(
        syscall(2),
        (1307, b'cwd="/home/ann"'),
        (PATH, f'item=0 name="{name}" inode=7 mode={mode} nametype=CREATE'.encode()),
    )
    found = document["file"]
    assert {member: found[member] for member in ("name", "extension") if member in found} == file
    assert found["path"] == "/home/ann/" + name.rstrip("/")


def test_the_root_directory_keeps_its_slash() -> None:
    """It has a path and no name."""
    document = describe(syscall(2), (PATH, b'item=0 name="/" inode=2 mode=040755 nametype=NORMAL'))
    assert document["file"] == {"path": "/", "inode": "2", "mode": "0755", "type": "dir"}


def test_a_label_of_selinux_is_split_in_paths_too() -> None:
    """As in Auditbeat; the label of another security module stays whole."""
    record = b'item=0 name="/x" inode=4 mode=0100644 obj=system_u:object_r:shadow_t:s0'
    (path,) = describe(syscall(2), (PATH, record))["auditd"]["paths"]
    assert {name: path[name] for name in path if name.startswith("obj")} == {
        "obj_user": "system_u",
        "obj_role": "object_r",
        "obj_domain": "shadow_t",
        "obj_level": "s0",
    }
    (path,) = describe(syscall(2), (PATH, b'item=0 name="/x" obj=_'))["auditd"]["paths"]
    assert path["obj"] == "_"


def test_an_ipv6_peer_is_a_destination() -> None:
    """The kernel writes the sockaddr as in its memory."""
    saddr = b"saddr=0A0001BB0000000020010DB800000000000000000000000700000000"
    document = describe(syscall(42), (SOCKADDR, saddr))
    assert document["destination"] == {"address": "2001:db8::7", "ip": "2001:db8::7", "port": 443}
    assert document["network"] == {"direction": "egress", "type": "ipv6"}
    assert document["auditd"]["data"]["socket"] == {
        "family": "ipv6",
        "addr": "2001:db8::7",
        "port": "443",
    }


def test_a_family_without_a_usual_name_is_told_by_its_number() -> None:
    """Elastic's rules use 38 for AF_ALG; the address is written as raw bytes."""
    saddr = b"saddr=2600686173680000"
    assert describe(syscall(42), (SOCKADDR, saddr))["auditd"]["data"]["socket"] == {
        "family": "38",
        "saddr": "2600686173680000",
    }


def test_no_message_can_take_the_place_of_the_socket() -> None:
    """An index that has an object in this place refuses a document with a text."""
    document = describe((1112, b"pid=31 uid=0 msg='op=login socket=x res=success'"))
    assert document["auditd"]["data"]["socket_"] == "x"
    assert "socket" not in document["auditd"]["data"]


def test_a_unix_socket_has_a_direction_too() -> None:
    """The path is the address of the other end."""
    document = describe(syscall(42), (SOCKADDR, b"saddr=01002F6465762F6C6F6700"))
    assert document["destination"] == {"address": "/dev/log", "path": "/dev/log"}
    assert document["network"] == {"direction": "egress"}
    saddr = b"saddr=100000000000000000000000"
    document = describe(syscall(42), (SOCKADDR, saddr))
    assert document["network"] == {"direction": "egress"}
    assert "destination" not in document


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


def test_every_target_of_a_signal_is_written() -> None:
    """A signal to a process group has a record for each target; their values keep the order."""
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


def test_both_adjustments_of_a_clock_are_written() -> None:
    """One call of clock_adjtime(2) can change several values, with a record for each."""
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


def test_a_script_has_its_own_name() -> None:
    """The name of the interpreter alone says little."""
    document = describe(syscall(112, comm='"backup"', exe='"/usr/bin/python3.11"'))
    assert document["auditd"]["summary"]["how"] == "backup"


# User space


def test_a_message_of_user_space_says_so() -> None:
    """The kernel's data about the sender stays, whatever the message claims."""
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
    """The added user, the login user and the acting user are distinguished."""
    message = b"pid=7 uid=0 auid=1000 msg='op=adding user id=4242 exe=\"/x\" res=success'"
    document = describe((1114, message))
    assert document["user"] == {
        "id": "1000",
        "audit": {"id": "1000"},
        "effective": {"id": "0", "name": "root"},
        "target": {"id": "4242", "name": "ann"},
    }
    assert document["related"] == {"user": ["ann", "root"]}


def login(auid: int | str, account: str, number: int = 1112) -> dict[str, Any]:
    """Return a message of sshd, which runs as root, about an account."""
    message = f'op=login {account} exe="/usr/sbin/sshd" addr=192.0.2.7 terminal=ssh res=success'
    return describe((number, f"pid=7 uid=0 auid={auid} ses=3 msg='{message}'".encode()))


def test_ipv4_through_an_ipv6_socket_is_ipv4() -> None:
    """A program with a socket of :: has such peers; people and rules look for IPv4."""
    saddr = b"saddr=0A0001BB0000000000000000000000000000FFFFC000020700000000"
    document = describe(syscall(42), (SOCKADDR, saddr))
    assert document["destination"] == {"address": "192.0.2.7", "ip": "192.0.2.7", "port": 443}
    assert document["network"] == {"direction": "egress", "type": "ipv4"}
    assert document["auditd"]["data"]["socket"]["family"] == "ipv6"
    message = (
        b"pid=7 uid=0 auid=1 ses=3 msg='op=login acct=\"ann\" addr=::ffff:192.0.2.7 res=success'"
    )
    source = describe((1112, message))["source"]
    assert source == {"address": "::ffff:192.0.2.7", "ip": "192.0.2.7"}


def test_a_login_has_its_users_as_auditbeat_writes_them() -> None:
    """The user is the login user; an effective user is written only if the account differs."""
    document = login(4242, 'acct="ann"')
    assert document["user"] == {
        "id": "4242",
        "name": "ann",
        "audit": {"id": "4242", "name": "ann"},
        "target": {"name": "ann"},
    }
    assert document["related"] == {"user": ["ann"]}
    assert document["auditd"]["summary"]["actor"] == {"primary": "ann", "secondary": "ann"}
    assert document["network"] == {"direction": "ingress"}
    assert document["process"]["real_user"] == {"id": "0", "name": "root"}
    assert login(4242, "id=4242")["user"] == {
        **document["user"],
        "target": {"id": "4242", "name": "ann"},
    }


def test_another_account_than_the_login_user_is_the_effective_one() -> None:
    """As for su and sudo: the login user, and the user that it acts as."""
    document = login(1000, 'acct="ann"')
    assert document["user"]["id"] == "1000"
    assert document["user"]["effective"] == {"id": "4242", "name": "ann"}
    assert document["auditd"]["summary"]["actor"] == {"primary": "1000", "secondary": "ann"}


def test_a_failed_login_has_no_login_user() -> None:
    """The daemon that asks for the password is not the user."""
    document = login(4294967295, 'acct="root"')
    assert document["user"] == {
        "effective": {"id": "0", "name": "root"},
        "target": {"name": "root"},
    }
    assert document["auditd"]["summary"]["actor"] == {"primary": "unset", "secondary": "root"}


def test_an_account_may_be_named_by_its_uid() -> None:
    """As in messages of pam_tally2; the sender stays the same."""
    document = login(1000, "uid=4242 reset=0", 1101)
    assert document["user"]["effective"] == {"id": "4242", "name": "ann"}
    assert document["user"]["target"] == {"id": "4242", "name": "ann"}
    assert document["process"]["real_user"] == {"id": "0", "name": "root"}
    named = login(1000, 'uid=4242 acct="bob"', 1101)
    assert named["user"]["target"] == {"name": "bob"}
    assert "target" not in login(1000, "uid=? reset=0", 1101)["user"]


@pytest.mark.parametrize(
    ("kind", "said", "account"),
    [
        (1112, b"uid=4242: exe=", {"id": "4242", "name": "ann"}),
        (1112, b'acct="ann": exe=', {"name": "ann"}),
        (1114, b"op=adding user id=4242 exe=", {"id": "4242", "name": "ann"}),
        (1108, b"op=change password acct=ann exe=", {"name": "ann"}),
    ],
)
def test_the_old_text_of_other_programs_says_the_same(
    kind: int, said: bytes, account: dict[str, str]
) -> None:
    """sshd has a colon behind the account, and the tools of shadow have none."""
    for result, outcome in ((b"success", "success"), (b"failed", "failure")):
        rest = b'"/usr/sbin/x" (hostname=h, addr=192.0.2.7, terminal=pts/0 res=%b)' % result
        document = describe((kind, b"user pid=13 uid=0 auid=0 msg='%b%b'" % (said, rest)))
        assert document["event"]["outcome"] == outcome
        assert document["user"]["target"] == account
        assert document["source"]["ip"] == "192.0.2.7"
        assert document["process"]["executable"] == "/usr/sbin/x"
        data = document["auditd"]["data"]
        assert (data["hostname"], data["terminal"]) == ("h", "pts/0")


def test_the_old_text_of_pam_says_the_same() -> None:
    """Until 2007 it had brackets and commas."""
    message = (
        b'user pid=13015 uid=0 auid=0 msg=\'PAM: session open acct=ann : exe="/usr/sbin/crond" '
        b"(hostname=?, addr=192.0.2.7, terminal=cron res=success)'"
    )
    document = describe((1105, message))
    assert document["event"]["outcome"] == "success"
    assert document["user"]["effective"] == {"id": "4242", "name": "ann"}
    assert document["source"]["ip"] == "192.0.2.7"
    assert document["process"]["executable"] == "/usr/sbin/crond"
    data = document["auditd"]["data"]
    assert (data["acct"], data["terminal"], "hostname" in data) == ("ann", "cron", False)


def test_a_session_is_a_session() -> None:
    """USER_START and USER_END are not authentications."""
    assert login(4242, 'acct="ann"', 1105)["event"]["category"] == ["session"]
    assert login(4242, 'acct="ann"', 1106)["event"]["type"] == ["end"]


def test_a_login_id_is_set_by_the_one_before() -> None:
    """The actor has the old id, the process the new one."""
    document = describe((1006, b"pid=7 uid=0 old-auid=1000 auid=4242 old-ses=1 ses=2 res=1"))
    assert document["auditd"]["summary"]["actor"] == {"primary": "1000", "secondary": "root"}
    assert document["auditd"]["summary"]["object"] == {"type": "user-session", "primary": "4242"}
    assert document["user"] == {
        "id": "1000",
        "audit": {"id": "4242", "name": "ann"},
        "effective": {"id": "4242", "name": "ann"},
    }


def test_a_command_of_sudo_has_the_directory_that_it_is_run_in() -> None:
    """The directory comes from the message."""
    message = (
        b"pid=7 uid=4242 auid=4242 msg='cwd=\"/srv\" cmd=6C73202D6C terminal=pts/0 res=success'"
    )
    for enriched in (True, False):
        document = describe((1123, message), enriched=enriched)
        assert document["process"]["working_directory"] == "/srv"
        assert document["auditd"]["data"]["cmd"] == "ls -l"


def test_an_account_that_sshd_does_not_know_is_no_target() -> None:
    """sshd's words for unknown users are not names; the requested name is kept."""
    document = describe((1112, b"pid=7 uid=0 msg='op=login acct=\"(unknown)\" res=failed'"))
    assert document["user"] == {"effective": {"name": "(unknown)"}}
    assert document["auditd"]["data"]["acct"] == "(unknown)"


# Options


def test_raw_messages_are_an_option() -> None:
    """They are written as in auditd's log."""
    document = describe(
        syscall(112), (PROCTITLE, b'proctitle="x"'), options=Options(include_raw_message=True)
    )
    assert document["auditd"]["messages"][1] == (
        'type=PROCTITLE msg=audit(1777630272.123:8972): proctitle="x"'
    )
    assert document["event"]["original"] == document["auditd"]["messages"]


def test_warnings_are_counted_and_an_option() -> None:
    """Unparsable fields are omitted, with a warning."""
    encoder = AuditEventEncoder(FixedNames(), SmallTables(), Options(include_warnings=True))
    document, warnings = encoder.describe(event(syscall(112, uid="root")))
    assert warnings == ["root is no uid"]
    assert document["auditd"]["warnings"] == document["error"]["message"] == warnings
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
    "apparmor list sig code table a1[0] a1_len socket old-auid cmd uring_op family".split()
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
    """Any record yields a document that is valid UTF-8, JSON and ECS."""
    options = Options(include_raw_message=True, include_warnings=True)
    encoder = AuditEventEncoder(FixedNames(), SmallTables(), options)
    document, warnings = encoder.describe(event(*records, serial=serial), enriched=enriched)
    assert validate(document) == []
    assert json.loads(orjson.dumps(document)) == document
    assert all(isinstance(warning, str) and warning for warning in warnings)


@given(st.lists(st.tuples(st.just(SYSCALL), TEXTS), min_size=1, max_size=1), VALUES, VALUES)
def test_any_syscall_gives_good_ecs(
    records: list[tuple[int, bytes]], path: bytes, saddr: bytes
) -> None:
    """The fields of a syscall's records are as valid as their values."""
    number, text = syscall(59)
    records = [(number, text + b" " + records[0][1]), (PATH, b"item=0 name=" + path + b" mode=x")]
    records.append((SOCKADDR, b"saddr=" + saddr))
    document, _ = AuditEventEncoder(FixedNames(), SmallTables()).describe(event(*records))
    assert validate(document) == []
    assert document["process"]["pid"] == 10043


def test_a_module_without_its_call_is_a_loaded_module() -> None:
    """The kernel loads one by itself, or a rule has left the system call out."""
    document = describe((1330, b'name="nft_chain"'))
    assert document["event"]["action"] == "loaded-kernel-module"
    assert document["event"]["category"] == ["driver"]
    assert document["auditd"]["data"] == {"name": "nft_chain"}
    assert document["auditd"]["summary"]["object"] == {"type": "file", "primary": "nft_chain"}
    assert describe((1302, b'item=0 name="/x"'))["event"]["action"] == "path"
