"""The facts of the host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.system.host import Interface, facts, parse_os_release

BOOT_ID = "2027b659-f0c3-42f0-9138-b2eae5a16b06"
MACHINE_ID = "3d1219c7c4c5404aaa1f6d2a48adfda4"

DEBIAN = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
ID=debian
"""

INTERFACES = [
    Interface("00:00:00:00:00:00", ("203.0.113.1",)),
    Interface("02:fc:00:00:00:01", ("192.0.2.2", "fd00:0::2")),
    Interface("1a:d1:ff:df:cc:18", ()),
    Interface(None, ("198.51.100.1",)),
    Interface("c0:00:02:02", ("198.51.100.2",)),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of a host."""
    for name, content in {
        "proc/sys/kernel/hostname": "web1\n",
        "proc/sys/kernel/osrelease": "6.1.0-21-amd64\n",
        "proc/sys/kernel/random/boot_id": BOOT_ID + "\n",
        "etc/machine-id": MACHINE_ID + "\n",
        "etc/os-release": DEBIAN,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    (tmp_path / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
    return tmp_path


def test_the_whole_block(root: Path) -> None:
    """It has every member of ECS's host that the level "full" writes."""
    assert facts(root, interfaces=lambda: INTERFACES).block("full") == {
        "name": "web1",
        "hostname": "web1",
        "id": MACHINE_ID,
        "boot": {"id": BOOT_ID},
        "architecture": os.uname().machine,
        "os": {
            "type": "linux",
            "name": "Debian GNU/Linux",
            "version": "12 (bookworm)",
            "full": "Debian GNU/Linux 12 (bookworm)",
            "family": "debian",
            "platform": "debian",
            "kernel": "6.1.0-21-amd64",
        },
        "ip": ["203.0.113.1", "192.0.2.2", "fd00::2", "198.51.100.1", "198.51.100.2"],
        "mac": ["02-FC-00-00-00-01"],
        "pid_ns_ino": "4026531836",
    }


def test_session_view_shows_all_but_the_namespace(root: Path) -> None:
    """The default has the fields that Kibana uses."""
    host_facts = facts(root, interfaces=lambda: INTERFACES)
    full = host_facts.block("full")
    del full["pid_ns_ino"]
    assert host_facts.block("session_view") == full


def test_the_least_is_name_id_and_the_type_of_system(root: Path) -> None:
    """For consumers that join the rest; detection rules use the type."""
    block = facts(root, interfaces=list).block("minimal")
    assert block == {"name": "web1", "id": MACHINE_ID, "os": {"type": "linux"}}


def test_what_is_not_known_is_absent(root: Path) -> None:
    """Without os-release and addresses, no member is empty."""
    (root / "etc/os-release").unlink()
    block = facts(root, interfaces=list).block("session_view")
    assert block["os"] == {"type": "linux", "kernel": "6.1.0-21-amd64"}
    assert "ip" not in block
    assert "mac" not in block


@pytest.mark.parametrize(
    ("files", "machine_id"),
    [
        ({"var/lib/dbus/machine-id": "d" * 32}, "d" * 32),
        (
            {"sys/class/dmi/id/product_uuid": "4C4C4544-0042-3510-8051-B4C04F4D4E32\n"},
            "4c4c4544004235108051b4c04f4d4e32",
        ),
        ({"etc/machine-id": "uninitialized\n"}, BOOT_ID.replace("-", "")),
        ({"sys/class/dmi/id/product_uuid": "0" * 32}, BOOT_ID.replace("-", "")),
        ({}, BOOT_ID.replace("-", "")),
    ],
    ids=["D-Bus", "firmware", "first boot", "firmware without", "none"],
)
def test_a_host_without_machine_id_has_an_id(
    root: Path, files: dict[str, str], machine_id: str
) -> None:
    """D-Bus's id, the firmware's, or else the boot's: never none, never another host's."""
    (root / "etc/machine-id").unlink()
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    assert facts(root, interfaces=list).id == machine_id


@pytest.mark.parametrize(
    ("release", "family"),
    [
        ("ID=debian", "debian"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'", "debian"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "redhat"),
        ("ID=opensuse-leap\nID_LIKE='suse opensuse'", "suse"),
        ("ID=alpine", "alpine"),
        ("ID=nixos", "nixos"),
        ("", None),
    ],
)
def test_the_family_is_that_of_what_the_system_is_like(
    root: Path, release: str, family: str | None
) -> None:
    """ID first, then ID_LIKE; a system of no known family is its own family."""
    (root / "etc/os-release").write_text(release)
    assert facts(root, interfaces=list).os_family == family


def test_os_release_is_quoted_as_in_a_shell() -> None:
    """os-release(5): single quotes, double quotes, escapes, comments."""
    text = "# A=1\nA=one\nB='two words'\nC=\"a b\"\nD=\n\nnonsense\nE='open\n"
    assert parse_os_release(text) == {"A": "one", "B": "two words", "C": "a b", "D": ""}


@given(st.text())
def test_any_os_release_can_be_read(text: str) -> None:
    """No exception is raised."""
    parse_os_release(text)


def test_this_host_has_the_addresses_that_it_has() -> None:
    """The kernel's answer: no loopback, each address once, every mac in ECS's format."""
    here = facts()
    assert here.hostname == os.uname().nodename
    assert here.kernel == os.uname().release
    assert not any(address.startswith(("127.", "::1", "fe80")) for address in here.ip)
    known = {
        path.read_text().strip().upper().replace(":", "-")
        for path in Path("/sys/class/net").glob("*/address")
    }
    assert set(here.mac) <= known
