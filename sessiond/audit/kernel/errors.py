"""Explains why the kernel refuses an audit request, with remedies."""

from __future__ import annotations

import errno
import os
from typing import Final

from sessiond.errors import AuditUnavailableError
from sessiond.system.proc import has_capability, namespaces, process_name

TIMEOUT: Final = 2.0  # seconds; answers come within a millisecond unless the kernel is in trouble


class AuditRequestError(AuditUnavailableError):
    """The kernel refused a request; ``code`` is its answer (errno.EEXIST, errno.ENOENT, ...)."""

    def __init__(self, code: int, message: str) -> None:
        """Take the kernel's error number (positive) and the line for the user."""
        super().__init__(message)
        self.code = code


def owner_message(pid: int) -> str:
    """Return which process is the audit daemon, and the remedy."""
    name = process_name(pid)
    if name is None:
        return (
            f"process {pid} was registered as the audit daemon and has ended, but another process"
            " (a service manager?) still holds its socket: hand that socket over or close it"
        )
    return (
        f"{name} (pid {pid}) is registered as the audit daemon: stop it, or use socket_type"
        " multicast to read beside it"
    )


def refused(what: str, code: int) -> AuditRequestError:
    """Return the error for a request and the kernel's error number, with the remedy."""
    return AuditRequestError(code, f"can't {what}: {_reason(what, code)}")


def _reason(what: str, code: int) -> str:
    match code:
        case errno.EPERM:
            return _not_permitted(what)
        case errno.EACCES:
            return "another process is registered as the audit daemon, and only it can do that"
        case errno.ECONNREFUSED:
            # audit_netlink_ok returns this outside the initial user namespace, and sendmsg if the
            # kernel has no listener: a kernel without audit, but not one booted with audit=0.
            if namespaces().user is False:
                return "this is not the host's user namespace; run sessiond outside the container"
            return "the kernel's audit subsystem doesn't answer"
        case errno.EPROTONOSUPPORT:
            return "this kernel is built without audit (CONFIG_AUDIT); use another kernel"
        case errno.EAFNOSUPPORT:
            return (
                "netlink sockets are forbidden here; allow AF_NETLINK"
                " (RestrictAddressFamilies= of the unit)"
            )
        case errno.EEXIST:
            return "the same rule is loaded already"
        case errno.ENOENT:
            return "there is no such rule, or a path that it names doesn't exist"
        case errno.EINVAL:
            return "this kernel doesn't know such a value, field, operator or combination"
        case errno.ETIMEDOUT:
            return f"the kernel didn't answer within {TIMEOUT:.0f} s"
        case errno.ENODATA:
            return "the kernel's answer was empty"
    return os.strerror(code)


def _not_permitted(what: str) -> str:
    standing = namespaces()
    if standing.user is False:
        return "this is not the host's user namespace; run sessiond outside the container"
    if standing.pid is False:
        return "this is not the host's pid namespace; run sessiond outside the container"
    needed = "CAP_AUDIT_CONTROL"
    if "multicast" in what:
        needed = "CAP_AUDIT_READ"
    if not has_capability(needed):
        return f"{needed} is missing; run as root or with AmbientCapabilities={needed}"
    return "the audit configuration is locked (enabled 2); it can be changed after a reboot only"
