"""Layouts from headers: simulated ones everywhere, and the running kernel's if installed."""

from __future__ import annotations

import itertools
import platform
import shutil
from pathlib import Path
from typing import Any

import pytest

from sessiond.errors import SourceUnavailableError
from sessiond.sources.ebpf import btf, kernel_headers, loader
from sessiond.sources.ebpf.btf import KernelBtf, generate
from sessiond.sources.ebpf.kernel_headers import KernelHeaders

OURS = Path(loader.__file__).parent / "headers"
PRIVATE = ("mount", "mnt_namespace", "hlist_node")


def body(paths: list[str]) -> str:
    """Return C members for paths such as ``a`` and ``b.c``."""
    outer: dict[str, list[str]] = {}
    for path in paths:
        name, _, inner = path.partition(".")
        outer.setdefault(name, []).extend([inner] if inner else [])
    return "".join(
        f"struct {{ {body(inner)}}} {name}; " if inner else f"long {name}; "
        for name, inner in outer.items()
    )


@pytest.fixture(scope="module")
def bcc() -> Any:  # it has no types
    """The compiler."""
    return loader._import_bcc()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Headers of a kernel 5.10 whose structs have only the members that are read."""
    tree = tmp_path / "kernel"
    shutil.copytree(OURS, tree)
    include = tree / "include"
    for name in kernel_headers._INCLUDES:
        (include / name).parent.mkdir(exist_ok=True)
        (include / name).touch()
    text = """
#pragma once
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 10, 0)
#define CONFIG_MEMCG 1
enum cgroup_subsys_id { cpuset_cgrp_id, memory_cgrp_id };
typedef struct { int counter; } atomic_t;
struct hlist_node { long next, pprev; };
struct ns_common { long stashed, ops; int inum; };
"""
    of_system_calls = {"pt_regs": btf.OPTIONAL_MEMBERS["pt_regs"]}
    for struct, members in {**btf.MEMBERS, **of_system_calls}.items():
        if struct in PRIVATE:
            continue
        paths = list(itertools.chain.from_iterable(paths for _, paths in members.values()))
        text += f"struct {struct} {{ {body(paths)}}};\n"
    (include / "linux/version.h").write_text(text)
    return tree


def test_offsets_are_those_of_the_headers(bcc: Any, source: Path) -> None:
    """Members, nested members, sizes and numbers; members that this kernel lacks are absent."""
    layouts = KernelHeaders(bcc, source)
    assert layouts.offset("task_struct", "pid") == 0
    assert layouts.offset("task_struct", "tgid") == 8
    assert layouts.offset("file", "f_path.mnt") == 8
    assert layouts.size("upid") == 16
    assert layouts.offset("mount", "mnt_mountpoint") == 24
    assert layouts.offset("mnt_namespace", "ns.inum") == 24  # after the count of 5.10
    assert layouts.enumerator("cgroup_subsys_id", "memory_cgrp_id") == 1
    assert layouts.enumerator("cgroup_subsys_id", "pids_cgrp_id") is None
    assert layouts.offset("signal_struct", "quick_threads") is None
    assert layouts.parameters("btf_trace_sched_process_exit") == 2


def test_all_that_the_programs_need_is_found(bcc: Any, source: Path) -> None:
    """The header is generated; features that need kernel options or private headers are missing."""
    missing = {"LOGIN", "AUDIT_STAMP", "MOUNT_NAMESPACE"}
    assert set(generate(KernelHeaders(bcc, source)).missing) == missing


def test_headers_that_do_not_compile_are_an_error(bcc: Any, tmp_path: Path) -> None:
    """The error is reported, and later compilations use the right headers again."""
    shutil.copytree(OURS, tmp_path / "kernel")
    with pytest.raises(SourceUnavailableError, match="could not compile the kernel's headers"):
        KernelHeaders(bcc, tmp_path / "kernel")
    loader._compile(bcc, "int nothing(void *ctx) { return 0; }")


def test_headers_are_looked_for_where_the_compiler_does(tmp_path: Path) -> None:
    """They are in a folder of the running release, or in the kernel's own archive."""
    assert not kernel_headers.available(tmp_path)
    (tmp_path / "lib/modules" / platform.release() / "build").mkdir(parents=True)
    assert kernel_headers.available(tmp_path)
    other = tmp_path / "other"
    (other / "sys/kernel").mkdir(parents=True)
    (other / "sys/kernel/kheaders.tar.xz").touch()
    assert kernel_headers.available(other)


@pytest.mark.skipif(not kernel_headers.available(), reason="needs the running kernel's headers")
def test_headers_and_btf_of_one_kernel_agree(bcc: Any) -> None:
    """Each member is at the offset that BTF describes."""
    by_headers, by_btf = KernelHeaders(bcc), KernelBtf()
    for struct, members in btf.MEMBERS.items():
        for path in itertools.chain.from_iterable(paths for _, paths in members.values()):
            assert by_headers.offset(struct, path) == by_btf.offset(struct, path), (struct, path)
    by_btf.close()
