"""The findings of `sessiond check`, on simulated hosts and on this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sessiond.audit.kernel import listeners
from sessiond.audit.kernel.client import AuditClient, KernelAuditStatus
from sessiond.audit.kernel.errors import AuditRequestError
from sessiond.audit.rules import binary, parser
from sessiond.cli import check
from sessiond.cli.check import Host, HostFinding
from sessiond.system.proc import CAPABILITIES

ALL_CAPABILITIES = 0x1FFFFFFFFFF
NETLINK_HEADER = "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n"
STATUS = KernelAuditStatus(
    enabled=0,
    failure=1,
    pid=0,
    rate_limit=0,
    backlog_limit=64,
    lost=0,
    backlog=0,
    features=127,
)


def write(path: Path, text: str) -> None:
    """Write a file and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def link(path: Path, target: str) -> None:
    """Create or replace a symbolic link and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def set_capabilities(host: Host, number: int) -> None:
    """Give the process that checks this effective set."""
    write(host.proc / "self/status", f"Name:\tsessiond\nCapEff:\t{number:016x}\n")


def rules(text: str) -> Callable[[], list[bytes]]:
    """Return a kernel that lists these rules."""
    return lambda: [binary.canonical(rule.data) for rule in parser.parse(text, "rules")]


def without(*names: str) -> int:
    """Return all capabilities except these."""
    return ALL_CAPABILITIES & ~sum(1 << CAPABILITIES[name] for name in names)


def status_with(**values: int) -> Callable[[], KernelAuditStatus]:
    """Return a kernel that answers STATUS with changes."""
    return lambda: KernelAuditStatus(
        **{name: getattr(STATUS, name) for name in STATUS.__struct_fields__} | values
    )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host without problems."""
    proc, sys_ = tmp_path / "proc", tmp_path / "sys"
    link(proc / "self/ns/pid", "pid:[4026531836]")
    link(proc / "self/ns/user", "user:[4026531837]")
    link(proc / "self/ns/net", "net:[4026531833]")
    write(proc / "2/comm", "kthreadd\n")
    link(proc / "2/ns/net", "net:[4026531833]")
    write(proc / "cmdline", "quiet audit=1\n")
    write(proc / "net/netlink", NETLINK_HEADER)
    write(proc / "self/mounts", "proc /proc proc rw,nosuid,relatime 0 0\n")
    write(proc / "sys/net/core/rmem_max", "212992\n")
    write(sys_ / "kernel/btf/vmlinux", "BTF")
    write(sys_ / "kernel/security/lockdown", "[none] integrity confidentiality\n")
    write(sys_ / "kernel/tracing/events/sched/sched_process_exec/id", "315\n")
    write(tmp_path / "run/systemd/system/link", "")
    write(tmp_path / "run/dbus/system_bus_socket", "")
    made = Host(
        proc,
        sys_,
        tmp_path,
        lambda: STATUS,
        list,
        importable=lambda _: True,
        loadable=lambda _: True,
        read_only=lambda _: False,
    )
    set_capabilities(made, ALL_CAPABILITIES)
    return made


def problems(host: Host) -> dict[str, HostFinding]:
    """Return the findings that are not ok, by topic."""
    return {finding.name: finding for finding in check.report(host) if finding.level != "ok"}


def test_a_good_host_has_no_finding(host: Host) -> None:
    """Every topic is ok, and the exit code is 0 even with --strict."""
    findings = check.report(host)
    assert {finding.name for finding in findings} == set(check.TOPICS)
    assert problems(host) == {}
    assert check.exit_code(findings, strict=True) == 0


@pytest.mark.parametrize(
    ("topic", "level", "change"),
    [
        ("audit", "fail", lambda h: write(h.proc / "cmdline", "audit=0")),
        ("user-namespace", "fail", lambda h: link(h.proc / "self/ns/user", "user:[4026532001]")),
        ("user-namespace", "warn", lambda h: (h.proc / "self/ns/user").unlink()),
        ("pid-namespace", "fail", lambda h: link(h.proc / "self/ns/pid", "pid:[4026532002]")),
        ("network-namespace", "warn", lambda h: link(h.proc / "self/ns/net", "net:[4026532003]")),
        ("audit-at-boot", "warn", lambda h: write(h.proc / "cmdline", "quiet")),
        ("btf", "warn", lambda h: write(h.sys / "kernel/btf/vmlinux", "")),
        ("btf", "warn", lambda h: (h.sys / "kernel/btf/vmlinux").unlink()),
        (
            "lockdown",
            "warn",
            lambda h: write(h.sys / "kernel/security/lockdown", "none integrity [confidentiality]"),
        ),
        (
            "bpf-capabilities",
            "warn",
            lambda h: set_capabilities(h, without("CAP_BPF", "CAP_SYS_ADMIN")),
        ),
        ("procfs", "warn", lambda h: set_capabilities(h, without("CAP_SYS_PTRACE"))),
        ("audit-listeners", "warn", lambda h: (h.proc / "net/netlink").unlink()),
        ("service-manager", "warn", lambda h: shutil.rmtree(h.root / "run/systemd")),
        ("service-manager", "warn", lambda h: (h.root / "run/dbus/system_bus_socket").unlink()),
    ],
)
def test_each_problem_has_its_topic(
    host: Host, topic: str, level: str, change: Callable[[Host], object]
) -> None:
    """One problem causes one finding with its own exit code."""
    change(host)
    findings = problems(host)
    assert list(findings) == [topic]
    assert findings[topic].level == level
    assert check.exit_code(check.report(host), strict=True) == check.TOPICS[topic][0]


def test_libraries_that_are_missing_are_told(host: Host) -> None:
    """Without libaudit or systemd's library sessiond can't work; without bcc the tracer can't."""
    found = problems(host._replace(importable=lambda _: False, loadable=lambda _: False))
    assert {name: finding.level for name, finding in found.items()} == {
        "libaudit": "fail",
        "bcc": "warn",
        "service-manager": "fail",
    }


def test_a_host_without_procfs_is_told_how_to_mount_it(host: Host) -> None:
    """A chroot often lacks it."""
    (host.proc / "self/status").unlink()
    found = problems(host)["procfs"]
    assert (found.level, found.text) == ("fail", f"{host.proc} is not mounted")
    assert found.fix.startswith("mount -t proc")


def test_read_only_directories_are_told_with_their_setting(host: Host, tmp_path: Path) -> None:
    """The daemon could not start; an output file is judged by its own topic."""
    run = tmp_path / "sessiond"
    host = host._replace(read_only=lambda path: path == run)
    found = check.report(host, directories={"runtime_directory": run, "state_directory": Path()})
    [finding] = [finding for finding in found if finding.name == "directories"]
    assert (finding.level, finding.exit_code) == ("fail", 35)
    assert finding.text == f"{run} is on a read-only file system"
    assert "set runtime_directory" in finding.fix
    finding = check.report(host, output=run)[-1]
    assert (finding.name, finding.level) == ("output", "fail")
    assert finding.text == f"{run} is on a read-only file system"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_read_only_mount_is_recognized() -> None:
    """The directory does not exist yet: the one above it decides."""
    script = (
        "from pathlib import Path; from sessiond.cli.check import Host;"
        "print(Host().read_only(Path('/mnt/a/b')), Host().read_only(Path('/tmp/a/b')))"
    )
    mount = 'mount -t tmpfs -o ro none /mnt && exec "$0" -c "$1"'
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            mount,
            sys.executable,
            script,
        ],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True False\n", done.stderr


def test_reading_without_control_is_half_of_the_job(host: Host) -> None:
    """CAP_AUDIT_READ alone is enough for multicast; without both, reading is impossible."""
    set_capabilities(host, without("CAP_AUDIT_CONTROL"))
    assert problems(host)["audit-capabilities"].level == "warn"
    set_capabilities(host, without("CAP_AUDIT_CONTROL", "CAP_AUDIT_READ"))
    assert problems(host)["audit-capabilities"].level == "fail"


def test_locked_configuration_is_told(host: Host) -> None:
    """enabled 2 is reported with the remedy."""
    found = problems(host._replace(audit_status=status_with(enabled=2)))["audit-locked"]
    assert found.level == "warn"
    assert "reboot" in found.fix


def test_owner_is_named(host: Host) -> None:
    """The registered audit daemon is named with its pid; sessiond itself is fine."""
    taken = host._replace(audit_status=status_with(pid=711))
    write(host.proc / "711/comm", "auditd\n")
    assert "auditd (pid 711)" in problems(taken)["audit-owner"].text
    write(host.proc / "711/comm", "sessiond\n")
    assert problems(taken) == {}
    write(host.proc / "711/comm", "\x1b[31mevil\n")
    assert "\\x1b[31mevil (pid 711)" in problems(taken)["audit-owner"].text


def test_kernel_that_refuses_is_quoted(host: Host) -> None:
    """The error of the audit socket is the finding."""

    def refuse() -> KernelAuditStatus:
        raise AuditRequestError(111, "can't read the audit status: nobody is there")

    found = problems(host._replace(audit_status=refuse))["audit"]
    assert (found.level, found.text) == ("fail", "can't read the audit status: nobody is there")


def test_listeners_are_found_by_their_sockets(host: Host) -> None:
    """Sockets of protocol 9 that are in group 1 read audit records: journald's and others."""
    sockets = [
        "0000000000000000 9   1          00000001 0        0        0     2        12       100",
        "0000000000000000 9   2          00000001 0        0        0     2        0        101",
        "0000000000000000 9   3          00000000 0        0        0     2        0        102",
        "0000000000000000 0   4          00000001 0        0        0     2        0        103",
    ]
    write(host.proc / "net/netlink", NETLINK_HEADER + "\n".join(sockets))
    write(host.proc / "300/comm", "systemd-journal\n")
    link(host.proc / "300/fd/7", "socket:[100]")
    write(host.proc / "301/comm", "falcon\n")
    link(host.proc / "301/fd/3", "socket:[101]")
    found = problems(host)
    assert "12 dropped" in found["journald"].text
    assert "falcon (pid 301)" in found["audit-listeners"].text
    assert [listener.inode for listener in listeners.listeners(host.proc) or []] == [100, 101]


def test_receive_buffer_is_limited_without_net_admin(host: Host) -> None:
    """The host's limit is reported with a sufficient value."""
    set_capabilities(host, without("CAP_NET_ADMIN"))
    found = problems(host)
    assert "416 KiB at most" in found["receive-buffer"].text
    assert "net.core.rmem_max=33554432" in found["receive-buffer"].fix
    assert set(found) == {"receive-buffer", "proc-connector"}
    write(host.proc / "sys/net/core/rmem_max", "33554432\n")
    assert set(problems(host)) == {"proc-connector"}


@pytest.mark.parametrize(("option", "hidden"), [("hidepid=2", True), ("hidepid=0", False)])
def test_hidepid_matters_without_ptrace(host: Host, option: str, hidden: bool) -> None:
    """A /proc that hides processes is reported if it affects this process."""
    write(host.proc / "self/mounts", f"proc /proc proc rw,{option} 0 0\n")
    assert problems(host) == {}
    set_capabilities(host, without("CAP_SYS_PTRACE"))
    texts = [f.text for f in check.report(host) if f.name == "procfs" and f.level == "warn"]
    assert any(option in text for text in texts) is hidden


def test_container_is_guessed_by_its_files(host: Host) -> None:
    """The files that container engines leave matter only when the namespaces are not the host's."""
    write(host.root / ".dockerenv", "")
    assert problems(host) == {}
    link(host.proc / "self/ns/pid", "pid:[4026532002]")
    assert "/.dockerenv" in problems(host)["container"].text


def test_failure_goes_before_warning() -> None:
    """The exit code is that of the first failure; warnings count only with --strict."""
    warning, failure = HostFinding("warn", "btf", "no"), HostFinding("fail", "libaudit", "no")
    assert check.exit_code([warning]) == 0
    assert check.exit_code([warning], strict=True) == 24
    assert check.exit_code([warning, failure], strict=True) == 20


def test_exit_codes_are_told_apart_and_documented() -> None:
    """Each topic has its own code, and the help lists all codes."""
    codes = [code for code, _ in check.TOPICS.values()]
    assert len(set(codes)) == len(codes)
    assert min(codes) >= 10
    assert len(check.exit_codes_help().splitlines()) == len(codes)


def test_a_finding_is_one_line() -> None:
    """A finding has the level, the topic, the state, and the remedy."""
    lines = check.render([HostFinding("warn", "btf", "is missing", "use another kernel")])
    assert lines == "warn  btf                 is missing; use another kernel"


def test_an_output_that_can_not_be_a_file(tmp_path: Path) -> None:
    """Paths that the start would refuse are reported, and nothing is created."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    for path, problem in {
        tmp_path: f"{tmp_path} is not a regular file",
        tmp_path / "link": f"{tmp_path}/link is not a regular file",
        tmp_path / "file/events.ndjson": f"{tmp_path}/file is not a directory",
    }.items():
        finding = check.report(output=path)[-1]
        assert (finding.level, finding.name, finding.text) == ("fail", "output", problem)
        assert finding.exit_code == 30
        assert "output.file.path" in finding.fix
    for path in (tmp_path / "file", tmp_path / "new/events.ndjson"):
        assert check.report(output=path)[-1] == HostFinding("ok", "output", f"lines go to {path}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_gzip_in_the_place_of_zstd_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The finding has a remedy; configured gzip is not a finding."""
    monkeypatch.setattr("sessiond.system.zstd.implementation", lambda: None)
    finding = check.report()[-2]
    assert (finding.level, finding.name, finding.exit_code) == ("warn", "compression", 32)
    assert "python3-zstandard" in finding.fix
    assert check.report(compress="gzip")[-2].level == "ok"
    assert check.report(compress="none")[-2].level == "ok"


@pytest.mark.kernel
def test_this_host_can_do_the_main_job(audit_state: object) -> None:
    """As root on a real kernel, no finding is a failure."""
    findings = check.report()
    assert check.exit_code(findings) == 0, check.render(findings)
    assert {finding.name for finding in findings} == set(check.TOPICS)


@pytest.mark.kernel
def test_listener_on_this_host_is_found(audit_state: object) -> None:
    """A socket that really joined the group is found with its holder."""
    with AuditClient.open(multicast=True):
        holders = [pid for one in listeners.listeners() or [] for pid, _ in one.holders]
    assert os.getpid() in holders


@pytest.mark.kernel
def test_a_user_without_privileges_is_told_what_is_missing(audit_state: object) -> None:
    """On the real host as nobody, the first failure is the missing capability."""
    script = (
        "from sessiond.cli import check\n"
        "findings = check.report()\n"
        "print(check.render(findings))\n"
        "exit(check.exit_code(findings))"
    )
    done = subprocess.run(
        [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            sys.executable,
            "-c",
            script,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == check.TOPICS["audit-capabilities"][0]
    assert "CAP_AUDIT_CONTROL and CAP_AUDIT_READ are missing" in done.stdout


@pytest.mark.parametrize(
    "rule",
    [
        "-a never,task",
        "-a never,exit -F arch=b64 -S execve",
        "-a exclude,always -F msgtype=SYSCALL",
        "-a exclude,always -F msgtype=EXECVE",
    ],
)
def test_a_rule_that_silences_execs_is_named(host: Host, rule: str) -> None:
    """The finding has a remedy; sessiond's rules would follow that rule."""
    found = problems(host._replace(audit_rules=rules(rule)))["audit-rules"]
    assert found.level == "warn"
    assert rule.split()[1].split(",")[0] in found.text
    assert "delete the rule" in found.fix


@pytest.mark.parametrize(
    "rule",
    [
        "-a never,exit -F arch=b64 -S execve -F exit=-ENOENT",
        "-a never,exit -F arch=b64 -S open",
        "-a always,exit -F arch=b64 -S execve\n-a never,exit -F arch=b64 -S execve",
        "-a exclude,always -F msgtype=CONFIG_CHANGE",
    ],
)
def test_a_rule_that_leaves_execs_alone_is_no_trouble(host: Host, rule: str) -> None:
    """Rules about failures, other calls or other records, or after sessiond's, have no effect."""
    assert problems(host._replace(audit_rules=rules(rule))) == {}


def test_a_doubtful_filter_is_a_failure_only_with_strict(host: Host) -> None:
    """The finding refers to the output of the filters, which has the details."""
    findings = check.report(host, doubtful_filters=True)
    (found,) = [finding for finding in findings if finding.level != "ok"]
    assert (found.level, found.name) == ("warn", "filters")
    assert check.exit_code(findings) == 0
    assert check.exit_code(findings, strict=True) == 33
