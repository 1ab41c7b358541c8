"""The entry rules, which decide whether a session leader is an entry leader, and of which type.

The rules are applied when a process executes a program and when it becomes a session leader. The
first matching line of ``_RULES`` decides. Rules check facts from the kernel (terminal, namespaces,
cgroup, parentage) before names. A name is the last part of the executable's path, never ``comm`` or
argv[0] if the path is known; a comment at each rule says how far it can be trusted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple

from sessiond.process import container, systemd_unit
from sessiond.process.events import Entry, Facts, Login, Program
from sessiond.units import UNSET_ID


class ProcessFacts(NamedTuple):
    """A process at the time of the decision."""

    facts: Facts
    program: Program


class EntryCandidate(NamedTuple):
    """The process to decide about, and the facts about its relatives that the rules use.

    ``parent_pid`` is the pid of the process that forked it, or of its current parent if the former
    is unknown. ``parent`` is that process, None if only its pid is known. ``cgroup`` is a path from
    the hierarchy's root, ``grandparent`` the process that forked the parent, ``host`` the facts of
    pid 1. ``type`` is its current type if it already is an entry leader. ``parent_entered``,
    ``session_entered`` and ``group_entered`` say whether its parent (at the fork), session leader
    and group leader have an entry leader.
    """

    process: ProcessFacts
    parent_pid: int
    parent: ProcessFacts | None
    grandparent: ProcessFacts | None
    cgroup: bytes | None
    host: Facts | None
    type: str | None
    parent_entered: bool
    session_entered: bool
    group_entered: bool

    @property
    def leads_session(self) -> bool:
        """Whether it is a session leader."""
        return self.process.facts.sid == self.process.facts.pid


class Origin(Enum):
    """From which relative a process has its entry leader."""

    ITSELF = "itself"
    PARENT = "parent"
    SESSION = "session leader"
    GROUP = "group leader"
    NONE = "none"


class Decision(NamedTuple):
    """The origin of the entry leader; ``type`` is set exactly if the process is one itself.

    ``note`` names a part of the decision that the user of the process could have forged.
    """

    origin: Origin
    type: str | None = None
    note: str | None = None


BY_ENVIRONMENT: Final = (
    "process.entry_leader.entry_meta.source.ip: from the environment of the login, which its user"
    " can write"
)
ROOTLESS: Final = "process.entry_leader.entry_meta.type: the container's runtime is the user's own"
BY_USER_DATA: Final = "process.entry_leader.entry_meta: from data that the user can write"


_INFERRED: Final = "process.entry_leader: from "
BY_SESSION: Final = _INFERRED + "another process of the audit session"
BY_LOGIND: Final = _INFERRED + "logind"
BY_WTMP: Final = _INFERRED + "wtmp"
BY_OWN_ENVIRONMENT: Final = _INFERRED + "the environment"
BY_CGROUP: Final = _INFERRED + "the control group"
BY_INIT: Final = _INFERRED + "its parent, init"
LOGIN_GONE: Final = "process.entry_leader: the login has ended, and the host has no record of it"


# include/uapi/linux/major.h, Documentation/admin-guide/devices.txt
TTY_MAJOR: Final = 4
FIRST_SERIAL: Final = 64
PTS_MAJORS: Final = range(136, 144)


class LoginServer(NamedTuple):
    """A server that accepts remote logins.

    ``type`` is the entry type of its logins, ``programs`` are the names of its own processes.
    ``variable`` is the environment variable of a login whose value starts with the client's
    address.
    """

    type: str
    programs: tuple[bytes, ...]
    variable: bytes


LOGIN_SERVERS: Final = (
    # sshd(8); sshd-session and sshd-auth since OpenSSH 9.8.
    LoginServer("sshd", (b"sshd", b"sshd-session", b"sshd-auth"), b"SSH_CONNECTION"),
)
# The entry types whose logins have an address.
LOGIN_TYPES: Final = frozenset(server.type for server in LOGIN_SERVERS)
# The entry types of people's logins: all processes of the audit session share the entry.
SESSION_TYPES: Final = LOGIN_TYPES | {"terminal", "console", "ssm", "teleport"}
_SAME_SERVER: Final = {
    name: server.programs for server in LOGIN_SERVERS for name in server.programs
}
_SERVER_OF: Final = {name: server for server in LOGIN_SERVERS for name in server.programs}

_RUNTIMES: Final = (b"containerd-shim", b"runc", b"crun", b"conmon")
# Programs that engines run inside or on the way into a container: not entries.
_HELPERS: Final = (
    b"runc",
    b"containerd-shim",
    b"calico-node",
    b"check-status",
    b"conmon",
    b"pause",
)

# Directories that only root can write: no /home, no /tmp, no memfd.
_SYSTEM_FOLDERS: Final = (
    b"/usr/",
    b"/bin/",
    b"/sbin/",
    b"/lib/",
    b"/lib64/",
    b"/libexec/",
    b"/opt/",
    b"/nix/store/",
    b"/gnu/store/",
    b"/snap/",
)

_VIRTUAL_CONSOLE: Final = re.compile(rb"tty\d+")
_LOGIN_SCOPE: Final = re.compile(rb"/session-[^/]+\.scope(?:/|\Z)")


def decide(candidate: EntryCandidate) -> Decision:
    """Decide on the entry leader of a process: itself, an inherited one, or none."""
    facts = candidate.process.facts
    # The kernel's flag, not the name in brackets that ps shows.
    if facts.pid in (1, 2) or facts.kernel_thread:
        return Decision(Origin.NONE)
    if candidate.leads_session:
        for its_type, fits in _RULES:
            if fits(candidate):
                return Decision(Origin.ITSELF, its_type, _note(its_type, candidate))
        # An entry leader keeps its type across execs: executing a program called sshd or runc
        # must not let it leave its own session.
        if candidate.type not in (None, "unknown"):
            return Decision(Origin.ITSELF, candidate.type)
    if candidate.parent_entered:
        return Decision(Origin.PARENT)
    if candidate.session_entered and not candidate.leads_session:
        return Decision(Origin.SESSION)
    if candidate.group_entered and facts.pgid != facts.pid:
        return Decision(Origin.GROUP)
    if candidate.leads_session:
        return Decision(Origin.ITSELF, "unknown")
    return Decision(Origin.NONE)


def login_server(comm: bytes) -> LoginServer | None:
    """Return the login server with a process of this name, None if there is none."""
    return _SERVER_OF.get(comm)


def source_address(connection: bytes) -> str | None:
    """Return the client's address in a login server's variable; None without a valid one.

    The value is an address, or "address port address port" as in SSH_CONNECTION (sshd(8)). A zone
    ("%eth0") is removed, because the ECS type ip has none; an IPv4-mapped IPv6 address is written
    as IPv4.
    """
    words = connection.split(b" ")
    if len(words) not in (1, 4):
        return None
    try:
        address = ip_address(words[0].partition(b"%")[0].decode("ascii"))
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def name(program: Program) -> bytes:
    """Return the name that the rules use: the last part of the executable's path, else comm.

    runc executes a copy of itself, so that no container can overwrite it: from a memfd, whose name
    is used ("/memfd:runc_cloned:/proc/self/exe"), or from a detached mount, for which the kernel's
    path is "/" and comm ("runc:[2:INIT]") is used.
    """
    executable = program.executable
    if executable is None:
        return program.comm
    if executable.startswith(b"/memfd:"):
        return executable.removeprefix(b"/memfd:")
    return executable.rpartition(b"/")[2] or program.comm


def _terminal(candidate: EntryCandidate) -> bool:
    # The device number comes from the kernel. Users who may open the device (group dialout) can
    # make it the terminal of any session of theirs, so that root must have executed the program
    # without set-user-ID, or the login that forked it.
    process, parent, facts = candidate.process, candidate.parent, candidate.process.facts
    if facts.tty_major != TTY_MAJOR or facts.tty_minor < FIRST_SERIAL:
        return False
    if facts.uid == 0 and _is_roots(process, parent, candidate.host):
        return True
    return (
        parent is not None
        and name(parent.program) == b"login"
        and _is_roots(parent, candidate.grandparent, candidate.host)
    )


def _console(candidate: EntryCandidate) -> bool:
    # The device number comes from the kernel; the name login counts if root installed the program.
    facts = candidate.process.facts
    return (
        facts.tty_major == TTY_MAJOR
        and facts.tty_minor < FIRST_SERIAL
        and name(candidate.process.program) == b"login"
        and _is_roots(candidate.process, candidate.parent, candidate.host)
    )


def _init(candidate: EntryCandidate) -> bool:
    # The creator comes from the kernel. If only the current parent is known, pid 1 may have adopted
    # an orphan: a login is then recognisable by its cgroup or audit session.
    return candidate.parent_pid == 1 and not is_of_a_login(
        candidate.process.facts, candidate.cgroup
    )


def _ssm(candidate: EntryCandidate) -> bool:
    # The pts comes from the kernel; the parent's name counts if root installed the program.
    return candidate.process.facts.tty_major in PTS_MAJORS and _is_child_of(
        candidate, (b"ssm-session-worker",)
    )


def _login(server: LoginServer) -> Callable[[EntryCandidate], bool]:
    # The name counts for a program of root that root executed. The process that forks the shell
    # runs as the user, who can load code into any system program that the user executes.
    def fits(candidate: EntryCandidate) -> bool:
        return _is_child_of(candidate, server.programs)

    return fits


def _teleport(candidate: EntryCandidate) -> bool:
    # Like a login server's child, but teleport provides no address in the environment.
    return _is_child_of(candidate, (b"teleport",))


def _kubelet(candidate: EntryCandidate) -> bool:
    # Likewise.
    return _is_child_of(candidate, (b"kubelet",))


def _container(candidate: EntryCandidate) -> bool:
    # The parent's name counts for a program that root executed, or for a system program (rootless
    # engines, which get a note), and the process must be in a container if the kernel shows that.
    parent = candidate.parent
    if parent is None or _is_helper(candidate):
        return False
    if not name(parent.program).startswith(_RUNTIMES):
        return False
    if not _runs_as_root(parent) and not _is_installed(parent):
        return False
    return _is_contained(candidate.process.facts, parent.facts, candidate.cgroup)


_RULES: Final[tuple[tuple[str, Callable[[EntryCandidate], bool]], ...]] = (
    ("terminal", _terminal),
    ("console", _console),
    ("init", _init),
    ("ssm", _ssm),
    *((server.type, _login(server)) for server in LOGIN_SERVERS),
    ("container", _container),
    ("teleport", _teleport),
    ("kubelet", _kubelet),
)


def _is_helper(candidate: EntryCandidate) -> bool:
    return name(candidate.process.program).startswith(_HELPERS)


def _is_child_of(candidate: EntryCandidate, names: tuple[bytes, ...]) -> bool:
    """Return whether it is a child of such a program on the host, not a process of the program."""
    parent, process = candidate.parent, candidate.process
    if parent is None or _is_helper(candidate) or name(parent.program) not in names:
        return False
    if not _is_roots(parent, candidate.grandparent, candidate.host):
        return False
    return name(process.program) not in names or not _is_roots(process, parent, candidate.host)


def _note(its_type: str, candidate: EntryCandidate) -> str | None:
    parent = candidate.parent
    if its_type != "container" or parent is None or _runs_as_root(parent):
        return None
    return ROOTLESS


def _runs_as_root(runtime: ProcessFacts) -> bool:
    """Return whether a container runtime runs as root; it may run from a memfd, or nested."""
    executed = runtime.program.euid
    return executed == 0 if executed is not None else runtime.facts.euid == 0


def _is_roots(process: ProcessFacts, creator: ProcessFacts | None, host: Facts | None) -> bool:
    """Return whether only root can control the code of the process.

    Root executed a file that root owns in the host's mount namespace; since then the process has
    only forked or changed its user id. If the exec was not observed, the process must run as root,
    or a root process with the same program must have forked it. A program that a user executes can
    run any code of that user (LD_PRELOAD), wherever the program's file is.
    """
    program, facts = process.program, process.facts
    if host is not None and (
        _differ(program.mount_namespace, host.mount_namespace)
        or _differ(facts.user_namespace, host.user_namespace)
    ):
        return False
    if _differ(program.owner, 0):
        return False
    if program.euid is not None:
        return program.euid == 0
    return facts.euid == 0 or (
        creator is not None
        and creator.facts.euid == 0
        and _is_installed(process)
        and name(creator.program) in _SAME_SERVER.get(name(program), (name(program),))
    )


def _differ(known: int | None, wanted: int | None) -> bool:
    return known is not None and wanted is not None and known != wanted


def _is_installed(process: ProcessFacts) -> bool:
    """Return whether its program is a system program; without a path, comm proves nothing."""
    executable = process.program.executable
    return executable is not None and executable.startswith(_SYSTEM_FOLDERS)


def _is_contained(process: Facts, parent: Facts, cgroup: bytes | None) -> bool:
    """Return whether the process is in a container; also True if that is unknown.

    The evidence is a pid or mount namespace that differs from the parent's, or a container's
    cgroup that no user could have created.
    """
    found = container.identify(cgroup) if cgroup is not None else None
    if found is not None and not found.rootless:
        return True
    namespaces = [
        (its_own, its_parents)
        for its_own, its_parents in (
            (process.pid_namespace, parent.pid_namespace),
            (process.mount_namespace, parent.mount_namespace),
        )
        if its_own is not None and its_parents is not None
    ]
    if namespaces:
        return any(its_own != its_parents for its_own, its_parents in namespaces)
    return cgroup is None


def is_of_a_login(facts: Facts, cgroup: bytes | None) -> bool:
    """Return whether a login, not pid 1, started the process.

    logind puts logins into session scopes; pam_loginuid gives them an audit session, which a
    service has only if systemd opened a PAM session for it (user@.service).
    """
    path = cgroup or b""
    if _LOGIN_SCOPE.search(path):
        return True
    return facts.audit_session not in (None, UNSET_ID) and b".service" not in path


# Processes whose entry has ended


def server_of(
    process: ProcessFacts, creator: ProcessFacts | None, host: Facts | None
) -> LoginServer | None:
    """Return the login server that a process belongs to, None if it is not root's."""
    server = _SERVER_OF.get(name(process.program))
    return server if server is not None and _is_roots(process, creator, host) else None


def infer(
    facts: Facts,
    cgroup: bytes | None,
    host: Facts | None,
    *,
    session: Entry | None,
    login: Login | None,
    connection: bytes | None,
) -> Entry:
    """Infer the entry of a child of init, whether init created or adopted it.

    The evidence, best first: its container; ``session``, the entry of another process of its audit
    session; ``login``, its login record; ``connection`` of its environment. Data that only root can
    write takes precedence over data of a user: a system unit has the entry type init, whatever its
    environment contains.
    """
    found = container.identify(cgroup) if cgroup is not None else None
    if found is not None and not found.rootless and _is_apart(facts, host):
        return Entry("container", inferred=BY_CGROUP)
    if session is not None:
        return session
    if login is not None and login.record == "logind":
        source = source_address(login.host or b"")
        return Entry(_type_of(login), source, inferred=BY_LOGIND, start=login.start)
    if is_of_a_unit(cgroup):
        return Entry("init", inferred=None if facts.sid == facts.pid else BY_CGROUP)
    if login is not None and (source := source_address(login.host or b"")) is not None:
        return Entry(LOGIN_SERVERS[0].type, source, BY_USER_DATA, BY_WTMP, login.start)
    if login is not None and not login.host and _type_of(login) != "unknown":
        return Entry(_type_of(login), None, BY_USER_DATA, BY_WTMP, login.start)
    if connection is not None and (source := source_address(connection)) is not None:
        return Entry(LOGIN_SERVERS[0].type, source, BY_USER_DATA, BY_OWN_ENVIRONMENT)
    if is_of_a_login(facts, cgroup):
        return Entry("unknown", inferred=LOGIN_GONE)
    return Entry("init", inferred=BY_INIT)


def _is_apart(facts: Facts, host: Facts | None) -> bool:
    return host is not None and (
        _differ(facts.pid_namespace, host.pid_namespace)
        or _differ(facts.mount_namespace, host.mount_namespace)
    )


def is_of_a_unit(cgroup: bytes | None) -> bool:
    """Return whether init started the cgroup's unit: a service, such as a user's manager."""
    unit = systemd_unit.identify(cgroup) if cgroup is not None else None
    return unit is not None and unit.unit is not None and unit.unit.endswith(".service")


def _type_of(login: Login) -> str:
    """Return the entry type of a login record.

    It is init for the sessions of services without remote logins (cron, a display manager).
    """
    service = (login.service or b"").decode("ascii", "replace")
    if service in SESSION_TYPES:
        return service
    if service not in ("", "login", "remote"):
        return "init"
    terminal = login.terminal or b""
    if _VIRTUAL_CONSOLE.fullmatch(terminal):
        return "console"
    return "terminal" if terminal.startswith(b"tty") else "unknown"
