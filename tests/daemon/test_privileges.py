"""Which capabilities a configuration makes needless after the start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.manager import UNIT

from sessiond.config.schema import Config
from sessiond.daemon import privileges

NEW, OLD = "6.1.0-18-amd64", "5.15.0-91-generic"
SMALL, LARGE = 212_992, 64 << 20


def needless(given: dict[str, Any], release: str = NEW, rmem_max: int = SMALL) -> set[str]:
    """Return the needless capabilities for these settings."""
    config = msgspec.convert(given, Config)
    return set(privileges.needless(config, release=release, rmem_max=rmem_max))


def test_service_has_the_units_capabilities() -> None:
    """The module's list is the shipped unit's."""
    granted = re.findall(r"CAP_\w+", " ".join(re.findall(r"^Ambient.*", UNIT.read_text(), re.M)))
    assert set(granted) == privileges.SERVICE


@pytest.mark.parametrize(
    ("given", "release", "rmem_max", "expected"),
    [
        ({}, NEW, SMALL, {"CAP_BPF", "CAP_PERFMON"}),
        # An old kernel checks CAP_BPF in each snapshot of the processes.
        ({}, OLD, SMALL, {"CAP_PERFMON"}),
        ({"session_metadata": {"backend": "procfs"}}, OLD, LARGE,
         {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"}),
        # With a large limit for buffers only the proc connector needs CAP_NET_ADMIN.
        ({}, NEW, LARGE, {"CAP_BPF", "CAP_PERFMON"}),
        ({"session_metadata": {"backend": "ebpf"}}, NEW, LARGE, {"CAP_BPF", "CAP_PERFMON"}),
        ({"session_metadata": {"backend": "ebpf", "fallback": False}}, NEW, LARGE,
         {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"}),
        ({"session_metadata": {"backend": "ebpf", "fallback": False}}, NEW, SMALL,
         {"CAP_BPF", "CAP_PERFMON"}),
        # A daemon that never listens beside another one.
        ({"auditd": {"socket_type": "unicast"}}, NEW, SMALL,
         {"CAP_AUDIT_READ", "CAP_BPF", "CAP_PERFMON"}),
        ({"auditd": {"enabled": False}}, NEW, SMALL,
         {"CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_BPF", "CAP_PERFMON"}),
    ],
)  # fmt: skip
def test_what_nothing_needs_is_needless(
    given: dict[str, Any], release: str, rmem_max: int, expected: set[str]
) -> None:
    """The configuration, the kernel and its limit of receive buffers decide."""
    assert needless(given, release, rmem_max) == expected


@pytest.mark.parametrize("release", ["", "next", "five.nineteen"])
def test_an_unknown_kernel_counts_as_old(release: str) -> None:
    """Its daemon keeps what an old kernel asks for."""
    assert "CAP_BPF" not in needless({}, release)


@pytest.mark.parametrize(("text", "limit"), [("4194304\n", 4194304), ("many", 0)])
def test_the_limit_of_buffers_is_the_kernels(tmp_path: Path, text: str, limit: int) -> None:
    """A limit that can't be read counts as 0: the daemon keeps what it may need."""
    assert privileges.rmem_max(tmp_path) == 0
    (tmp_path / "sys/net/core").mkdir(parents=True)
    (tmp_path / "sys/net/core/rmem_max").write_text(text)
    assert privileges.rmem_max(tmp_path) == limit
