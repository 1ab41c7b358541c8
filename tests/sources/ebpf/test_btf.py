"""The generated header: for this kernel, and for kernels that differ from it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessiond.errors import SourceUnavailableError
from sessiond.sources.ebpf import btf
from sessiond.sources.ebpf.btf import KernelBtf, generate


@pytest.fixture
def kernel() -> Iterator[KernelBtf]:
    """The running kernel's types."""
    layouts = KernelBtf()
    yield layouts
    layouts.close()


class OtherKernel:
    """A kernel with this one's layouts, except that it lacks some members."""

    def __init__(self, kernel: KernelBtf, *absent: str) -> None:
        self._kernel = kernel
        self._absent = absent
        self.parameters = kernel.parameters
        self.enumerator = kernel.enumerator
        self.size = kernel.size

    def offset(self, struct: str, path: str) -> int | None:
        """Return the real kernel's offset, None for a missing member."""
        return None if f"{struct}.{path}" in self._absent else self._kernel.offset(struct, path)


class OlderKernel(OtherKernel):
    """A kernel whose audit context has the time stamp in its place before Linux 6.17."""

    def offset(self, struct: str, path: str) -> int | None:
        """Return another offset for the stamp."""
        if struct == "audit_context" and path.startswith("ctime."):
            return super().offset(struct, "stamp." + path)
        if path.startswith("stamp."):
            return None
        return super().offset(struct, path)


def compiles(header: str, tmp_path: Path, *claims: str) -> bool:
    """Return whether the header compiles with static assertions about it."""
    types = ("char u8", "short u16", "int u32", "long long u64")
    lines = [*(f"typedef unsigned {each};" for each in types), "#include <stddef.h>", header]
    lines += [f'_Static_assert({claim}, "{claim}");' for claim in claims]
    source = tmp_path / "header.c"
    source.write_text("\n".join(lines))
    command = ["gcc", "-fsyntax-only", str(source)]
    return subprocess.run(command, check=False).returncode == 0


@pytest.mark.kernel
def test_members_are_at_their_offsets(kernel: KernelBtf, tmp_path: Path) -> None:
    """The header is C with each member at the kernel's offset, in structs of the right size."""
    claims = [
        f"offsetof(struct {struct}, {name}) == {kernel.offset(struct, paths[0])}"
        for struct, members in btf.MEMBERS.items()
        for name, (_, paths) in members.items()
    ]
    by_value = ("hlist_node", "upid", "vfsmount")
    claims += [f"sizeof(struct {struct}) == {kernel.size(struct)}" for struct in by_value]
    assert compiles(generate(kernel).text, tmp_path, *claims)


@pytest.mark.kernel
def test_members_in_anonymous_unions_are_found(kernel: KernelBtf) -> None:
    """A member of an anonymous struct or union is at the sum of the offsets."""
    assert kernel.offset("task_struct", "signal") != kernel.offset("task_struct", "pid")
    qstr = kernel.offset("qstr", "name")
    name, start = kernel.offset("dentry", "d_name.name"), kernel.offset("dentry", "d_name")
    assert None not in (qstr, name, start)
    assert name == start + qstr  # type: ignore[operator]
    assert qstr == 8  # after an anonymous union of a hash and a length


@pytest.mark.kernel
def test_what_is_not_there_is_none(kernel: KernelBtf) -> None:
    """Unknown structs, members, enumerators and function types are None."""
    assert kernel.offset("task_struct", "no_such_member") is None
    assert kernel.offset("task_struct", "pid.of") is None
    assert kernel.offset("no_such_struct", "pid") is None
    assert kernel.size("no_such_struct") is None
    assert kernel.enumerator("pid_type", "PIDTYPE_SID") == 3
    assert kernel.enumerator("pid_type", "PIDTYPE_NONE") is None
    assert kernel.enumerator("no_such_enum", "X") is None
    assert kernel.parameters("no_such_typedef") is None
    assert kernel.parameters("btf_trace_sched_process_fork") == 3


@pytest.mark.kernel
def test_older_place_of_the_audit_stamp(kernel: KernelBtf, tmp_path: Path) -> None:
    """The offset is that of older kernels."""
    header = generate(OlderKernel(kernel))
    assert header.missing == ()
    at = kernel.offset("audit_context", "stamp.ctime.tv_sec")
    assert compiles(header.text, tmp_path, f"offsetof(struct audit_context, seconds) == {at}")


@pytest.mark.kernel
def test_kernel_without_audit_is_told(kernel: KernelBtf, tmp_path: Path) -> None:
    """Members that only a kernel with audit has are optional; the header still compiles."""
    header = generate(OtherKernel(kernel, "task_struct.loginuid", "audit_context.dummy"))
    assert header.missing == ("LOGIN", "AUDIT_STAMP")
    assert "HAVE_LOGIN" not in header.text
    assert compiles(header.text, tmp_path)


@pytest.mark.kernel
def test_kernel_without_what_is_needed_is_an_error(kernel: KernelBtf) -> None:
    """The error names the missing member."""
    with pytest.raises(SourceUnavailableError, match="struct signal_struct has no tty"):
        generate(OtherKernel(kernel, "signal_struct.tty"))
