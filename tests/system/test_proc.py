"""Capabilities, namespaces and memory of this process, from procfs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sessiond.system import proc
from sessiond.system.proc import effective_capabilities, has_capability, namespaces


def make_proc(directory: Path, capabilities: str, **namespace: str) -> Path:
    """Make a /proc with this process and a kernel thread."""
    for pid, comm in (("self", "sessiond"), ("2", "kthreadd")):
        (directory / pid / "ns").mkdir(parents=True)
        (directory / pid / "comm").write_text(f"{comm}\n")
    (directory / "self" / "status").write_text(f"Name:\tsessiond\nCapEff:\t{capabilities}\n")
    (directory / "2" / "ns" / "net").symlink_to("net:[4026531840]")
    for name, value in namespace.items():
        (directory / "self" / "ns" / name).symlink_to(value)
    return directory


def test_capabilities_are_the_bits_of_the_effective_set(tmp_path: Path) -> None:
    """CAP_AUDIT_READ is number 37, CAP_BPF 39."""
    here = make_proc(tmp_path, "0000002000000000")
    assert has_capability("CAP_AUDIT_READ", here)
    assert not has_capability("CAP_BPF", here)


@pytest.mark.parametrize("text", ["", "CapEff:\n", "CapEff:\tmany\n"])
def test_what_cannot_be_read_is_no_capability(tmp_path: Path, text: str) -> None:
    """Unknown is None, not an empty set."""
    here = make_proc(tmp_path, "0")
    (here / "self" / "status").write_text(text)
    assert effective_capabilities(here) is None
    assert not has_capability("CAP_BPF", here)


def test_the_initial_namespaces_are_known_by_their_numbers(tmp_path: Path) -> None:
    """The network namespace is identified by a kernel thread that never leaves it."""
    here = make_proc(
        tmp_path, "0", pid="pid:[4026531836]", user="user:[4026531837]", net="net:[4026531840]"
    )
    assert namespaces(here) == (True, True, True)


def test_a_container_is_in_others(tmp_path: Path) -> None:
    """It has its own pid and network namespaces; an unreadable one is unknown."""
    here = make_proc(tmp_path, "0", pid="pid:[4026532000]", net="net:[4026532001]")
    assert namespaces(here) == (False, None, False)
    (here / "2" / "comm").write_text("sleep\n")
    assert namespaces(here).network is None


def test_memory_is_counted_in_bytes(tmp_path: Path) -> None:
    """The second number of statm is resident pages; a Python process has some megabytes."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "statm").write_text("9000 1000 800 1 0 2000 0\n")
    assert proc.resident_bytes(tmp_path) == 1000 * os.sysconf("SC_PAGE_SIZE")
    assert proc.resident_bytes(tmp_path / "nowhere") is None
    assert 2**20 < (proc.resident_bytes() or 0) < 2**33
