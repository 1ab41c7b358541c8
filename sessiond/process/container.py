r"""Identifies a process's container from the path of its cgroup.

Every engine gives each container a cgroup whose name contains the container's id; cgroupfs and
systemd drivers use different formats. The table below has a line per format. The creator of a
cgroup chooses its name freely: names are only matched, never evaluated, and bytes that are not
UTF-8 are shown as \xNN.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sessiond.text import display


class Container(NamedTuple):
    """A container, as its cgroup names it.

    ``runtime`` is None if the format is not specific to an engine. ``pod`` is the uid of its
    Kubernetes pod. ``rootless`` says that systemd has delegated the cgroup's subtree to a user:
    rootless engines put their containers there, but the user can choose any name as well.
    """

    id: str
    runtime: str | None
    pod: str | None
    rootless: bool

    def fields(self) -> dict[str, Any]:
        """Return the ECS fields ``container`` and, in a pod, ``orchestrator``."""
        own = {"id": self.id}
        if self.runtime is not None:
            own["runtime"] = self.runtime
        fields: dict[str, Any] = {"container": own}
        if self.pod is not None:
            fields["orchestrator"] = {
                "type": "kubernetes",
                "resource": {"type": "pod", "id": self.pod},
            }
        return fields


_ID: Final = rb"(?P<id>[0-9a-f]{64})"
_NAME: Final = rb"(?P<id>[^/]+?)"

# The pattern of a path component, and the engine. If several lines match, the innermost component
# counts; if several match the same component, the first one.
_SPELLINGS: Final = tuple(
    (re.compile(b"/" + pattern + rb"(?=/|\Z)"), runtime)
    for pattern, runtime in (
        # systemd driver: a scope for each container. The scopes of conmon, the monitor of each
        # container of podman and cri-o (libpod-conmon-ID, crio-conmon-ID), do not match.
        (rb"docker-" + _ID + rb"\.scope", "docker"),
        (rb"cri-containerd-" + _ID + rb"\.scope", "containerd"),
        (rb"nerdctl-" + _ID + rb"\.scope", "containerd"),
        (rb"crio-" + _ID + rb"(?:\.scope)?", "cri-o"),
        (rb"libpod-(?:payload-)?" + _ID + rb"(?:\.scope)?", "podman"),
        (rb"runc-" + _NAME + rb"\.scope", "runc"),
        (rb"crun-" + _NAME + rb"\.scope", "crun"),
        # containerd with cgroupfs, but with a path in systemd's format
        (rb"[^/:]+:cri-containerd:" + _ID, "containerd"),
        # cgroupfs driver
        (rb"docker/" + _ID, "docker"),
        (rb"docker/buildkit/(?P<id>[0-9a-z]{25})", "docker"),
        # systemd-nspawn: as a service, or started by hand. Virtual machines and libvirt's
        # containers register scopes of the same form, with the driver in the name.
        (rb"systemd-nspawn@" + _NAME + rb"\.service", "systemd-nspawn"),
        (rb"machine\.slice/machine-(?!qemu\\x2d|lxc\\x2d)" + _NAME + rb"\.scope", "systemd-nspawn"),
        # LXC 4 and later, LXC 3, LXC 2 and Proxmox; lxc.monitor is the monitor's
        (rb"lxc\.payload\." + _NAME, "lxc"),
        (rb"lxc\.payload/" + _NAME, "lxc"),
        (rb"lxc/" + _NAME, "lxc"),
        # AWS Fargate
        (rb"(?P<id>[0-9a-f]{32}-[0-9]{8,10})", None),
        # Kubernetes with cgroupfs, AWS ECS, runc below any parent
        (_ID, None),
    )
)

# /kubepods/burstable/podUID and kubepods-burstable-podUID.slice (dashes become underscores);
# besteffort likewise; guaranteed has no component. Static pods have a uid without dashes.
_POD: Final = re.compile(
    rb"/kubepods/(?:besteffort/|burstable/)?pod(?P<cgroupfs>[0-9a-f-]{32,36})(?=/)"
    rb"|kubepods(?:-besteffort|-burstable)?-pod(?P<systemd>[0-9a-f_]{32,36})\.slice(?=[/:])"
)

# user@.service has Delegate=yes: below it the user creates and names the cgroups.
_HANDED_OVER: Final = re.compile(rb"/user@[0-9]+\.service/")

_ESCAPED: Final = re.compile(rb"\\x([0-9a-f]{2})")


def _unescape(name: bytes) -> bytes:
    r"""Undo systemd's escape of unit names (systemd.unit(5)): ``\x2d`` is a dash."""
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), name)


# A host has far fewer cgroups in use than processes.
@lru_cache(maxsize=1024)
def identify(path: bytes) -> Container | None:
    """Return the container of a cgroup path (from the hierarchy's root), None if it has none.

    Of nested containers it is the innermost.
    """
    best: re.Match[bytes] | None = None
    runtime: str | None = None
    for pattern, its_runtime in _SPELLINGS:
        for found in pattern.finditer(path):
            if best is None or found.start("id") > best.start("id"):
                best, runtime = found, its_runtime
    if best is None:
        return None
    rootless = _HANDED_OVER.search(path, 0, best.start("id")) is not None
    pod: bytes | None = None
    if not rootless:
        for found in _POD.finditer(path, 0, best.start("id")):
            pod = found["cgroupfs"] or found["systemd"].replace(b"_", b"-")
    return Container(
        display(_unescape(best["id"])), runtime, pod.decode() if pod is not None else None, rootless
    )
