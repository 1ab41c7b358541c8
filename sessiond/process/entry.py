"""How a process came into the host: the rules that make a session leader an entry leader.

A process is judged when it executes a program and when it becomes a session leader. The rules are
the lines of ``_RULES``, in order; the first that fits decides. They look at what the kernel says
(terminal, namespaces, cgroup, who forked whom) before they look at a name: a name is what the last
part of the executable's path is, never ``comm`` or argv[0] where the path is known, and what the
name is worth is told beside each rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple

from sessiond.process import container, systemd_unit
from sessiond.process.events import Facts, Login, Program
from sessiond.units import UNSET_ID


class ProcessView(NamedTuple):
    """A process at the moment of the judgement."""

    facts: Facts
    program: Program


class EntryCandidate(NamedTuple):
    """Who is judged, and what the rules may know of its surroundings.

    ``parent_pid`` is the pid of the process that forked it; of its present parent only where that
    isn't known. ``parent`` is that process, None where nothing but its pid is known. ``cgroup`` is
    a path from the hierarchy's root, ``grandparent`` the process that forked the parent, ``host``
    the facts of pid 1.
    ``type`` is its present type if it is an entry leader already. ``parent_entered``,
    ``session_entered`` and ``group_entered`` tell whether its parent (when it was forked), session
    leader and group leader have an entry leader.
    """

    process: ProcessView
    parent_pid: int
    parent: ProcessView | None
    grandparent: ProcessView | None
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
    """Whose entry leader a process has."""

    ITSELF = "itself"
    PARENT = "parent"
    SESSION = "session leader"
    GROUP = "group leader"
    NONE = "none"


class Decision(NamedTuple):
    """Whose entry leader it is; ``type`` is given exactly when it is one itself.

    ``note`` says what of it rests on what the user of the process may have made.
    """

    origin: Origin
    type: str | None = None
    note: str | None = None


BY_ENVIRONMENT: Final = (
    "process.entry_leader.entry_meta.source.ip: from the environment of the login, which its user"
    " can write"
)
ROOTLESS: Final = "process.entry_leader.entry_meta.type: the container's runtime is the user's own"
ITS_WORD: Final = "process.entry_leader.entry_meta: from what its user may have written"


class Entry(NamedTuple):
    """How a process came in whose own way in is gone, by what the host still shows.

    ``inferred`` says what shows it, and is None where the kernel does; ``note`` is as in Decision.
    ``start`` is when the login began, in ns since boot, where that is on record.
    """

    type: str
    source: str | None = None
    note: str | None = None
    inferred: str | None = None
    start: int | None = None


_INFERRED: Final = "process.entry_leader: from "
BY_SESSION: Final = _INFERRED + "another process of the audit session"
BY_LOGIND: Final = _INFERRED + "logind"
BY_WTMP: Final = _INFERRED + "wtmp"
BY_OWN_ENVIRONMENT: Final = _INFERRED + "the environment"
BY_CGROUP: Final = _INFERRED + "the control group"
BY_INIT: Final = _INFERRED + "its parent, init"
LOGIN_GONE: Final = "process.entry_leader: its login had ended, and nothing is left that tells more"


# include/uapi/linux/major.h, Documentation/admin-guide/devices.txt
TTY_MAJOR: Final = 4
FIRST_SERIAL: Final = 64
PTS_MAJORS: Final = range(136, 144)


class LoginServer(NamedTuple):
    """A server that lets users in from elsewhere.

    ``type`` is the entry type of its logins, ``programs`` are the names of its own processes.
    ``variable`` is the environment variable of a login whose value begins with the client's
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
# Those that begin an audit session: who else is in it came the same way.
SESSION_TYPES: Final = LOGIN_TYPES | {"terminal", "console", "ssm", "teleport"}
_SAME_SERVER: Final = {name: each.programs for each in LOGIN_SERVERS for name in each.programs}
_SERVER_OF: Final = {name: server for server in LOGIN_SERVERS for name in server.programs}

_RUNTIMES: Final = (b"containerd-shim", b"runc", b"crun", b"conmon")
# What engines run inside or on the way into a container, and is nobody's way in.
_HELPERS: Final = (
    b"runc",
    b"containerd-shim",
    b"calico-node",
    b"check-status",
    b"conmon",
    b"pause",
)

# Where only root can put a program. No /home, no /tmp, no memfd.
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
    """Tell whose entry leader a process has: its own, an inherited one, or none."""
    facts = candidate.process.facts
    # The kernel's own mark, not the name in brackets that ps shows.
    if facts.pid in (1, 2) or facts.kernel_thread:
        return Decision(Origin.NONE)
    if candidate.leads_session:
        for its_type, fits in _RULES:
            if fits(candidate):
                return Decision(Origin.ITSELF, its_type, _note(its_type, candidate))
        # Who came in stays who came in, whatever it executes: exec of a program that is called
        # sshd, or runc, is no way out of one's own session.
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
    """Give the login server that has a process of this name, None if none has."""
    return _SERVER_OF.get(comm)


def source_address(connection: bytes) -> str | None:
    """Give the client's address of a login server's variable; None if it doesn't hold one.

    It is an address, or "address port address port" as in SSH_CONNECTION (sshd(8)). A zone
    ("%eth0") is cut off, for ECS's type ip has none; an IPv4 address that is mapped into IPv6 is
    written as IPv4.
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
    """The name the rules go by: the last part of the executable's path, else comm.

    runc executes itself from memory, so that no container can overwrite it: then the name is that
    of the memory file ("/memfd:runc_cloned:/proc/self/exe"). Or from a mount that is in no tree:
    the kernel's path of that is "/", and comm ("runc:[2:INIT]") is what is left.
    """
    executable = program.executable
    if executable is None:
        return program.comm
    if executable.startswith(b"/memfd:"):
        return executable.removeprefix(b"/memfd:")
    return executable.rpartition(b"/")[2] or program.comm


def _terminal(candidate: EntryCandidate) -> bool:
    # The device number is the kernel's: nothing else is asked.
    facts = candidate.process.facts
    return facts.tty_major == TTY_MAJOR and facts.tty_minor >= FIRST_SERIAL


def _console(candidate: EntryCandidate) -> bool:
    # The device number is the kernel's; the name login counts for a program that root put there.
    facts = candidate.process.facts
    return (
        facts.tty_major == TTY_MAJOR
        and facts.tty_minor < FIRST_SERIAL
        and name(candidate.process.program) == b"login"
        and _is_roots(candidate.process, candidate.parent, candidate.host)
    )


def _init(candidate: EntryCandidate) -> bool:
    # Whom pid 1 forked is the kernel's word. Where only the present parent is known, pid 1 may have
    # inherited an orphan: a login leaves its mark in the cgroup, or in the audit session.
    return candidate.parent_pid == 1 and not is_of_a_login(
        candidate.process.facts, candidate.cgroup
    )


def _ssm(candidate: EntryCandidate) -> bool:
    # A pts is the kernel's word; the parent's name counts for a program that root put there.
    return candidate.process.facts.tty_major in PTS_MAJORS and _is_child_of(
        candidate, (b"ssm-session-worker",)
    )


def _login(server: LoginServer) -> Callable[[EntryCandidate], bool]:
    # The name counts for a program of root's that root executed: the process that forks the shell
    # runs as the user, and so can any code that the user loads into a program of the system's.
    def fits(candidate: EntryCandidate) -> bool:
        return _is_child_of(candidate, server.programs)

    return fits


def _teleport(candidate: EntryCandidate) -> bool:
    # As a login server's child, but teleport leaves no address in the environment.
    return _is_child_of(candidate, (b"teleport",))


def _kubelet(candidate: EntryCandidate) -> bool:
    # Likewise.
    return _is_child_of(candidate, (b"kubelet",))


def _container(candidate: EntryCandidate) -> bool:
    # The parent's name, for a program that root executed, or one of the system's (engines run
    # rootless, which is told), and a container around the process wherever the kernel shows it.
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
    """Tell a child of such a program of the host's from the program's own further processes."""
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


def _runs_as_root(runtime: ProcessView) -> bool:
    """Tell whether a container's runtime is root's; it may run from memory, or in a container."""
    executed = runtime.program.euid
    return executed == 0 if executed is not None else runtime.facts.euid == 0


def _is_roots(party: ProcessView, creator: ProcessView | None, host: Facts | None) -> bool:
    """Tell whether only root can have made the process what it is.

    Root executed a file of root's that lies in the host's mount namespace; the process has gone on
    from there, by fork or by setuid. Where the exec was not seen, the process runs as root, or a
    process that ran as root with the same program forked it: in a program that a user executes,
    any code of theirs may run (LD_PRELOAD), wherever the program lies.
    """
    program, facts = party.program, party.facts
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
        and _is_installed(party)
        and name(creator.program) in _SAME_SERVER.get(name(program), (name(program),))
    )


def _differ(known: int | None, wanted: int | None) -> bool:
    return known is not None and wanted is not None and known != wanted


def _is_installed(party: ProcessView) -> bool:
    """Tell whether its program is one of the system's; a comm without a path is anyone's to set."""
    executable = party.program.executable
    return executable is not None and executable.startswith(_SYSTEM_FOLDERS)


def _is_contained(process: Facts, parent: Facts, cgroup: bytes | None) -> bool:
    """Tell whether there is a container around the process; True also if nothing can be seen.

    The signs are a pid or mount namespace that isn't the parent's, and a container's cgroup that no
    user could have made.
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
    """Tell what a login left behind from what pid 1 started.

    logind puts logins into session scopes; pam_loginuid gives them an audit session, which a
    service has only if systemd opened a PAM session for it (user@.service).
    """
    path = cgroup or b""
    if _LOGIN_SCOPE.search(path):
        return True
    return facts.audit_session not in (None, UNSET_ID) and b".service" not in path


# Who has lost its way in


def server_of(
    process: ProcessView, creator: ProcessView | None, host: Facts | None
) -> LoginServer | None:
    """Give the login server that a process belongs to, None if it is none of root's."""
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
    """Tell how a process came in that init has adopted, or has made.

    Best first: its container; ``session``, the entry of another process of its audit session;
    ``login``, what is on record; ``connection``, what its environment says. Nothing that a user can
    write counts against what only root can: a unit of the system's came by init, whatever its
    environment is.
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
        return Entry(LOGIN_SERVERS[0].type, source, ITS_WORD, BY_WTMP, login.start)
    if login is not None and not login.host and _type_of(login) != "unknown":
        return Entry(_type_of(login), None, ITS_WORD, BY_WTMP, login.start)
    if connection is not None and (source := source_address(connection)) is not None:
        return Entry(LOGIN_SERVERS[0].type, source, ITS_WORD, BY_OWN_ENVIRONMENT)
    if is_of_a_login(facts, cgroup):
        return Entry("unknown", inferred=LOGIN_GONE)
    return Entry("init", inferred=BY_INIT)


def _is_apart(facts: Facts, host: Facts | None) -> bool:
    return host is not None and (
        _differ(facts.pid_namespace, host.pid_namespace)
        or _differ(facts.mount_namespace, host.mount_namespace)
    )


def is_of_a_unit(cgroup: bytes | None) -> bool:
    """Tell whether init started the unit that it is in: a service, also a user's manager."""
    unit = systemd_unit.identify(cgroup) if cgroup is not None else None
    return unit is not None and unit.unit is not None and unit.unit.endswith(".service")


def _type_of(login: Login) -> str:
    """The entry type of a login on record.

    Services that let nobody in from elsewhere (cron, a display manager) came by init themselves.
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
