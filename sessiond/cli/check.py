"""``sessiond check``: examines the host, and reports what sessiond lacks and how to fix it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple

from sessiond.audit.kernel.client import LOCKED, RECEIVE_BUFFER, AuditClient, KernelAuditStatus
from sessiond.audit.kernel.listeners import listeners
from sessiond.audit.rules.plan import silencers
from sessiond.audit.rules.ruleset import LoadedRule
from sessiond.errors import LIBRARIES, AuditUnavailableError
from sessiond.output.rotation import NO_ZSTD, NO_ZSTD_FIX, Compression
from sessiond.sources.ebpf import kernel_headers
from sessiond.system import zstd
from sessiond.system.proc import has_capability, namespaces, process_name

Level = Literal["ok", "warn", "fail"]

# Every topic with its exit code and the problem that the code stands for. Codes below 10 are those
# of the errors in sessiond.errors.
TOPICS: Final = {
    "audit": (10, "the kernel has no audit, or it was switched off at boot"),
    "user-namespace": (11, "not in the host's user namespace"),
    "pid-namespace": (12, "not in the host's pid namespace"),
    "network-namespace": (13, "not in the host's network namespace"),
    "audit-capabilities": (14, "not permitted to read audit records"),
    "audit-locked": (15, "the audit configuration is locked until reboot"),
    "audit-owner": (16, "another program is registered as the audit daemon"),
    "audit-at-boot": (17, "processes older than auditing are not audited"),
    "journald": (18, "journald stores every audit record too"),
    "audit-listeners": (19, "other programs read audit records too"),
    "libaudit": (20, "libaudit can't be loaded"),
    "receive-buffer": (21, "the receive buffer is smaller than configured"),
    "procfs": (22, "other users' processes can't be seen in procfs"),
    "bpf-capabilities": (23, "not permitted to load eBPF programs"),
    "btf": (24, "the kernel has no type information (BTF)"),
    "lockdown": (25, "the kernel is locked down"),
    "bcc": (27, "the bcc module can't be imported"),
    "proc-connector": (28, "not permitted to listen to the proc connector"),
    "container": (29, "this looks like a container"),
    "output": (30, "the output path can't be a file"),
    "audit-rules": (31, "rules of other programs keep execs from being audited"),
    "compression": (32, "rotated files use gzip: zstd is not available"),
    "filters": (33, "a filter never matches, or users can hide behind it"),
    "service-manager": (34, "systemd, its Python library or D-Bus is missing"),
    "directories": (35, "a directory of sessiond is on a read-only file system"),
}

# Words of the kernel's command line (Documentation/admin-guide/kernel-parameters.txt).
_OFF_AT_BOOT: Final = {"audit=0", "audit=off"}
_ON_AT_BOOT: Final = {"audit=1", "audit=on"}
# What each capability is for.
_BPF_CAPABILITIES: Final = {
    "CAP_BPF": "loads the tracer's programs",
    "CAP_PERFMON": "attaches them to tracepoints",
}
_PROCFS_CAPABILITIES: Final = {
    "CAP_SYS_PTRACE": "reads executables and namespaces of other users' processes",
    "CAP_DAC_READ_SEARCH": "reads files without read permission, such as other users' rule files",
}


class HostFinding(NamedTuple):
    """A topic and its state; ``fix`` is the remedy, "" if none is needed."""

    level: Level  # "fail": sessiond can't do its main job; "warn": it can, with limits
    name: str
    text: str
    fix: str = ""

    @property
    def exit_code(self) -> int:
        """The topic's own exit code, whatever the level."""
        return TOPICS[self.name][0]


class Host(NamedTuple):
    """Where to look; tests substitute their own files and answers."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    root: Path = Path("/")
    audit_status: Callable[[], KernelAuditStatus] = lambda: _audit_status()
    audit_rules: Callable[[], list[bytes]] = lambda: _audit_rules()
    importable: Callable[[str], bool] = lambda name: importlib.util.find_spec(name) is not None
    loadable: Callable[[str], bool] = lambda name: _loadable(name)
    read_only: Callable[[Path], bool] = lambda path: _read_only(path)


def report(
    host: Host | None = None,
    *,
    output: Path | None = None,
    compress: Compression = "zstd",
    audit: bool = True,
    own_rules: Collection[bytes] = (),
    doubtful_filters: bool = False,
    directories: Mapping[str, Path] | None = None,
) -> list[HostFinding]:
    """Examine everything that the main job and its optional parts need; change nothing.

    ``output`` is the output file, None without one; ``compress`` is how rotated files are
    compressed; ``audit`` says whether audit is used; ``own_rules`` are the configured rules in
    canonical form; ``doubtful_filters`` says that a filter is; ``directories`` are those that the
    daemon writes to, by setting. Returns one finding or more for every topic that can be judged,
    the most important topics first. Never raises: an unreadable file is itself a finding.
    """
    host = host or Host()
    of_audit = (
        partial(_audit, own=own_rules),
        _audit_at_boot,
        _listeners,
        _libaudit,
        _receive_buffer,
    )
    checks = (
        _namespaces,
        *(of_audit if audit else ()),
        _procfs,
        _bpf,
        _proc_connector,
        _container,
        _service_manager,
        partial(_directories, directories=directories or {}),
    )
    found = [finding for check in checks for finding in check(host)]
    of_filters = _filters(doubtful=doubtful_filters)
    return [*found, of_filters, _compression(compress), _output(host, output)]


def exit_code(findings: list[HostFinding], *, strict: bool = False) -> int:
    """Return the exit code of the first finding that fails (with ``strict``: or warns), else 0."""
    levels = ("fail", "warn") if strict else ("fail",)
    for level in levels:
        for finding in findings:
            if finding.level == level:
                return finding.exit_code
    return 0


def exit_codes_help() -> str:
    """Return one line for every exit code that ``exit_code`` can return, for --help."""
    return "\n".join(f"  {code}  {name}: {meaning}" for name, (code, meaning) in TOPICS.items())


def render(findings: list[HostFinding]) -> str:
    """Return the findings as text, one line each, without a newline at the end."""
    width = max(map(len, TOPICS))
    return "\n".join(
        f"{finding.level:<4}  {finding.name:<{width}}  {finding.text}"
        + (f"; {finding.fix}" if finding.fix else "")
        for finding in findings
    )


def _namespaces(host: Host) -> Iterator[HostFinding]:
    standing = namespaces(host.proc)
    outside = "run sessiond on the host, or give the container the host's {} namespace"
    for name, inside in (("user", standing.user), ("pid", standing.pid)):
        topic = f"{name}-namespace"
        if inside is None:
            yield HostFinding("warn", topic, f"unknown (no {host.proc}/self/ns/{name})")
        elif inside:
            yield HostFinding("ok", topic, "the host's")
        else:
            yield HostFinding(
                "fail", topic, "not the host's: the kernel refuses audit", outside.format(name)
            )
    if standing.network is None:
        yield HostFinding("ok", "network-namespace", "unknown whether it is the host's")
    elif standing.network:
        yield HostFinding("ok", "network-namespace", "the host's")
    else:
        yield HostFinding(
            "warn",
            "network-namespace",
            "not the host's: records arrive only by unicast, not by multicast",
            outside.format("network"),
        )


def _audit(host: Host, own: Collection[bytes]) -> Iterator[HostFinding]:
    if _OFF_AT_BOOT & _command_line(host):
        yield HostFinding(
            "fail",
            "audit",
            "switched off at boot",
            "remove audit=0 from the kernel's command line and reboot",
        )
        return
    control = _has(host, "CAP_AUDIT_CONTROL")
    yield _audit_capabilities(control=control, read=_has(host, "CAP_AUDIT_READ"))
    if not control:
        return
    try:
        status = host.audit_status()
    except AuditUnavailableError as error:
        yield HostFinding("fail", "audit", str(error))
        return
    yield HostFinding(
        "ok",
        "audit",
        f"{'on' if status.enabled else 'off (on while sessiond runs)'}, backlog"
        f" {status.backlog} of {status.backlog_limit}, {status.lost} records lost so far",
    )
    yield _locked(status)
    yield _owner(status, host)
    yield from _silencers(host, own)


def _silencers(host: Host, own: Collection[bytes]) -> Iterator[HostFinding]:
    """Name loaded rules that keep the kernel from recording execs, despite sessiond's rules."""
    try:
        found = silencers(map(LoadedRule, host.audit_rules()), "execve", own)
    except AuditUnavailableError as error:
        yield HostFinding("warn", "audit-rules", f"can't be listed: {error}")
        return
    for reason in found:
        yield HostFinding(
            "warn",
            "audit-rules",
            f"audit won't report every exec: {reason}",
            "delete the rule, also from the rules loaded at boot (/etc/audit/rules.d); until then "
            "only the tracer reports these execs",
        )
    if not found:
        yield HostFinding("ok", "audit-rules", "no rule keeps execs from being audited")


def _audit_capabilities(*, control: bool, read: bool) -> HostFinding:
    topic = "audit-capabilities"
    if control:
        return HostFinding(
            "ok", topic, "CAP_AUDIT_CONTROL" + (" and CAP_AUDIT_READ" if read else "")
        )
    fix = "run as root or with AmbientCapabilities=CAP_AUDIT_CONTROL CAP_AUDIT_READ"
    if read:
        return HostFinding(
            "warn",
            topic,
            "CAP_AUDIT_CONTROL is missing: sessiond can read by multicast but not load rules",
            fix,
        )
    return HostFinding("fail", topic, "CAP_AUDIT_CONTROL and CAP_AUDIT_READ are missing", fix)


def _locked(status: KernelAuditStatus) -> HostFinding:
    if status.enabled == LOCKED:
        return HostFinding(
            "warn",
            "audit-locked",
            "locked (enabled 2): the rules stay as they are",
            "remove -e 2 from the audit rules and reboot",
        )
    return HostFinding("ok", "audit-locked", "not locked")


def _owner(status: KernelAuditStatus, host: Host) -> HostFinding:
    topic = "audit-owner"
    if not status.pid:
        return HostFinding("ok", topic, "no process is registered as the audit daemon")
    name = process_name(status.pid, host.proc)
    if name is None:
        return HostFinding(
            "ok",
            topic,
            f"process {status.pid} has ended but is still registered: a service manager keeps its"
            " socket, or the kernel will notice at the next record that it is closed",
        )
    if name == "sessiond":
        return HostFinding("ok", topic, f"sessiond itself runs (pid {status.pid})")
    return HostFinding(
        "warn",
        topic,
        f"{name} (pid {status.pid}) is registered as the audit daemon: sessiond reads by"
        " multicast, where the kernel drops records that are not read in time",
        f"stop {name} if sessiond is to take its place",
    )


def _audit_at_boot(host: Host) -> Iterator[HostFinding]:
    options = _command_line(host)
    if _ON_AT_BOOT & options:
        yield HostFinding("ok", "audit-at-boot", "audit=1: every process is audited from its start")
    elif not _OFF_AT_BOOT & options:
        yield HostFinding(
            "warn",
            "audit-at-boot",
            "audit was off at boot: processes that started before it was enabled are not audited,"
            " only the processes that they start",
            "add audit=1 to the kernel's command line",
        )


def _listeners(host: Host) -> Iterator[HostFinding]:
    found = listeners(host.proc)
    if found is None:
        yield HostFinding("warn", "audit-listeners", f"can't read {host.proc}/net/netlink")
        return
    journald = [
        listener for listener in found if any("journal" in name for _, name in listener.holders)
    ]
    if journald:
        yield HostFinding(
            "warn",
            "journald",
            f"reads and stores audit records too ({journald[0].drops} dropped so far)",
            "systemctl mask --now systemd-journald-audit.socket",
        )
    else:
        yield HostFinding("ok", "journald", "does not read audit records")
    others = [listener for listener in found if listener not in journald]
    for listener in others:
        who = (
            ", ".join(f"{name} (pid {pid})" for pid, name in listener.holders) or "a hidden process"
        )
        yield HostFinding(
            "ok"
            if listener.holders and all(name == "sessiond" for _, name in listener.holders)
            else "warn",
            "audit-listeners",
            f"{who} reads audit records by multicast ({listener.drops} dropped so far)",
        )
    if not others:
        yield HostFinding("ok", "audit-listeners", "none")


def _libaudit(host: Host) -> Iterator[HostFinding]:
    if host.loadable("libaudit.so.1"):
        yield HostFinding("ok", "libaudit", "found")
    else:
        yield HostFinding(
            "fail",
            "libaudit",
            "libaudit.so.1 can't be loaded: rules can't be compiled",
            "install libaudit1 (Debian) or audit-libs (Fedora)",
        )


def _receive_buffer(host: Host) -> Iterator[HostFinding]:
    topic = "receive-buffer"
    wanted = RECEIVE_BUFFER // 1024
    if _has(host, "CAP_NET_ADMIN"):
        yield HostFinding("ok", topic, f"{wanted} KiB, thanks to CAP_NET_ADMIN")
        return
    try:
        reached = int((host.proc / "sys/net/core/rmem_max").read_text()) * 2 // 1024
    except (OSError, ValueError):
        yield HostFinding("warn", topic, f"can't read {host.proc}/sys/net/core/rmem_max")
        return
    if reached >= wanted:
        yield HostFinding("ok", topic, f"{wanted} KiB")
    else:
        yield HostFinding(
            "warn",
            topic,
            f"{reached} KiB at most instead of {wanted} KiB: bursts and restarts can lose records",
            f"sysctl net.core.rmem_max={RECEIVE_BUFFER // 2}, or grant CAP_NET_ADMIN",
        )


def _procfs(host: Host) -> Iterator[HostFinding]:
    if not (host.proc / "self/status").exists():
        fix = f"mount -t proc proc {host.proc}"
        yield HostFinding("fail", "procfs", f"{host.proc} is not mounted", fix)
        return
    missing = [name for name in _PROCFS_CAPABILITIES if not _has(host, name)]
    for name in missing:
        yield HostFinding(
            "warn",
            "procfs",
            f"{name} is missing, which {_PROCFS_CAPABILITIES[name]}",
            f"run as root or with AmbientCapabilities={name}",
        )
    hidden = _hidepid(host)
    if hidden and not _has(host, "CAP_SYS_PTRACE"):
        yield HostFinding(
            "warn",
            "procfs",
            f"mounted with {hidden}: other users' processes are hidden",
            "grant CAP_SYS_PTRACE, or remount /proc with gid= of sessiond's group",
        )
    elif not missing:
        yield HostFinding("ok", "procfs", "every process is visible")


def _hidepid(host: Host) -> str | None:
    """Return the mount option of /proc that hides processes; None without one."""
    try:
        mounts = (host.proc / "self/mounts").read_text().splitlines()
    except OSError:
        return None
    for line in mounts:
        _, where, kind, options, *_ = line.split(" ")
        if where == "/proc" and kind == "proc":
            for option in options.split(","):
                if option.startswith("hidepid=") and option not in ("hidepid=0", "hidepid=off"):
                    return option
    return None


def _bpf(host: Host) -> Iterator[HostFinding]:
    # CAP_SYS_ADMIN includes both, as before Linux 5.8.
    missing = [] if _has(host, "CAP_SYS_ADMIN") else list(_missing_bpf(host))
    yield from missing
    if not missing:
        yield HostFinding("ok", "bpf-capabilities", "CAP_BPF and CAP_PERFMON")
    yield _btf(host)
    yield _lockdown(host)
    yield _bcc(host)


def _missing_bpf(host: Host) -> Iterator[HostFinding]:
    for name, purpose in _BPF_CAPABILITIES.items():
        if not _has(host, name):
            yield HostFinding(
                "warn",
                "bpf-capabilities",
                f"{name} is missing, which {purpose}: no eBPF tracer",
                f"run as root or with AmbientCapabilities={name}",
            )


def _btf(host: Host) -> HostFinding:
    path = host.sys / "kernel/btf/vmlinux"
    try:
        if path.stat().st_size:
            return HostFinding("ok", "btf", "present: no kernel headers are needed")
    except OSError:
        pass
    if kernel_headers.available(host.sys.parent):
        return HostFinding("ok", "btf", "missing, but the running kernel's headers are installed")
    return HostFinding(
        "warn",
        "btf",
        f"{path} is missing or empty, and so are the kernel's headers: no eBPF tracer",
        "use a kernel built with CONFIG_DEBUG_INFO_BTF, or install the running kernel's headers",
    )


def _lockdown(host: Host) -> HostFinding:
    try:
        modes = (host.sys / "kernel/security/lockdown").read_text().split()
    except OSError:
        return HostFinding("ok", "lockdown", "none")
    mode = next((mode.strip("[]") for mode in modes if mode.startswith("[")), "none")
    # Linux security/lockdown: only confidentiality forbids BPF to read kernel memory.
    if mode == "confidentiality":
        return HostFinding(
            "warn",
            "lockdown",
            "confidentiality: eBPF programs may not read kernel memory: no eBPF tracer",
            "boot with lockdown=integrity or without lockdown, or use backend proc_connector",
        )
    return HostFinding("ok", "lockdown", mode)


def _bcc(host: Host) -> HostFinding:
    if host.importable("bcc"):
        return HostFinding("ok", "bcc", "found")
    return HostFinding(
        "warn",
        "bcc",
        "Python can't import bcc: no eBPF tracer",
        "install python3-bpfcc (Debian) or python3-bcc (Fedora), and create the virtual environment"
        " with --system-site-packages",
    )


def _proc_connector(host: Host) -> Iterator[HostFinding]:
    if _has(host, "CAP_NET_ADMIN"):
        yield HostFinding("ok", "proc-connector", "CAP_NET_ADMIN")
    else:
        yield HostFinding(
            "warn",
            "proc-connector",
            "CAP_NET_ADMIN is missing: without eBPF only procfs is left",
            "run as root or with AmbientCapabilities=CAP_NET_ADMIN",
        )


def _container(host: Host) -> Iterator[HostFinding]:
    signs = [
        f"/{path}"
        for path in (".dockerenv", "run/.containerenv", "run/systemd/container")
        if (host.root / path).exists()
    ]
    standing = namespaces(host.proc)
    if not signs:
        yield HostFinding("ok", "container", "no sign of one")
    elif standing.pid and standing.user:
        yield HostFinding(
            "ok", "container", f"{signs[0]} exists, but the namespaces are the host's"
        )
    else:
        yield HostFinding(
            "warn",
            "container",
            f"{signs[0]} exists: this looks like a container",
            "give it the host's pid, user and network namespaces, and /proc and /sys",
        )


def _service_manager(host: Host) -> Iterator[HostFinding]:
    topic = "service-manager"
    if not host.importable("systemd"):
        yield HostFinding(
            "fail",
            topic,
            "Python can't import systemd: the daemon can't start",
            f"install {LIBRARIES['systemd']}, and create the virtual environment with"
            " --system-site-packages",
        )
    elif not (host.root / "run/systemd/system").exists():
        yield HostFinding(
            "warn",
            topic,
            "systemd does not run: events between a kill of sessiond and its next start are lost",
            "run sessiond as a service of systemd, which keeps the audit socket during a restart",
        )
    elif not (host.root / "run/dbus/system_bus_socket").exists():
        yield HostFinding(
            "warn",
            topic,
            "D-Bus does not run: events during a restart of the service are lost",
            "install default-dbus-system-bus (Debian) or dbus (Fedora), and systemctl start dbus",
        )
    else:
        yield HostFinding("ok", topic, "systemd, which keeps the audit socket during restarts")


def _directories(host: Host, directories: Mapping[str, Path]) -> Iterator[HostFinding]:
    unusable = {name: path for name, path in directories.items() if host.read_only(path)}
    for setting, path in unusable.items():
        yield HostFinding(
            "fail",
            "directories",
            f"{path} is on a read-only file system",
            f"mount it writable, or set {setting} to another directory",
        )
    if not unusable:
        yield HostFinding("ok", "directories", "none is on a read-only file system")


def _compression(wanted: Compression) -> HostFinding:
    topic = "compression"
    if wanted == "none":
        return HostFinding("ok", topic, "rotated files are not compressed")
    if wanted == "gzip" or zstd.implementation() is not None:
        return HostFinding("ok", topic, f"rotated files are compressed with {wanted}")
    return HostFinding("warn", topic, NO_ZSTD, NO_ZSTD_FIX)


def _filters(*, doubtful: bool) -> HostFinding:
    if doubtful:
        text = "one never matches, or users can hide behind it"
        return HostFinding("warn", "filters", text, "change it as said above")
    return HostFinding("ok", "filters", "none is doubtful")


def _output(host: Host, path: Path | None) -> HostFinding:
    if path is None:
        return HostFinding("ok", "output", "no output file")
    try:
        above = next(directory for directory in path.parents if directory.exists())
        if not above.is_dir():
            problem = f"{above} is not a directory"
        elif path.is_symlink() or (path.exists() and not path.is_file()):
            problem = f"{path} is not a regular file"
        elif host.read_only(path):
            problem = f"{path} is on a read-only file system"
        else:
            return HostFinding("ok", "output", f"lines go to {path}")
    except PermissionError:
        return HostFinding(
            "warn", "output", f"{path} can't be examined", "run this command as root"
        )
    return HostFinding("fail", "output", problem, "set output.file.path to another path")


def _has(host: Host, capability: str) -> bool:
    return has_capability(capability, host.proc)


def _command_line(host: Host) -> set[str]:
    try:
        return set((host.proc / "cmdline").read_text().split())
    except OSError:
        return set()


def _audit_status() -> KernelAuditStatus:
    with AuditClient.open() as client:
        return client.status()


def _audit_rules() -> list[bytes]:
    with AuditClient.open() as client:
        return client.list_rules()


def _read_only(path: Path) -> bool:
    """Return whether the path, or the directory where it would be created, can't be written."""
    try:
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        return bool(os.statvfs(existing).f_flag & os.ST_RDONLY)
    except OSError:  # the start says more
        return False


def _loadable(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
