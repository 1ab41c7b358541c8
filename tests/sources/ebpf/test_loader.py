"""The constants with which the programs are compiled."""

from __future__ import annotations

import pytest

from sessiond.audit.kernel_names import syscall_name
from sessiond.sources.ebpf import bpf, loader

# AUDIT_ARCH_* of linux/audit.h
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ARCHITECTURES_32 = {"x86_64": 0x40000003, "aarch64": 0x40000028}


@pytest.mark.parametrize("machine", bpf.BPF_SYSCALL)
def test_the_numbers_of_system_calls_are_those_of_the_machine(machine: str) -> None:
    """They are the same as in the tables by which audit events are read."""
    calls = dict(each.split("=") for each in loader._SYSTEM_CALLS[machine].split())
    assert len(calls) == 15
    for name, number in calls.items():
        assert syscall_name(int(number), ARCHITECTURES[machine]) == name
    calls = dict(each.split("=") for each in loader._SYSTEM_CALLS_32[machine].split())
    assert len(calls) == 23
    for name, number in calls.items():
        assert syscall_name(int(number), ARCHITECTURES_32[machine]) == name
    assert syscall_name(bpf.BPF_SYSCALL[machine], ARCHITECTURES[machine]) == "bpf"
