"""The entry rules: a test for each line, and attempts to forge an entry."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.manager import PROJECT

from sessiond.config.filters import WORDS
from sessiond.process.entry import (
    _RULES,
    BY_CGROUP,
    BY_INIT,
    BY_LOGIND,
    BY_OWN_ENVIRONMENT,
    BY_SESSION,
    BY_USER_DATA,
    BY_WTMP,
    LOGIN_GONE,
    ROOTLESS,
    SESSION_TYPES,
    Decision,
    EntryCandidate,
    Origin,
    ProcessFacts,
    decide,
    infer,
    name,
    source_address,
)
from sessiond.process.events import Entry, Facts, Login, Program

HOST_PIDS, HOST_MOUNTS, HOST_USERS = 4026531836, 4026531841, 4026531837
UNSET = 4294967295
CONTAINER = b"/system.slice/docker-" + b"6f2d1a9c" * 8 + b".scope"

PTS = (136, 0)
SERIAL = (4, 64)
VIRTUAL_CONSOLE = (4, 1)

INHERITED = Decision(Origin.PARENT)


def party(
    executable: str | None,
    pid: int = 200,
    *,
    sid: int | None = 200,
    tty: tuple[int, int] = (0, 0),
    euid: int = 1000,
    comm: str = "",
    executed_by: int | None = None,
    owner: int | None = None,
    mounted_in: int | None = None,
    **more: object,
) -> ProcessFacts:
    """Return a process on the host; by default a session leader of an ordinary user."""
    known: dict[str, object] = {
        "parent_start": None,
        "pgid": sid,
        "vpid": pid,
        "loginuid": UNSET,
        "audit_session": UNSET,
        "pid_namespace": HOST_PIDS,
        "mount_namespace": HOST_MOUNTS,
        "user_namespace": HOST_USERS,
        "network_namespace": None,
        "cgroup_id": None,
        "cap_permitted": None,
        "cap_effective": None,
    }
    ids = dict.fromkeys(("uid", "suid", "fsuid", "gid", "egid", "sgid", "fsgid"), euid)
    facts = Facts(
        pid=pid,
        start=pid,
        ppid=100,
        sid=sid,
        tty_major=tty[0],
        tty_minor=tty[1],
        euid=euid,
        **{**ids, **known, **more},  # type: ignore[arg-type]
    )
    path = executable.encode() if executable is not None else None
    its_name = comm.encode() or name(Program(b"", path, None, None))
    program = Program(its_name, path, b"", 0, False, executed_by, owner, mounted_in)
    return ProcessFacts(facts, program)


def parent(executable: str | None, *, euid: int = 0, **more: object) -> ProcessFacts:
    """Return the process that forked the candidate: pid 100, by default root's."""
    return party(executable, 100, sid=100, euid=euid, **more)  # type: ignore[arg-type]


def judge(
    process: ProcessFacts,
    creator: ProcessFacts | None,
    *,
    parent_pid: int = 100,
    grandparent: ProcessFacts | None = None,
    cgroup: bytes | None = b"/",
    type: str | None = None,  # noqa: A002
    entered: tuple[bool, bool, bool] = (True, True, True),
) -> Decision:
    host = party("/sbin/init", 1, sid=1, euid=0).facts
    return decide(
        EntryCandidate(process, parent_pid, creator, grandparent, cgroup, host, type, *entered)
    )


def its_own(kind: str) -> Decision:
    return Decision(Origin.ITSELF, kind)


# 1. Processes without an entry


@pytest.mark.parametrize(
    "process",
    [
        party("/sbin/init", 1, sid=1, euid=0),
        party(None, 2, sid=0, euid=0, comm="kthreadd", kernel_thread=True),
        party(None, 77, sid=0, euid=0, comm="kworker/0:1", kernel_thread=True),
    ],
    ids=["init", "kthreadd", "kworker"],
)
def test_init_and_kernel_threads_have_no_entry(process: ProcessFacts) -> None:
    """Pid 1, pid 2 and kernel threads have none, whatever their other attributes."""
    assert judge(process, None, parent_pid=0) == Decision(Origin.NONE)


def test_a_program_in_brackets_is_no_kernel_thread() -> None:
    """The kernel's flag decides; any process can be called [kworker/0:1]."""
    assert judge(party("/home/eve/[kworker]"), parent("/usr/bin/bash")) == INHERITED


# 2. Session leaders, line by line


@pytest.mark.parametrize("minor", [64, 255])
def test_a_serial_line_is_a_terminal(minor: int) -> None:
    """Major 4, minor 64 to 255; this rule precedes those about the parent."""
    getty = party("/sbin/agetty", tty=(4, minor), euid=0)
    assert judge(getty, parent("/sbin/init"), parent_pid=1) == its_own("terminal")


def test_the_shell_of_a_login_on_a_serial_line_is_a_terminal() -> None:
    """login has become the user in the process that executes the shell."""
    shell = party("/usr/bin/bash", tty=SERIAL)
    assert judge(shell, parent("/usr/bin/login", executed_by=0)) == its_own("terminal")


@pytest.mark.parametrize(
    ("process", "creator"),
    [
        (party("/usr/bin/bash", tty=SERIAL), parent("/usr/bin/bash", euid=1000)),
        # su and sudo are root's, but a user executed them.
        (party("/usr/bin/su", tty=SERIAL, euid=0, uid=1000, executed_by=0), None),
        (party("/usr/bin/bash", tty=SERIAL), parent("/home/eve/login", euid=1000)),
        (party("/usr/bin/bash", tty=SERIAL), parent("/usr/bin/login", executed_by=1000)),
    ],
)
def test_a_serial_line_that_a_user_opens_is_no_login(
    process: ProcessFacts, creator: ProcessFacts | None
) -> None:
    """The members of the group dialout can make it the terminal of any session of theirs."""
    assert judge(process, creator) == INHERITED


def test_login_on_a_virtual_console_is_a_console_login() -> None:
    """getty becomes login by exec; until then its entry type was init."""
    login = party("/usr/bin/login", tty=VIRTUAL_CONSOLE, euid=0)
    assert judge(login, parent("/sbin/init"), parent_pid=1, type="init") == its_own("console")


def test_another_program_on_a_virtual_console_is_no_login() -> None:
    """The shell below login inherits login's entry, a display server has init."""
    shell = party("/usr/bin/bash", tty=VIRTUAL_CONSOLE)
    assert judge(shell, parent("/usr/bin/login")) == INHERITED
    server = party("/usr/lib/xorg/Xorg", tty=VIRTUAL_CONSOLE, euid=0)
    assert judge(server, parent("/sbin/init"), parent_pid=1) == its_own("init")


def test_a_users_program_called_login_is_no_console_login() -> None:
    """Only a program that root installed, or that runs as root, can log users in."""
    fake = party("/home/eve/login", tty=VIRTUAL_CONSOLE)
    assert judge(fake, parent("/usr/bin/bash", euid=1000)) == INHERITED


def test_a_service_of_pid_1_came_by_init() -> None:
    """The fork by pid 1 comes from the kernel; the name of pid 1 does not matter."""
    service = party("/usr/sbin/sshd", euid=0)
    assert judge(service, None, parent_pid=1) == its_own("init")
    assert judge(service, parent("/usr/lib/systemd/systemd"), parent_pid=1) == its_own("init")


def test_a_process_adopted_by_pid_1_has_not_entry_init() -> None:
    """An orphaned tmux server from procfs: its cgroup is that of a login."""
    scope = b"/user.slice/user-1000.slice/session-3.scope"
    server = party("/usr/bin/tmux")
    decision = judge(server, None, parent_pid=1, cgroup=scope, entered=(False, False, False))
    assert decision == its_own("unknown")


def test_an_orphan_with_an_audit_session_has_not_entry_init() -> None:
    """The same without systemd: pam_loginuid has marked the processes of a login."""
    daemon = party("/usr/bin/tmux", loginuid=1000, audit_session=7)
    decision = judge(daemon, None, parent_pid=1, entered=(False, False, False))
    assert decision == its_own("unknown")


def test_the_service_manager_of_a_user_came_by_init() -> None:
    """systemd opens a PAM session for user@.service, so an audit session alone proves no login."""
    manager = party("/usr/lib/systemd/systemd", loginuid=1000, audit_session=2)
    cgroup = b"/user.slice/user-1000.slice/user@1000.service/init.scope"
    assert judge(manager, None, parent_pid=1, cgroup=cgroup) == its_own("init")


def test_an_ssm_session_has_a_pts() -> None:
    """The worker's session leader on a pts is an SSM session; without a pts it is a helper."""
    worker = parent("/usr/bin/ssm-session-worker")
    assert judge(party("/usr/bin/sh", tty=PTS), worker) == its_own("ssm")
    assert judge(party("/usr/bin/sh"), worker) == INHERITED


@pytest.mark.parametrize(
    "executable",
    ["/usr/sbin/sshd", "/usr/lib/openssh/sshd-session", "/usr/libexec/openssh/sshd-auth"],
)
@pytest.mark.parametrize("tty", [PTS, (0, 0)])
@pytest.mark.parametrize("euid", [0, 1000])
def test_the_shell_of_an_ssh_login_came_by_sshd(
    executable: str, tty: tuple[int, int], euid: int
) -> None:
    """Before and since OpenSSH 9.8, with and without a terminal; sshd has become the user here."""
    shell = party("/usr/bin/bash", tty=tty, euid=euid)
    listener = parent("/usr/sbin/sshd")
    assert judge(shell, parent(executable, euid=euid), grandparent=listener) == its_own("sshd")
    seen = parent(executable, euid=euid, executed_by=0, owner=0, mounted_in=HOST_MOUNTS)
    assert judge(shell, seen) == its_own("sshd")


LOADED = parent("/usr/sbin/sshd", euid=1000, executed_by=1000)


@pytest.mark.parametrize(
    ("fake", "grandparent"),
    [
        # The real program with a library of the user (LD_PRELOAD).
        (LOADED, parent("/usr/bin/bash", euid=1000)),
        (LOADED, parent("/usr/sbin/sshd", euid=1000)),
        # Executed in a login, whose sshd belongs to root.
        (LOADED, parent("/usr/sbin/sshd")),
        # A program of the user, seen as sshd through /proc/PID/root or in a mount namespace.
        (parent("/usr/sbin/sshd", euid=1000, executed_by=1000, mounted_in=7), None),
        (parent("/usr/sbin/sshd", mounted_in=7, executed_by=0), None),
        # A file of the user at a path of the system.
        (parent("/opt/x/sshd", owner=1000, executed_by=0), None),
        # Its exec was not observed, and no sshd of root forked it.
        (parent("/usr/sbin/sshd", euid=1000), None),
        (parent("/usr/sbin/sshd", euid=1000), parent("/usr/bin/sudo")),
        # Root in its own user namespace.
        (parent("/usr/sbin/sshd", executed_by=0, user_namespace=9), None),
    ],
)
def test_a_users_program_is_no_sshd(fake: ProcessFacts, grandparent: ProcessFacts | None) -> None:
    """Its name and its path do not matter."""
    assert judge(party("/usr/bin/bash"), fake, grandparent=grandparent) == INHERITED


def test_a_runtime_of_the_users_own_is_told() -> None:
    """Engines also run without root; then any code of the user can call itself one."""
    process = party("/bin/sh", pid_namespace=4026532500)
    decision = judge(process, parent("/usr/bin/runc", euid=1000, executed_by=1000))
    assert decision == Decision(Origin.ITSELF, "container", ROOTLESS)
    assert judge(process, parent("/home/eve/runc", euid=1000, executed_by=1000)) == INHERITED


@pytest.mark.parametrize("own", ["/usr/sbin/sshd", "/usr/lib/openssh/sshd-session"])
def test_sshds_own_processes_are_no_logins(own: str) -> None:
    """sshd leads a session for each connection before the login."""
    assert judge(party(own, euid=0), parent("/usr/sbin/sshd")) == INHERITED


def test_an_upgraded_sshd_is_still_sshd() -> None:
    """Its file is deleted and its path is kept: `deleted` marks that."""
    sshd = parent("/usr/sbin/sshd")
    deleted = sshd._replace(program=sshd.program._replace(deleted=True))
    assert judge(party("/usr/bin/bash"), deleted) == its_own("sshd")


@pytest.mark.parametrize("runtime", ["containerd-shim-runc-v2", "runc", "crun", "conmon"])
def test_the_first_process_of_a_container_came_by_the_container(runtime: str) -> None:
    """The engine's process that starts it is its parent, and it has its own pid namespace."""
    process = party("/bin/sh", euid=0, pid_namespace=4026532500, vpid=1)
    assert judge(process, parent(f"/usr/bin/{runtime}")) == its_own("container")


def test_a_container_with_the_hosts_pids_shows_by_its_cgroup() -> None:
    """Without separate namespaces, the engine's cgroup identifies the container."""
    process = party("/bin/sh", euid=0)
    shim = parent("/usr/bin/containerd-shim")
    assert judge(process, shim, cgroup=CONTAINER) == its_own("container")
    assert judge(process, shim, cgroup=b"/system.slice/containerd.service") == INHERITED


def test_runc_that_runs_from_memory_is_runc() -> None:
    """runc copies itself to a memfd, whose path ends in /exe."""
    runc = parent("/memfd:runc_cloned:/proc/self/exe")
    process = party("/bin/sh", euid=0, pid_namespace=4026532500)
    assert judge(process, runc) == its_own("container")
    stage = party("/memfd:runc_cloned:/proc/self/exe", euid=0, pid_namespace=4026532500)
    assert judge(stage, runc) == INHERITED


def test_where_nothing_shows_the_surroundings_an_engine_of_roots_is_believed() -> None:
    """Neither namespaces nor cgroup are known: only the parent's name and owner count."""
    process = party("/bin/sh", euid=0, pid_namespace=None, mount_namespace=None)
    assert judge(process, parent("/usr/bin/runc"), cgroup=None) == its_own("container")


@pytest.mark.parametrize(
    "own",
    ["runc", "containerd-shim-runc-v2", "calico-node", "check-status", "conmon", "pause"],
)
def test_helpers_of_containers_are_no_entry(own: str) -> None:
    """Programs that engines run on the way into a container inherit their parent's entry leader."""
    helper = party(f"/usr/bin/{own}", euid=0, pid_namespace=4026532500)
    assert judge(helper, parent("/usr/bin/containerd-shim"), cgroup=CONTAINER) == INHERITED


def test_a_teleport_session_came_by_teleport() -> None:
    """teleport executes itself again before it becomes the user's shell."""
    teleport = parent("/usr/local/bin/teleport")
    assert judge(party("/usr/bin/bash", tty=PTS), teleport) == its_own("teleport")
    assert judge(party("/usr/local/bin/teleport", euid=0), teleport) == INHERITED


def test_a_session_that_kubelet_starts_came_by_kubelet() -> None:
    """kubelet itself has the entry type init."""
    assert judge(party("/usr/bin/sh", euid=0), parent("/usr/bin/kubelet")) == its_own("kubelet")


# Processes that do not lead a session


@pytest.mark.parametrize("executable", ["/usr/sbin/sshd", "/usr/bin/runc", "/usr/bin/kubelet"])
def test_only_a_session_leader_is_an_entry(executable: str) -> None:
    """A process in another's session inherits, with the same parents."""
    process = party("/usr/bin/bash", sid=150, tty=SERIAL, pid_namespace=4026532500)
    assert judge(process, parent(executable)) == INHERITED


# 3. Inheritance


def test_a_tmux_inside_ssh_keeps_the_ssh_entry() -> None:
    """The server calls setsid, and so does each pane: their creator's entry is sshd."""
    assert judge(party("/usr/bin/tmux"), parent("/usr/bin/tmux", euid=1000)) == INHERITED
    assert judge(party("/usr/bin/bash", tty=PTS), parent("/usr/bin/tmux", euid=1000)) == INHERITED


def test_an_adopted_tmux_server_keeps_its_creator_s_entry() -> None:
    """Its parent is now pid 1; its creator is known, and counts."""
    server = party("/usr/bin/tmux")
    server = server._replace(facts=server.facts._replace(ppid=1))
    assert judge(server, parent("/usr/bin/tmux", euid=1000), parent_pid=100) == INHERITED
    assert judge(server, None, parent_pid=100) == INHERITED


@pytest.mark.parametrize("executable", ["/usr/bin/sudo", "/usr/bin/su", "/usr/sbin/cron"])
def test_su_sudo_and_cron_are_no_entry(executable: str) -> None:
    """A change of identity does not change the entry."""
    assert judge(party("/usr/bin/bash", tty=PTS, euid=0), parent(executable)) == INHERITED


@pytest.mark.parametrize(
    ("entered", "origin"),
    [
        ((True, True, True), Origin.PARENT),
        ((False, True, True), Origin.SESSION),
        ((False, False, True), Origin.GROUP),
        ((False, False, False), Origin.NONE),
    ],
)
def test_parent_then_session_then_group_leader(
    entered: tuple[bool, bool, bool], origin: Origin
) -> None:
    """The first of them that is known passes its entry leader on; otherwise there is none."""
    process = party("/usr/bin/ls", sid=150)
    assert judge(process, parent("/usr/bin/bash"), entered=entered) == Decision(origin)
    assert judge(process, None, entered=entered) == Decision(origin)


# 4. No rule matches


def test_a_session_leader_from_nowhere_is_its_own_entry() -> None:
    """No rule and no known parent: type unknown, without a guess."""
    process = party("/usr/bin/bash", tty=PTS)
    assert judge(process, None, entered=(False, False, False)) == its_own("unknown")


def test_an_unknown_entry_is_known_better_once_its_parent_is() -> None:
    """Unknown is replaced when a rule matches."""
    process = party("/usr/bin/bash", tty=PTS)
    assert judge(process, parent("/usr/sbin/sshd"), type="unknown") == its_own("sshd")
    assert judge(process, parent("/usr/bin/tmux"), type="unknown") == INHERITED


# Attempts to forge an entry, or to lose one


@pytest.mark.parametrize("called", ["sshd", "sshd-session", "teleport", "kubelet", "runc", "crun"])
@pytest.mark.parametrize("folder", ["/home/eve", "/tmp", "/dev/shm", "/memfd:"])
def test_a_users_program_with_a_server_s_name_is_no_entry(called: str, folder: str) -> None:
    """The children of a copy of a shell called sshd keep their entry."""
    path = f"{folder}{called}" if folder == "/memfd:" else f"{folder}/{called}"
    assert judge(party("/usr/bin/bash", tty=PTS), parent(path, euid=1000)) == INHERITED


@pytest.mark.parametrize("called", ["sshd", "teleport", "kubelet"])
def test_a_mount_over_usr_is_no_entry(called: str) -> None:
    """In the user's own user namespace, a user can mount anything at /usr/sbin."""
    forger = parent(f"/usr/sbin/{called}", euid=1000, user_namespace=4026532600)
    assert judge(party("/usr/bin/bash", tty=PTS), forger) == INHERITED


def test_a_filter_and_the_shipped_queries_know_every_type() -> None:
    """A filter refuses an unknown type; the queries of logins list the types of people."""
    types = {its_type for its_type, _ in _RULES} | {"unknown"}
    assert set(WORDS["process.entry_leader.entry_meta.type"]) == types
    for query in ("clickhouse/sessiond.sql", "duckdb/sessiond.sql", "elastic/queries/logins.json"):
        text = (PROJECT / "integrations" / query).read_text("utf-8")
        listed = re.search(r"""[(\[](["']sshd["'][^)\]]*)""", text)
        assert listed is not None
        assert set(re.findall(r"\w+", listed[1])) == SESSION_TYPES, query


def test_a_comm_is_not_a_name() -> None:
    """Any process can choose its comm; without a path it counts only for root."""
    shell = party("/usr/bin/bash", tty=PTS)
    assert judge(shell, parent("/usr/bin/python3", comm="sshd")) == INHERITED
    assert judge(shell, parent(None, euid=1000, comm="sshd")) == INHERITED
    assert judge(shell, parent(None, euid=0, comm="sshd")) == its_own("sshd")


def test_a_program_called_runc_makes_no_container() -> None:
    """Installed or not, run by root or not: the process is in no container."""
    assert judge(party("/usr/bin/bash"), parent("/usr/bin/runc", euid=1000)) == INHERITED
    assert judge(party("/usr/bin/bash", euid=0), parent("/usr/bin/runc")) == INHERITED


def test_a_cgroup_that_a_user_named_makes_no_container() -> None:
    """Below user@.service every user creates cgroups with any name."""
    forged = b"/user.slice/user-1000.slice/user@1000.service" + CONTAINER
    conmon = parent("/usr/bin/conmon", euid=1000)
    assert judge(party("/usr/bin/bash"), conmon, cgroup=forged) == INHERITED


@pytest.mark.parametrize("disguise", ["/home/eve/sshd", "/home/eve/pause", "/usr/sbin/sshd"])
def test_an_exec_does_not_leave_an_ssh_session(disguise: str) -> None:
    """The login shell executes a program whose name is an exception: it stays the login."""
    shell = party(disguise, tty=PTS)
    assert judge(shell, parent("/usr/sbin/sshd", euid=1000), type="sshd") == its_own("sshd")


def test_a_container_that_executes_runc_is_still_the_container() -> None:
    """The first process of a container executes runc to run another one."""
    process = party("/usr/bin/runc", euid=0, pid_namespace=4026532500)
    shim = parent("/usr/bin/containerd-shim")
    assert judge(process, shim, type="container") == its_own("container")


# Any process


programs = st.sampled_from(
    [
        None,
        "/usr/sbin/sshd",
        "/usr/bin/bash",
        "/tmp/sshd",
        "/usr/bin/runc",
        "/usr/bin/login",
        "/usr/bin/ssm-session-worker",
        "/usr/bin/pause",
        "/memfd:runc",
        "/",
        "",
    ]
)


@given(
    st.builds(
        party,
        programs,
        pid=st.sampled_from([1, 2, 200, 300]),
        sid=st.sampled_from([None, 0, 200]),
        tty=st.sampled_from([(0, 0), PTS, SERIAL, VIRTUAL_CONSOLE]),
        euid=st.sampled_from([0, 1000]),
        pid_namespace=st.sampled_from([None, HOST_PIDS, 5]),
        kernel_thread=st.booleans(),
    ),
    st.none() | st.builds(parent, programs, euid=st.sampled_from([0, 1000])),
    st.sampled_from([0, 1, 100]),
    st.none() | st.binary(max_size=80) | st.just(CONTAINER),
    st.sampled_from([None, "unknown", "sshd"]),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_every_process_gets_one_consistent_answer(
    process: ProcessFacts,
    creator: ProcessFacts | None,
    parent_pid: int,
    cgroup: bytes | None,
    kind: str | None,
    entered: tuple[bool, bool, bool],
) -> None:
    """Exactly entry leaders, which lead their session, have a type; an origin always exists."""
    decision = judge(
        process, creator, parent_pid=parent_pid, cgroup=cgroup, type=kind, entered=entered
    )
    assert (decision.type is not None) == (decision.origin is Origin.ITSELF)
    if decision.origin is Origin.ITSELF:
        assert process.facts.sid == process.facts.pid
    for origin, has_one in zip((Origin.PARENT, Origin.SESSION, Origin.GROUP), entered, strict=True):
        assert decision.origin is not origin or has_one


# The client's address


@pytest.mark.parametrize(
    ("connection", "address"),
    [
        (b"192.0.2.7 51000 198.51.100.1 22", "192.0.2.7"),
        (b"2001:db8::7 51000 2001:db8::1 22", "2001:db8::7"),
        (b"192.0.2.7", "192.0.2.7"),
        (b"fe80::1%eth0 51000 fe80::2%eth0 22", "fe80::1"),
        (b"::ffff:192.0.2.7 51000 ::1 22", "192.0.2.7"),
    ],
)
def test_the_address_of_the_client_is_the_first_word(connection: bytes, address: str) -> None:
    """Alone, or as in SSH_CONNECTION: address and port of the client and of the server."""
    assert source_address(connection) == address


@pytest.mark.parametrize(
    "connection",
    [
        b"",
        b"192.0.2.7 51000",
        b"UNKNOWN 65535 UNKNOWN 65535",
        b"192.0.2.7 1 2 3 4",
        b"192.0.2.777 51000 198.51.100.1 22",
        b"\xd9\xa1.2.3.4 1 1.2.3.4 22",
    ],
)
def test_what_is_no_address_is_left_out(connection: bytes) -> None:
    """An environment can contain anything: only an address is accepted."""
    assert source_address(connection) is None


@given(st.binary())
def test_any_environment_is_safe(connection: bytes) -> None:
    """Any bytes yield an address or none."""
    source_address(connection)


# Processes whose entry has ended

CONNECTION = b"192.0.2.9 4711 192.0.2.1 22"
SCOPE = b"/user.slice/user-1000.slice/session-7.scope"
UNIT = b"/system.slice/nginx.service"
SSH = Login("logind", b"sshd", b"192.0.2.7", b"pts/0", 5)
RECORDED = Entry("sshd", "192.0.2.7", inferred=BY_LOGIND, start=5)
BY_OTHERS = Entry("sshd", "192.0.2.8", inferred=BY_SESSION)


def lost(
    process: ProcessFacts,
    cgroup: bytes | None = b"/",
    *,
    session: Entry | None = None,
    login: Login | None = None,
    connection: bytes | None = None,
) -> Entry:
    host = party("/sbin/init", 1, sid=1, euid=0).facts
    return infer(process.facts, cgroup, host, session=session, login=login, connection=connection)


LOGGED_IN = party("/usr/bin/tmux", loginuid=1000, audit_session=7)
LEFT = party("/usr/bin/bash", sid=100, loginuid=1000, audit_session=7)
SERVICE = party("/usr/sbin/nginx")


@pytest.mark.parametrize(
    ("host_shows", "expected"),
    [
        ({"session": BY_OTHERS, "login": SSH, "connection": CONNECTION}, BY_OTHERS),
        ({"login": SSH, "connection": CONNECTION}, RECORDED),
        (
            {"login": Login("wtmp", None, b"192.0.2.5", b"pts/0", 4), "connection": CONNECTION},
            Entry("sshd", "192.0.2.5", BY_USER_DATA, BY_WTMP, 4),
        ),
        (
            {"login": Login("wtmp", None, None, b"tty1", 4)},
            Entry("console", None, BY_USER_DATA, BY_WTMP, 4),
        ),
        (
            {"login": Login("wtmp", None, None, b"pts/0", 4), "connection": CONNECTION},
            Entry("sshd", "192.0.2.9", BY_USER_DATA, BY_OWN_ENVIRONMENT),
        ),
        ({"connection": CONNECTION}, Entry("sshd", "192.0.2.9", BY_USER_DATA, BY_OWN_ENVIRONMENT)),
        ({"connection": b"nowhere"}, Entry("unknown", inferred=LOGIN_GONE)),
        ({}, Entry("unknown", inferred=LOGIN_GONE)),
    ],
)
@pytest.mark.parametrize("process", [LOGGED_IN, LEFT], ids=["leader", "left behind"])
@pytest.mark.parametrize("cgroup", [b"/", SCOPE, None])
def test_the_best_evidence_of_an_ended_login_counts(
    process: ProcessFacts, cgroup: bytes | None, host_shows: dict[str, object], expected: Entry
) -> None:
    """Data that only root can write takes precedence, and other data is marked."""
    assert lost(process, cgroup, **host_shows) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("service", "terminal", "kind"),
    [
        (b"sshd", b"pts/0", "sshd"),
        (b"login", b"tty1", "console"),
        (b"login", b"ttyS0", "terminal"),
        (b"login", b"pts/3", "unknown"),
        (b"login", None, "unknown"),
        (None, b"tty1", "console"),
        (b"crond", None, "init"),
        (b"gdm-password", b"tty2", "init"),
        (b"\xff", None, "init"),
    ],
)
def test_the_service_of_a_session_tells_the_type(
    service: bytes | None, terminal: bytes | None, kind: str
) -> None:
    """The service is the one that called PAM; without one it depends on the terminal."""
    login = Login("logind", service, None, terminal, None)
    assert lost(LOGGED_IN, login=login) == Entry(kind, inferred=BY_LOGIND)


def test_a_name_is_no_address() -> None:
    """logind has the name if sshd resolves it (UseDNS)."""
    login = SSH._replace(host=b"laptop.example")
    assert lost(LOGGED_IN, login=login) == RECORDED._replace(source=None)


@pytest.mark.parametrize("traces", [{}, {"connection": CONNECTION}])
def test_a_unit_of_the_system_came_by_init(traces: dict[str, bytes]) -> None:
    """Only root can put it into that control group, whatever its environment contains."""
    assert lost(SERVICE, UNIT, **traces) == Entry("init")  # type: ignore[arg-type]
    worker = party("/usr/sbin/nginx", sid=100)
    assert lost(worker, UNIT, **traces) == Entry("init", inferred=BY_CGROUP)  # type: ignore[arg-type]
    wtmp = Login("wtmp", None, b"192.0.2.5", b"pts/0", 4)
    assert lost(SERVICE, UNIT, login=wtmp) == Entry("init")


def test_a_process_without_any_evidence_has_entry_init() -> None:
    """It is a daemon that forked twice, on a host without systemd."""
    assert lost(SERVICE) == Entry("init", inferred=BY_INIT)
    assert lost(SERVICE, None) == Entry("init", inferred=BY_INIT)


def test_a_container_that_its_runtime_has_left() -> None:
    """The evidence is a control group created by root and a separate namespace, both needed."""
    inside = party("/bin/sh", pid_namespace=5)
    assert lost(inside, CONTAINER, login=SSH) == Entry("container", inferred=BY_CGROUP)
    assert lost(party("/bin/sh"), CONTAINER) != Entry("container", inferred=BY_CGROUP)
    assert lost(inside, b"/") == Entry("init", inferred=BY_INIT)
    rootless = b"/user.slice/user-1000.slice/user@1000.service/user.slice" + CONTAINER[13:]
    assert lost(inside, rootless).type == "init"


@given(st.binary(max_size=60), st.none() | st.binary(max_size=60), st.binary(max_size=60))
def test_data_that_a_user_can_write_is_always_marked(
    connection: bytes, host: bytes | None, terminal: bytes
) -> None:
    """An address that is neither logind's nor the server's is always marked."""
    for login in (None, Login("wtmp", None, host, terminal, None)):
        for process in (LOGGED_IN, LEFT, SERVICE):
            for cgroup in (b"/", SCOPE, UNIT):
                found = lost(process, cgroup, login=login, connection=connection)
                assert found.note == BY_USER_DATA or found.source is None
                assert found.note == BY_USER_DATA or found.type in ("init", "unknown")
