"""The facts of this host for the ECS object ``host``, read once at the start."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import structlog

from sessiond.system import clock, proc
from sessiond.system.netlink import (
    NETLINK_ROUTE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    NetlinkError,
    NetlinkSocket,
    ifaddrmsg,
    ifinfmsg,
)

_log = structlog.get_logger(__name__)

Level = Literal["minimal", "session_view", "full"]

_RT_SCOPE_UNIVERSE: Final = 0  # include/uapi/linux/rtnetlink.h: neither loopback nor link-local

# An Ethernet address or a longer one; the addresses of tunnels are IP addresses and don't match.
_MAC: Final = re.compile(r"(?!00(?::00)*\Z)[0-9a-f]{2}(?::[0-9a-f]{2}){5,}")

_MACHINE_ID: Final = re.compile(r"[0-9a-f]{32}")

# os-release(5) has ID and ID_LIKE; ECS wants one word for the family.
_FAMILIES: Final = {
    "debian": "debian",
    "ubuntu": "debian",
    "rhel": "redhat",
    "fedora": "redhat",
    "centos": "redhat",
    "amzn": "redhat",
    "suse": "suse",
    "opensuse": "suse",
    "sles": "suse",
    "arch": "arch",
    "alpine": "alpine",
    "gentoo": "gentoo",
}


class Interface(NamedTuple):
    """A network interface: its hardware address, None without one, and its global addresses."""

    mac: str | None
    addresses: tuple[str, ...]


class HostFacts(NamedTuple):
    """The host. Unknown facts are None or empty; ``id`` and ``boot_id`` are always known."""

    hostname: str
    id: str
    boot_id: str
    architecture: str
    kernel: str
    os_name: str | None
    os_version: str | None
    os_full: str | None
    os_family: str | None
    os_platform: str | None
    ip: tuple[str, ...]
    mac: tuple[str, ...]
    pid_namespace: int | None

    def block(self, level: Level) -> dict[str, Any]:
        """Return the ECS ``host`` object for every line.

        "minimal" is name, id and os.type, which detection rules use; "session_view" the fields
        that Kibana's Session View shows; "full" all fields.
        """
        if level == "minimal":
            return {"name": self.hostname, "id": self.id, "os": {"type": "linux"}}
        system = {
            "name": self.os_name,
            "version": self.os_version,
            "full": self.os_full,
            "family": self.os_family,
            "platform": self.os_platform,
            "kernel": self.kernel,
            "type": "linux",
        }
        block: dict[str, Any] = {
            "name": self.hostname,
            "hostname": self.hostname,
            "id": self.id,
            "boot": {"id": self.boot_id},
            "architecture": self.architecture,
            "os": {name: value for name, value in system.items() if value},
        }
        if self.ip:
            block["ip"] = list(self.ip)
        if self.mac:
            block["mac"] = list(self.mac)
        if level == "full" and self.pid_namespace is not None:
            block["pid_ns_ino"] = str(self.pid_namespace)
        return block


def read_interfaces() -> list[Interface]:
    """Return the network interfaces (rtnetlink(7)); none if the kernel does not answer."""
    try:
        with NetlinkSocket(family=NETLINK_ROUTE) as route:
            route.marshal.msg_map = {RTM_NEWADDR: ifaddrmsg, RTM_NEWLINK: ifinfmsg}
            addresses: dict[int, list[str]] = {}
            for message in route.nlm_request(ifaddrmsg(), RTM_GETADDR):
                if message["scope"] == _RT_SCOPE_UNIVERSE:
                    # On a point-to-point link IFA_ADDRESS is the peer's.
                    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                    if address:
                        addresses.setdefault(message["index"], []).append(address)
            return [
                Interface(link.get_attr("IFLA_ADDRESS"), tuple(addresses.get(link["index"], ())))
                for link in route.nlm_request(ifinfmsg(), RTM_GETLINK)
            ]
    except (OSError, NetlinkError) as error:
        _log.warning("interfaces_unknown", reason=str(error))
        return []


def facts(
    root: Path = Path("/"), *, interfaces: Callable[[], Iterable[Interface]] = read_interfaces
) -> HostFacts:
    """Read the facts of the host from the files below ``root``; call again for new addresses.

    Raises OSError without /proc.

    The id is /etc/machine-id; else that of D-Bus; else the firmware's UUID, which only root can
    read; else the boot id, which is at least unique to the host.
    """
    kernel = root / "proc/sys/kernel"
    boot_id = clock.boot_id(root / "proc")
    release = _os_release(root)
    ip, mac = _addresses(interfaces())
    return HostFacts(
        hostname=_text(kernel / "hostname") or "localhost",
        id=_machine_id(root) or boot_id.replace("-", ""),
        boot_id=boot_id,
        architecture=os.uname().machine,
        kernel=_text(kernel / "osrelease") or os.uname().release,
        os_name=release.get("NAME"),
        os_version=release.get("VERSION") or release.get("VERSION_ID"),
        os_full=release.get("PRETTY_NAME"),
        os_family=_family(release),
        os_platform=release.get("ID"),
        ip=ip,
        mac=mac,
        pid_namespace=proc.namespace(root / "proc/self/ns/pid"),
    )


def parse_os_release(text: str) -> dict[str, str]:
    """Parse os-release(5): assignments, quoted as in a shell. Invalid lines are skipped."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, found, value = line.strip().partition("=")
        if not found or name.startswith("#"):
            continue
        # ValueError: an unterminated quotation
        with contextlib.suppress(ValueError):
            values[name] = "".join(shlex.split(value))
    return values


def _text(path: Path) -> str | None:
    """Return the content of a small file; None if it is empty or can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="backslashreplace").strip() or None
    except OSError:
        return None


def _machine_id(root: Path) -> str | None:
    for place in ("etc/machine-id", "var/lib/dbus/machine-id", "sys/class/dmi/id/product_uuid"):
        found = (_text(root / place) or "").lower().replace("-", "")
        # During a first boot the file contains "uninitialized"; some firmware has a UUID of zeros.
        if _MACHINE_ID.fullmatch(found) and found.strip("0f"):
            return found
    return None


def _os_release(root: Path) -> dict[str, str]:
    text = _text(root / "etc/os-release") or _text(root / "usr/lib/os-release")
    return parse_os_release(text or "")


def _family(release: Mapping[str, str]) -> str | None:
    words = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    known = (_FAMILIES[word] for word in words if word in _FAMILIES)
    return next(known, words[0] or None)


def _addresses(interfaces: Iterable[Interface]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return all ip, and the mac of interfaces with an address, formatted as in RFC 7042.

    The host's interfaces of containers have no address and are left out.
    """
    ip: dict[str, None] = {}
    mac: dict[str, None] = {}
    for interface in interfaces:
        for address in interface.addresses:
            ip[str(ip_address(address))] = None
        if interface.addresses and interface.mac and _MAC.fullmatch(interface.mac):
            mac[interface.mac.upper().replace(":", "-")] = None
    return tuple(ip), tuple(mac)
