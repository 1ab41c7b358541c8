"""Maps syscalls and record types to ``event.action``, category, type and the object of the action.

The actions are those of Auditbeat's auditd module. Where it has none, the action is the name of the
syscall or of the record type (``mac-unlbl-allow``), written ``=`` in the tables. The combinations
of category and type are those that ECS 9.4 allows:
https://www.elastic.co/docs/reference/ecs/ecs-allowed-values-event-category
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

_Key = TypeVar("_Key")


class Normalization(NamedTuple):
    """The ECS meaning of a syscall or of a record type.

    ``object`` is the kind of object: ``auditd.summary.object.type``. ``primary``, ``secondary`` and
    ``how`` name the record fields that identify it; the first present field counts. For files,
    sockets and processes of a syscall, other records of the event identify it. ``target`` is "user"
    or "group" if the event is about an account. ``actor`` and ``acts_as`` name the fields of the
    acting user and of the user it acts as, if they are not ``auid`` and ``uid``. If ``effective``
    names fields, ``user`` is the login user and these fields are ``user.effective``.
    """

    action: str
    category: list[str]
    types: list[str]
    object: str = ""
    primary: tuple[str, ...] = ()
    secondary: tuple[str, ...] = ()
    how: tuple[str, ...] = ()
    target: str = ""
    actor: tuple[str, ...] = ()
    acts_as: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()


def _table(*groups: Iterable[tuple[_Key, Normalization]]) -> dict[_Key, Normalization]:
    table: dict[_Key, Normalization] = {}
    for group in groups:
        for key, meaning in group:
            if key in table:
                raise ValueError(f"{key} is a duplicate key")
            table[key] = meaning
    return table


def _rows(text: str) -> Iterator[str]:
    return filter(None, map(str.strip, text.splitlines()))


# Syscalls, by name. A row is "action: syscalls".


def _syscalls(
    category: str, types: str, kind: str, rows: str
) -> Iterator[tuple[str, Normalization]]:
    for row in _rows(rows):
        action, _, names = row.partition(": ")
        for name in names.split():
            yield (
                name,
                Normalization(
                    name if action == "=" else action, category.split(), types.split(), kind
                ),
            )


SYSCALLS: Final = _table(
    _syscalls(
        "process",
        "start",
        "file",
        """
        exec: execve execveat
        """,
    ),
    _syscalls(
        "process",
        "start",
        "",
        """
        =: fork vfork clone clone3
        """,
    ),
    _syscalls(
        "process",
        "end",
        "process",
        """
        end: exit_group
        """,
    ),
    _syscalls(
        "process",
        "change",
        "",
        """
        setsid: setsid
        """,
    ),
    _syscalls(
        "process",
        "change",
        "process",
        """
        changed-identity-of: setuid seteuid setfsuid setreuid setresuid
        changed-identity-of: setgid setegid setfsgid setregid setresgid
        changed-identity-of: setuid32 setfsuid32 setreuid32 setresuid32
        changed-identity-of: setgid32 setfsgid32 setregid32 setresgid32
        adjusted-scheduling-policy-of: sched_setparam sched_setscheduler sched_setattr
        =: setgroups setgroups32 setpgid capset prctl personality seccomp unshare setns chroot
        =: chdir fchdir sched_setaffinity setpriority ioprio_set setrlimit prlimit64
        =: ptrace process_vm_writev
        killed-pid: kill tkill tgkill pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo
        """,
    ),
    _syscalls(
        "process",
        "access",
        "process",
        """
        =: process_vm_readv kcmp pidfd_open pidfd_getfd
        """,
    ),
    # Elastic's rules look for these among the events of processes, where Auditbeat has them.
    _syscalls(
        "process",
        "info",
        "socket",
        """
        =: socket socketpair
        """,
    ),
    _syscalls(
        "process",
        "info",
        "file",
        """
        =: splice
        """,
    ),
    _syscalls(
        "process",
        "info",
        "memory",
        """
        allocated-memory: mmap mmap2 brk
        =: mprotect pkey_mprotect mremap memfd_create memfd_secret
        """,
    ),
    _syscalls(
        "file",
        "access",
        "file",
        """
        opened-file: open openat openat2 open_by_handle_at readlink readlinkat
        read-file: read pread64 readv preadv preadv2 getdents getdents64
        checked-metadata-of: access faccessat faccessat2 stat stat64 fstat fstat64 lstat lstat64
        checked-metadata-of: fstatat fstatat64 newfstatat statx getxattr lgetxattr fgetxattr
        =: listxattr llistxattr flistxattr name_to_handle_at inotify_add_watch fanotify_mark
        """,
    ),
    _syscalls(
        "file",
        "creation",
        "file",
        """
        opened-file: creat
        created-directory: mkdir mkdirat
        make-device: mknod mknodat
        symlinked: symlink symlinkat
        linked: link linkat
        """,
    ),
    _syscalls(
        "file",
        "change",
        "file",
        """
        opened-file: truncate truncate64 ftruncate ftruncate64 fallocate
        wrote-to-file: write pwrite64 writev pwritev pwritev2
        changed-file-permissions-of: chmod fchmod fchmodat fchmodat2
        changed-file-ownership-of: chown fchown lchown fchownat chown32 fchown32 lchown32
        changed-file-attributes-of: setxattr lsetxattr fsetxattr setxattrat
        changed-file-attributes-of: removexattr lremovexattr fremovexattr removexattrat
        changed-timestamp-of: utime utimes futimesat utimensat utimensat_time64 futimens
        renamed: rename renameat renameat2
        =: copy_file_range sendfile sendfile64 quotactl quotactl_fd
        """,
    ),
    _syscalls(
        "file",
        "deletion",
        "file",
        """
        deleted: rmdir unlink unlinkat
        """,
    ),
    _syscalls(
        "file",
        "access",
        "filesystem",
        """
        checked-filesystem-metadata-of: statfs statfs64 fstatfs fstatfs64
        """,
    ),
    _syscalls(
        "file",
        "creation",
        "filesystem",
        """
        mounted: mount
        =: fsmount
        """,
    ),
    _syscalls(
        "file",
        "change",
        "filesystem",
        """
        =: pivot_root move_mount mount_setattr open_tree fsopen fsconfig fspick
        """,
    ),
    _syscalls(
        "file",
        "deletion",
        "filesystem",
        """
        unmounted: umount umount2
        """,
    ),
    _syscalls(
        "network",
        "connection start",
        "socket",
        """
        connected-to: connect
        accepted-connection-from: accept accept4
        """,
    ),
    _syscalls(
        "network",
        "start",
        "socket",
        """
        bound-socket: bind
        listen-for-connections: listen
        """,
    ),
    _syscalls(
        "network",
        "connection info",
        "socket",
        """
        received-from: recv recvfrom recvmsg recvmmsg recvmmsg_time64
        sent-to: send sendto sendmsg sendmmsg
        """,
    ),
    _syscalls(
        "network",
        "info",
        "socket",
        """
        =: setsockopt getsockopt shutdown getsockname getpeername
        """,
    ),
    _syscalls(
        "driver",
        "start",
        "file",
        """
        loaded-kernel-module: init_module finit_module
        =: kexec_load kexec_file_load
        """,
    ),
    _syscalls(
        "driver",
        "end",
        "file",
        """
        unloaded-kernel-module: delete_module
        """,
    ),
    _syscalls(
        "driver",
        "info",
        "",
        """
        =: bpf
        """,
    ),
    _syscalls(
        "host",
        "change",
        "system",
        """
        changed-system-time: settimeofday clock_settime clock_settime64 stime
        changed-system-time: adjtimex clock_adjtime clock_adjtime64
        changed-system-name: sethostname setdomainname
        =: reboot swapon swapoff acct iopl ioperm sysctl _sysctl
        """,
    ),
)

# The calls of socketcall(2) on 32-bit machines, by its first argument (linux/net.h).
SOCKETCALLS: Final = {
    number: SYSCALLS[name]
    for number, name in enumerate(
        "socket bind connect listen accept getsockname getpeername socketpair send recv sendto "
        "recvfrom shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg".split(),
        start=1,
    )
}

# The side of the connection that a SOCKADDR record's address is on, as seen from this host.
PEER: Final = {
    "connected-to": ("destination", "egress"),
    "sent-to": ("destination", "egress"),
    "accepted-connection-from": ("source", "ingress"),
    "received-from": ("source", "ingress"),
}


def unknown_syscall(name: str) -> Normalization:
    """Return the meaning of a syscall that is in no table."""
    return Normalization(name, ["process"], ["info"])


# Record types, by number (linux/audit.h, libaudit.h). A row is "number NAME action".

# Records that only add details to an event: none of them is its subject.
AUXILIARY: Final = {
    1300: "SYSCALL",
    1302: "PATH",
    1303: "IPC",
    1304: "SOCKETCALL",
    1306: "SOCKADDR",
    1307: "CWD",
    1309: "EXECVE",
    1311: "IPC_SET_PERM",
    1312: "MQ_OPEN",
    1313: "MQ_SENDRECV",
    1314: "MQ_NOTIFY",
    1315: "MQ_GETSETATTR",
    1317: "FD_PAIR",
    1318: "OBJ_PID",
    1320: "EOE",
    1321: "BPRM_FCAPS",
    1322: "CAPSET",
    1323: "MMAP",
    1327: "PROCTITLE",
    1330: "KERN_MODULE",
    1337: "OPENAT2",
    1424: "LANDLOCK_DOMAIN",
    1425: "MAC_TASK_CONTEXTS",
    1426: "MAC_OBJ_CONTEXTS",
}
NAMES: Final = dict(AUXILIARY)


def _records(
    category: str,
    types: str,
    rows: str,
    *,
    kind: str = "",
    primary: str = "",
    secondary: str = "",
    how: str = "",
    target: str = "",
    actor: str = "",
    acts_as: str = "",
    effective: str = "",
) -> Iterator[tuple[int, Normalization]]:
    for row in _rows(rows):
        number, name, action = row.split()
        NAMES[int(number)] = name
        yield (
            int(number),
            Normalization(
                name.lower().replace("_", "-") if action == "=" else action,
                category.split(),
                types.split(),
                kind,
                tuple(primary.split()),
                tuple(secondary.split()),
                tuple(how.split()),
                target,
                tuple(actor.split()),
                tuple(acts_as.split()),
                tuple(effective.split()),
            ),
        )


_SESSION: Final = {
    "kind": "user-session",
    "primary": "terminal",
    "secondary": "addr hostname",
    "how": "exe terminal",
    "acts_as": "acct id uid",
}
_LOGIN: Final = {**_SESSION, "effective": "acct id uid", "target": "user"}
_ACCOUNT: Final = {"kind": "account", "primary": "id acct grp"}
_MACHINE: Final = {"kind": "virtual-machine", "primary": "op resrc vm", "secondary": "vm"}

RECORD_TYPES: Final = _table(
    # Logins, credentials and sessions
    _records(
        "authentication",
        "info",
        """
        1100 USER_AUTH authenticated
        1101 USER_ACCT was-authorized
        1103 CRED_ACQ acquired-credentials
        1104 CRED_DISP disposed-credentials
        1109 USER_ERR error
        1110 CRED_REFR refreshed-credentials
        """,
        **_LOGIN,
    ),
    _records(
        "authentication",
        "info",
        "1126 GRP_AUTH authenticated-to-group",
        target="group",
        effective="uid",
    ),
    _records("authentication", "start", "1112 USER_LOGIN logged-in", **_LOGIN),
    _records("authentication", "end", "1113 USER_LOGOUT logged-out", **_LOGIN),
    _records("session", "start", "1105 USER_START started-session", **_LOGIN),
    _records("session", "end", "1106 USER_END ended-session", **_LOGIN),
    _records(
        "authentication",
        "start",
        "1006 LOGIN changed-login-id-to",
        kind="user-session",
        primary="auid",
        actor="old-auid",
        effective="auid",
    ),
    # Accounts
    _records(
        "iam",
        "user creation",
        "1114 ADD_USER added-user-account",
        target="user",
        effective="uid",
        **_ACCOUNT,
    ),
    _records(
        "iam",
        "user deletion",
        "1115 DEL_USER deleted-user-account",
        target="user",
        effective="uid",
        **_ACCOUNT,
    ),
    _records(
        "iam",
        "group creation",
        "1116 ADD_GROUP added-group-account-to",
        target="group",
        effective="uid",
        **_ACCOUNT,
    ),
    _records(
        "iam",
        "group deletion",
        "1117 DEL_GROUP deleted-group-account-from",
        target="group",
        effective="uid",
        **_ACCOUNT,
    ),
    _records(
        "iam",
        "user change",
        """
        1102 USER_MGMT modified-user-account
        1108 USER_CHAUTHTOK changed-password
        """,
        target="user",
        effective="uid",
        **_SESSION,
    ),
    _records(
        "iam",
        "user change",
        "2300 USER_ROLE_CHANGE changed-role-to",
        target="user",
        **(_SESSION | {"primary": "selected-context"}),
    ),
    _records(
        "iam",
        "user change",
        """
        2301 ROLE_ASSIGN assigned-user-role-to
        2302 ROLE_REMOVE removed-user-role-from
        """,
        target="user",
        **_ACCOUNT,
    ),
    _records(
        "iam",
        "group change",
        "1132 GRP_MGMT modified-group-account",
        target="group",
        effective="uid",
        **_ACCOUNT,
    ),
    _records(
        "iam",
        "group change",
        "1133 GRP_CHAUTHTOK changed-group-password",
        target="group",
        effective="uid",
        **(_SESSION | {"primary": "acct grp id"}),
    ),
    _records(
        "iam",
        "user info",
        """
        1135 ACCT_LOCK locked-account
        1136 ACCT_UNLOCK unlocked-account
        """,
        target="user",
        **_ACCOUNT,
    ),
    _records("iam", "admin change", "2311 ROLE_MODIFY modified-role"),
    # Processes and services
    _records("process", "start", "1123 USER_CMD ran-command", kind="process", primary="cmd"),
    _records(
        "process",
        "change",
        """
        1119 CHGRP_ID changed-group
        1125 CHUSER_ID changed-user-id
        """,
    ),
    _records(
        "process", "start", "1130 SERVICE_START started-service", kind="service", primary="unit"
    ),
    _records("process", "end", "1131 SERVICE_STOP stopped-service", kind="service", primary="unit"),
    _records(
        "process intrusion_detection",
        "end info",
        "1701 ANOM_ABEND crashed-program",
        kind="process",
        primary="comm exe",
        secondary="pid",
        how="sig",
    ),
    _records(
        "process",
        "info",
        "1326 SECCOMP violated-seccomp-policy",
        kind="process",
        primary="syscall",
    ),
    _records(
        "process",
        "info",
        """
        1124 USER_TTY typed
        1319 TTY typed
        """,
        kind="keystrokes",
        primary="data",
        how="comm exe",
    ),
    _records(
        "process",
        "info",
        """
        1118 DAC_CHECK access-result
        1120 TEST sent-test
        1121 TRUSTED_APP unknown
        1316 KERNEL_OTHER =
        1335 EVENT_LISTENER =
        1336 URINGOP =
        2000 KERNEL initialized-audit-subsystem
        """,
    ),
    _records("process", "info", "1005 USER sent-message", primary="addr"),
    # The audit system and its daemon
    _records(
        "process configuration",
        "change",
        "1305 CONFIG_CHANGE changed-audit-configuration",
        kind="audit-config",
        primary="op key audit_enabled audit_pid audit_backlog_limit audit_failure",
    ),
    _records(
        "configuration",
        "change",
        "1328 FEATURE_CHANGE changed-audit-feature",
        kind="system",
        primary="feature",
    ),
    _records("process", "start", "1200 DAEMON_START started-audit", kind="service"),
    _records(
        "process",
        "end",
        """
        1201 DAEMON_END shutdown-audit
        1202 DAEMON_ABORT aborted-auditd-startup
        """,
        kind="service",
    ),
    _records(
        "process configuration",
        "change",
        "1203 DAEMON_CONFIG changed-auditd-configuration",
        kind="service",
    ),
    _records(
        "process configuration", "info", "1204 DAEMON_RECONFIG reconfigured-auditd", kind="service"
    ),
    _records(
        "process",
        "change",
        """
        1205 DAEMON_ROTATE rotated-audit-logs
        1206 DAEMON_RESUME resumed-audit-logging
        """,
        kind="service",
    ),
    _records(
        "network", "connection start", "1207 DAEMON_ACCEPT remote-audit-connected", kind="service"
    ),
    _records(
        "network", "connection end", "1208 DAEMON_CLOSE remote-audit-disconnected", kind="service"
    ),
    _records("process", "info", "1209 DAEMON_ERR audit-error", kind="service"),
    # The host, its configuration and its software
    _records("host", "start", "1127 SYSTEM_BOOT booted-system", kind="system"),
    _records("host", "end", "1128 SYSTEM_SHUTDOWN shutdown-system", kind="system"),
    _records(
        "host",
        "change",
        "1129 SYSTEM_RUNLEVEL changed-to-runlevel",
        kind="system",
        primary="new-level",
    ),
    _records(
        "host",
        "change",
        """
        1332 TIME_INJOFFSET changed-system-time
        1333 TIME_ADJNTPVAL changed-system-time
        """,
        kind="system",
        primary="op",
    ),
    _records(
        "configuration",
        "change",
        "1111 USYS_CONFIG changed-configuration",
        kind="system",
        primary="op",
    ),
    _records(
        "package", "info", "1138 SOFTWARE_UPDATE package-updated", kind="package", primary="sw"
    ),
    _records(
        "driver", "start", "1330 KERN_MODULE loaded-kernel-module", kind="file", primary="name"
    ),
    _records("driver", "info", "1334 BPF =", kind="bpf-program", primary="prog-id", secondary="op"),
    _records(
        "driver",
        "change",
        """
        1338 DM_CTRL =
        1339 DM_EVENT =
        """,
        kind="device",
        primary="dev",
    ),
    _records(
        "configuration",
        "change",
        """
        1137 USER_DEVICE =
        2307 DEV_ALLOC =
        2308 DEV_DEALLOC =
        """,
        kind="device",
        primary="device dev",
    ),
    # Network
    _records(
        "configuration",
        "change",
        "1325 NETFILTER_CFG loaded-firewall-rule-to",
        kind="firewall",
        primary="table",
    ),
    _records(
        "network", "info", "1324 NETFILTER_PKT =", kind="socket", primary="daddr", secondary="dport"
    ),
    _records(
        "intrusion_detection host",
        "info change",
        "1700 ANOM_PROMISCUOUS changed-promiscuous-mode-on-device",
        kind="network-device",
        primary="dev",
    ),
    # Access policies
    _records("intrusion_detection", "info", "1400 AVC =", kind="policy"),
    _records(
        "intrusion_detection",
        "info",
        """
        1107 USER_AVC access-permission
        1122 USER_SELINUX_ERR access-error
        1134 MAC_CHECK mac-permission
        1401 SELINUX_ERR caused-mac-policy-error
        1402 AVC_PATH =
        1500 APPARMOR =
        1506 APPARMOR_ERROR =
        """,
        kind="policy",
    ),
    _records(
        "intrusion_detection",
        "denied",
        """
        1503 APPARMOR_DENIED violated-apparmor-policy
        1507 APPARMOR_KILL violated-apparmor-policy
        """,
        kind="policy",
        primary="operation",
        secondary="requested_mask denied_mask capname",
    ),
    _records(
        "intrusion_detection",
        "allowed",
        """
        1501 APPARMOR_AUDIT =
        1502 APPARMOR_ALLOWED =
        1504 APPARMOR_HINT =
        """,
        kind="policy",
        primary="operation",
        secondary="requested_mask denied_mask capname",
    ),
    _records(
        "configuration",
        "access",
        """
        1403 MAC_POLICY_LOAD loaded-selinux-policy
        2310 USER_MAC_POLICY_LOAD loaded-mac-policy
        """,
        kind="mac-config",
    ),
    _records(
        "configuration",
        "change",
        "1404 MAC_STATUS changed-selinux-enforcement",
        kind="mac-config",
        primary="enforcing",
    ),
    _records(
        "configuration",
        "change",
        "1405 MAC_CONFIG_CHANGE changed-selinux-boolean",
        kind="mac-config",
        primary="bool",
    ),
    _records(
        "configuration",
        "change",
        """
        1406 MAC_UNLBL_ALLOW =
        1407 MAC_CIPSOV4_ADD =
        1408 MAC_CIPSOV4_DEL =
        1409 MAC_MAP_ADD =
        1410 MAC_MAP_DEL =
        1411 MAC_IPSEC_ADDSA =
        1412 MAC_IPSEC_DELSA =
        1413 MAC_IPSEC_ADDSPD =
        1414 MAC_IPSEC_DELSPD =
        1415 MAC_IPSEC_EVENT =
        1416 MAC_UNLBL_STCADD =
        1417 MAC_UNLBL_STCDEL =
        1418 MAC_CALIPSO_ADD =
        1419 MAC_CALIPSO_DEL =
        2303 LABEL_OVERRIDE overrode-label-of
        2309 FS_RELABEL relabeled-filesystem
        2312 USER_MAC_CONFIG_CHANGE changed-mac-configuration
        2313 USER_MAC_STATUS =
        """,
        kind="mac-config",
    ),
    _records(
        "configuration",
        "change",
        "1505 APPARMOR_STATUS =",
        kind="mac-config",
        primary="operation",
        secondary="name",
    ),
    _records(
        "configuration",
        "change",
        "2304 LABEL_LEVEL_CHANGE modified-level-of",
        kind="printer",
        primary="printer",
    ),
    _records(
        "file",
        "access",
        """
        2305 USER_LABELED_EXPORT =
        2306 USER_UNLABELED_EXPORT =
        """,
        kind="file",
        primary="path name",
    ),
    _records("file", "access", "1331 FANOTIFY =", kind="file"),
    _records("intrusion_detection", "info", "1420 IPE_ACCESS =", kind="policy"),
    _records("intrusion_detection", "denied", "1423 LANDLOCK_ACCESS =", kind="policy"),
    _records(
        "configuration",
        "change",
        """
        1421 IPE_CONFIG_CHANGE =
        1422 IPE_POLICY_LOAD =
        """,
        kind="mac-config",
    ),
    # Integrity of files
    _records(
        "file",
        "info",
        """
        1800 INTEGRITY_DATA =
        1801 INTEGRITY_METADATA =
        1802 INTEGRITY_STATUS =
        1803 INTEGRITY_HASH =
        1804 INTEGRITY_PCR =
        1805 INTEGRITY_RULE =
        1806 INTEGRITY_EVM_XATTR =
        1807 INTEGRITY_POLICY_RULE =
        1808 INTEGRITY_USERSPACE =
        """,
        kind="file",
        primary="name",
        secondary="cause",
    ),
    # Anomalies, seen by the kernel and by user space, and what was done about them
    _records(
        "file intrusion_detection",
        "access info",
        """
        1702 ANOM_LINK used-suspicious-link
        1703 ANOM_CREAT =
        """,
        kind="file",
    ),
    _records(
        "authentication intrusion_detection",
        "start denied",
        """
        2100 ANOM_LOGIN_FAILURES failed-log-in-too-many-times-to
        2101 ANOM_LOGIN_TIME attempted-log-in-during-unusual-hour-to
        2102 ANOM_LOGIN_SESSIONS opened-too-many-sessions-to
        2103 ANOM_LOGIN_ACCT attempted-log-in-to-watched-account
        2104 ANOM_LOGIN_LOCATION attempted-log-in-from-unusual-place-to
        2118 ANOM_LOGIN_SERVICE service-account-attempted-login
        2119 ANOM_LOGIN_ROOT =
        """,
        target="user",
        **_SESSION,
    ),
    _records(
        "authentication intrusion_detection",
        "info",
        """
        2120 ANOM_ORIGIN_FAILURES =
        2121 ANOM_SESSION =
        """,
        target="user",
        **_SESSION,
    ),
    _records(
        "authentication intrusion_detection",
        "start info",
        "2117 ANOM_ROOT_TRANS user-became-root",
        target="user",
    ),
    _records(
        "process intrusion_detection",
        "start info",
        "2112 ANOM_EXEC attempted-execution-of-forbidden-program",
        kind="process",
        primary="cmd",
        how="terminal",
    ),
    _records(
        "file intrusion_detection",
        "access info",
        "2111 ANOM_ACCESS_FS accessed-watched-file-or-directory",
    ),
    _records("file intrusion_detection", "change info", "2113 ANOM_MK_EXEC made-an-executable"),
    _records(
        "iam intrusion_detection",
        "user creation info",
        "2114 ANOM_ADD_ACCT added-user-account",
        target="user",
    ),
    _records(
        "iam intrusion_detection",
        "user deletion info",
        "2115 ANOM_DEL_ACCT deleted-user-account",
        target="user",
    ),
    _records(
        "iam intrusion_detection",
        "user change info",
        "2116 ANOM_MOD_ACCT modified-user-account",
        target="user",
    ),
    _records(
        "intrusion_detection",
        "info",
        "2109 ANOM_RBAC_INTEGRITY_FAIL tested-file-system-integrity-of",
        kind="filesystem",
        primary="hostname",
    ),
    _records(
        "intrusion_detection",
        "info",
        """
        2105 ANOM_MAX_DAC max-discretionary-access-control-failures-reached
        2106 ANOM_MAX_MAC max-mandatory-access-control-failures-reached
        2107 ANOM_AMTU_FAIL abstract-machine-test-utility-failure
        2108 ANOM_RBAC_FAIL rbac-self-test-failure
        2110 ANOM_CRYPTO_FAIL crypto-system-test-failure
        2200 RESP_ANOMALY =
        2201 RESP_ALERT =
        2202 RESP_KILL_PROC =
        2203 RESP_TERM_ACCESS =
        2204 RESP_ACCT_REMOTE =
        2205 RESP_ACCT_LOCK_TIMED =
        2206 RESP_ACCT_UNLOCK_TIMED =
        2207 RESP_ACCT_LOCK =
        2208 RESP_TERM_LOCK =
        2209 RESP_SEBOOL =
        2210 RESP_EXEC =
        2211 RESP_SINGLE =
        2212 RESP_HALT =
        2213 RESP_ORIGIN_BLOCK =
        2214 RESP_ORIGIN_BLOCK_TIMED =
        2215 RESP_ORIGIN_UNBLOCK_TIMED =
        """,
    ),
    # Cryptography
    _records(
        "process",
        "info",
        "2404 CRYPTO_KEY_USER negotiated-crypto-key",
        kind="user-session",
        primary="fp",
        secondary="addr hostname",
        how="exe terminal",
        acts_as="acct id uid",
    ),
    _records(
        "process",
        "info",
        "2407 CRYPTO_SESSION started-crypto-session",
        kind="user-session",
        primary="addr",
        secondary="rport",
        how="exe terminal",
        acts_as="acct id uid",
    ),
    _records(
        "process",
        "info",
        """
        2400 CRYPTO_TEST_USER =
        2401 CRYPTO_PARAM_CHANGE_USER =
        2402 CRYPTO_LOGIN crypto-officer-logged-in
        2403 CRYPTO_LOGOUT crypto-officer-logged-out
        2405 CRYPTO_FAILURE_USER =
        2406 CRYPTO_REPLAY_USER =
        2408 CRYPTO_IKE_SA =
        2409 CRYPTO_IPSEC_SA =
        """,
    ),
    # Virtual machines
    _records(
        "host",
        "info",
        """
        2500 VIRT_CONTROL issued-vm-control
        2501 VIRT_RESOURCE assigned-vm-resource
        2502 VIRT_MACHINE_ID assigned-vm-id
        2503 VIRT_INTEGRITY_CHECK checked-integrity-of
        2504 VIRT_CREATE created-vm-image
        2505 VIRT_DESTROY deleted-vm-image
        2506 VIRT_MIGRATE_IN migrated-vm-from
        2507 VIRT_MIGRATE_OUT migrated-vm-to
        """,
        **_MACHINE,
    ),
)

# Record types whose meaning depends on a field: type -> (field, value, meaning). "" is any value.
_SELINUX: Final = Normalization(
    "violated-selinux-policy",
    ["intrusion_detection"],
    ["denied"],
    "policy",
    ("tcontext",),
    ("tclass",),
    actor=("scontext",),
)
_APPARMOR: Final = RECORD_TYPES[1503]
VARIANTS: Final[dict[int, tuple[tuple[str, str, Normalization], ...]]] = {
    1334: (
        ("op", "LOAD", RECORD_TYPES[1334]._replace(types=["start"])),
        ("op", "UNLOAD", RECORD_TYPES[1334]._replace(types=["end"])),
    ),
    1400: (
        ("apparmor", "DENIED", _APPARMOR),
        ("apparmor", "ALLOWED", _APPARMOR._replace(types=["allowed"])),
        ("apparmor", "STATUS", RECORD_TYPES[1505]),
        ("apparmor", "", _APPARMOR._replace(types=["info"])),
        ("seresult", "denied", _SELINUX),
        ("seresult", "granted", _SELINUX._replace(action="avc", types=["allowed"])),
    ),
}


# Types by their names in a log. auditd writes UNKNOWN[n] for types that its library lacks.
NUMBERS: Final = {name: number for number, name in NAMES.items()}

# Ubuntu's kernels had records of further security modules before these types had their numbers.
_FORMER_TYPES: Final = {1420: (b"subj_", 1425), 1421: (b"obj_", 1426)}


def record_type(number: int, text: bytes) -> int:
    """Return a record's type in the numbering of the upstream kernel."""
    former = _FORMER_TYPES.get(number)
    return former[1] if former is not None and text.startswith(former[0]) else number


def unknown_record(name: str) -> Normalization:
    """Return the meaning of a record type that is in no table."""
    return Normalization(name.lower().replace("_", "-"), ["process"], ["info"])


# Actions whose auditd.summary.how is the syscall; for all others it is the program.
HOW_IS_SYSCALL: Final = frozenset(("end", "changed-identity-of", "adjusted-scheduling-policy-of"))
