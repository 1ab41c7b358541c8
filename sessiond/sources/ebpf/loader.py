"""The short-lived helper process that loads and attaches the tracer's programs.

helper.py starts ``python -m sessiond.sources.ebpf.loader SOCKET RING_BYTES ARGS_LIMIT`` with one
end of a socket pair. It loads, waits for a message, attaches, and answers with one: a JSON object
and, on success, the descriptors that keep the programs attached. It compiles the programs unless
the cache directory has them from an earlier start. The compiler's memory, and all other
descriptors, are freed when this process ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import json
import mmap
import os
import platform
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sessiond.errors import OutputError, SourceUnavailableError
from sessiond.sources.ebpf import bpf, btf, compiled_programs, kernel_headers
from sessiond.sources.ebpf.compiled_programs import CompiledPrograms, UnusableCacheError
from sessiond.sources.ebpf.records import CPUS

_HERE = Path(__file__).parent

_ON_SYS_EXIT = "on_sys_exit"
_ITERATOR = "bpf_iter__task"
_TRACEPOINTS = {
    # Attached in this order, so that each reported fork has a reported end.
    "on_exit": "sched_process_exit",
    "on_fork": "sched_process_fork",
    "on_exec": "sched_process_exec",
    "on_cgroup_mkdir": "cgroup_mkdir",
    _ON_SYS_EXIT: "sys_exit",
}
# Seconds in which most processes that were forked without a report execute their programs, so that
# these execs are not reported either.
_FORK_TO_EXEC = 0.01
# The flag of a thread in a 32-bit system call: TS_COMPAT, TIF_32BIT (asm/thread_info.h).
_COMPAT = {"x86_64": 2, "aarch64": 1 << 22}
# The numbers of the system calls (asm/unistd.h).
_SYSTEM_CALLS = {
    "x86_64": (
        "exit=60 setsid=112 setpgid=109 setuid=105 setgid=106 setreuid=113 setregid=114"
        " setresuid=117 setresgid=119 setgroups=116 setfsuid=122 setfsgid=123 capset=126"
        " unshare=272 setns=308"
    ),
    "aarch64": (
        "exit=93 setsid=157 setpgid=154 setuid=146 setgid=144 setreuid=145 setregid=143"
        " setresuid=147 setresgid=149 setgroups=159 setfsuid=151 setfsgid=152 capset=91"
        " unshare=97 setns=268"
    ),
}
# Those of 32-bit calls, i386 and arm, which any process can make.
_COMMON_32 = (
    "setsid=66 setpgid=57 setuid=23 setgid=46 setreuid=70 setregid=71 setresuid=164 setresgid=170"
    " setgroups=81 setfsuid=138 setfsgid=139 setuid32=213 setgid32=214 setreuid32=203"
    " setregid32=204 setresuid32=208 setresgid32=210 setgroups32=206 setfsuid32=215 setfsgid32=216"
    " capset=185"
)
_SYSTEM_CALLS_32 = {
    "x86_64": f"{_COMMON_32} unshare=310 setns=346",
    "aarch64": f"{_COMMON_32} unshare=337 setns=375",
}
_CAPABILITIES = {39: "CAP_BPF", 38: "CAP_PERFMON"}
_CAP_SYS_ADMIN = 21


def main(arguments: list[str]) -> None:
    """Load the programs and answer on the socket, whose descriptor is ``arguments[0]``."""
    channel = socket.socket(fileno=int(arguments[0]))

    @functools.cache
    def wait() -> None:
        """Wait for the message; exit if the other end of the socket is closed."""
        if not channel.recv(1):
            os._exit(0)

    try:
        answer, descriptors = load(int(arguments[1]), int(arguments[2]), wait)
    except SourceUnavailableError as error:
        wait()  # what is not read when a socket is closed would take the answer away
        answer, descriptors = {"reason": error.reason, "fix": error.fix}, []
    socket.send_fds(channel, [json.dumps(answer).encode()], descriptors)


class _Loaded(NamedTuple):
    """The descriptors of the maps and programs by their names."""

    maps: dict[str, int]
    programs: dict[str, int]


def load(
    ring_bytes: int, args_limit: int, wait: Callable[[], None] = lambda: None
) -> tuple[dict[str, Any], list[int]]:
    """Load, ``wait``, and attach; return the answer and the descriptors that it names.

    The answer has ``controller`` (the version 1 cgroup controller in use, or None), ``degraded``
    (the tracer's limitations on this host, as text) and ``compiled`` (why the programs in the cache
    directory could not be used, or ""). The first descriptors are the ring, the counters of losses
    and of records and, if ``iterator`` is true, the snapshot iterator; the others only have to be
    kept open. Raises SourceUnavailableError.
    """
    _check_privileges()
    controller, hierarchy = _version_1_hierarchy(Path("/proc/cgroups"))
    kernel = _kernel()
    defines: dict[str, int | str] = {
        "PAGE_SIZE": mmap.PAGESIZE,
        "RING_PAGES": ring_bytes // mmap.PAGESIZE,
        "ARGS_LIMIT": args_limit,
        "HIERARCHY": hierarchy,
        "CPUS": CPUS,
        "COMPAT": _COMPAT[platform.machine()],
    }
    if kernel.targets:
        defines["HAVE_BTF"] = 1
    for prefix, calls in (("SYSCALL", _SYSTEM_CALLS), ("SYSCALL_32", _SYSTEM_CALLS_32)):
        for call in calls[platform.machine()].split():
            name, _, number = call.partition("=")
            defines[f"{prefix}_{name.upper()}"] = number
    if controller:
        defines["CONTROLLER"] = f"CONTROLLER_{controller.upper()}"
    text = "\n".join(
        (
            *(f"#define {name} {value}" for name, value in defines.items()),
            "#include <linux/types.h>",
            kernel.header.text,
            (_HERE / "programs.c").read_text(),
        )
    )
    (maps, programs), compiled = _load(text, kernel)
    wait()
    links = []
    for function, tracepoint in _TRACEPOINTS.items():
        if function == "on_exec":
            time.sleep(_FORK_TO_EXEC)
        if function in programs:
            is_target = function in kernel.targets
            links.append(_attach(programs[function], tracepoint, is_target=is_target))
    degraded = [_MISSING[feature] for feature in kernel.header.missing]
    if _ON_SYS_EXIT not in programs:
        degraded.append(_NO_SYS_EXIT)
    descriptors = [maps[name] for name in ("ring", "lost", "submitted")]
    if _ITERATOR in programs:
        descriptors.append(_attach_iterator(programs[_ITERATOR]))
    else:
        degraded += _WITHOUT_BTF
    descriptors += links
    answer = {
        "controller": controller,
        "degraded": degraded,
        "compiled": compiled,
        "iterator": _ITERATOR in programs,
        "descriptors": len(descriptors),
    }
    return answer, descriptors


_NO_LAST_CALL = "exit(2) of the last thread can't be distinguished from exit_group(2)"
_MISSING = {
    "LOGIN": "loginuid and audit session of processes are unknown (no CONFIG_AUDIT)",
    "SYSCALL": _NO_LAST_CALL,
    "MOUNT_NAMESPACE": "the mount namespace of an executable's path is unknown",
    "AUDIT_STAMP": "execs can't be matched with audit events by their exact time stamp",
}

_NO_SYS_EXIT = "setsid, setpgid and set*id are seen only at the next fork, exec or exit"
_WITHOUT_BTF = (
    "processes that ran before the start come from procfs (the kernel has no BTF)",
    _NO_LAST_CALL,
)


class _Kernel(NamedTuple):
    """The running kernel: its layouts as a header, and the targets of the TRACING programs.

    Without BTF there are no targets.
    """

    header: btf.Header
    targets: dict[str, bpf.Target]


def _kernel() -> _Kernel:
    try:
        layouts = btf.KernelBtf()
    except SourceUnavailableError:
        if not kernel_headers.available():
            raise
        return _Kernel(btf.generate(kernel_headers.KernelHeaders(_import_bcc())), {})
    try:
        found = {
            _ITERATOR: (bpf.ITERATOR, layouts.function("bpf_iter_task")),
            _ON_SYS_EXIT: (bpf.TRACEPOINT, layouts.tracepoint("sys_exit")),
        }
        targets = {
            name: bpf.Target(attach_type, btf_id)
            for name, (attach_type, btf_id) in found.items()
            if btf_id is not None
        }
        return _Kernel(btf.generate(layouts), targets)
    finally:
        layouts.close()


def _load(text: str, kernel: _Kernel) -> tuple[_Loaded, str]:
    """Load the programs from the cache directory, or compile ``text`` and keep the result there.

    Returns them, and why they were compiled; "" if they were not, or if there is no such directory.
    """
    file = _cache_file()
    if file is None:
        return _into_kernel(_compiled(text, kernel), kernel), ""
    key = compiled_programs.cache_key(text)
    try:
        return _into_kernel(compiled_programs.read(file, key), kernel), ""
    except UnusableCacheError as error:
        reason = f"{file}: {error}"
    except (SourceUnavailableError, ValueError, LookupError) as error:
        reason = f"{file}: unusable: {error}"
    compiled = _compiled(text, kernel)
    loaded = _into_kernel(compiled, kernel)
    try:
        compiled_programs.write(file, key, compiled)
    except (OutputError, OSError) as error:
        reason += f"; it can't be written: {error}"
    return loaded, reason


def _cache_file() -> Path | None:
    """Return the file in the directory that the unit's CacheDirectory= has made (systemd.exec)."""
    directory = os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]
    return Path(directory) / compiled_programs.FILE if directory else None


def _compiled(text: str, kernel: _Kernel) -> CompiledPrograms:
    """Compile. The compiler has to make the maps as well: they end with this process."""
    module = _compile(_import_bcc(), text)
    code = {name: module.dump_func(name.encode()) for name in _programs(kernel)}
    return compiled_programs.from_compiler(code, bpf.map_of)


def _programs(kernel: _Kernel) -> list[str]:
    """Return the names of the programs that this kernel can have."""
    names = [*_TRACEPOINTS, *([_ITERATOR] if _ITERATOR in kernel.targets else [])]
    # With BTF the program is compiled for the tracepoint's type.
    lacks_type = kernel.targets and _ON_SYS_EXIT not in kernel.targets
    if "SYSCALL" in kernel.header.missing or lacks_type:
        names.remove(_ON_SYS_EXIT)
    return names


def _into_kernel(compiled: CompiledPrograms, kernel: _Kernel) -> _Loaded:
    """Create the maps and load the programs.

    Raises SourceUnavailableError if the kernel refuses, ValueError or LookupError if the programs
    are damaged.
    """
    try:
        descriptors = [bpf.create_map(each) for each in compiled.maps]
    except OSError as error:
        raise _refused("the maps", error) from None
    programs = {}
    for name in _programs(kernel):
        code = compiled_programs.with_maps(compiled.programs[name], descriptors.__getitem__)
        try:
            programs[name] = bpf.load_program(name, code, kernel.targets.get(name))
        except OSError as error:
            raise _refused(name, error) from None
    names = (each.name for each in compiled.maps)
    return _Loaded(dict(zip(names, descriptors, strict=True)), programs)


def _check_privileges() -> None:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = next(
        int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")
    )
    if effective >> _CAP_SYS_ADMIN & 1:
        return
    missing = [name for bit, name in _CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        raise SourceUnavailableError(
            "ebpf", f"not permitted without {' and '.join(missing)}", "grant " + ", ".join(missing)
        )


def _import_bcc() -> Any:  # noqa: ANN401  # bcc has no types
    os.environ["BCC_KERNEL_SOURCE"] = str(_HERE / "headers")
    try:
        import bcc
    except ImportError as error:
        raise SourceUnavailableError(
            "ebpf",
            f"bcc can't be imported by {sys.executable} ({error})",
            "apt install python3-bpfcc, and make virtual environments with --system-site-packages",
        ) from None
    if not hasattr(bcc, "BPF"):
        raise SourceUnavailableError(
            "ebpf",
            f"{bcc.__file__} is not the BPF Compiler Collection but the PyPI project of that name",
            "pip uninstall bcc; apt install python3-bpfcc",
        )
    return bcc


def _version_1_hierarchy(table: Path) -> tuple[str | None, int]:
    """Return the controller whose version 1 hierarchy identifies containers, and its number."""
    try:
        rows = [line.split() for line in table.read_text().splitlines() if line[:1] != "#"]
    except OSError:
        return None, -1  # the file lists version 1 only
    numbers = {row[0]: int(row[1]) for row in rows if len(row) > 1}
    for controller in btf.CGROUP_CONTROLLERS:
        if numbers.get(controller, 0):
            return controller, numbers[controller]
    return None, -1


def _compile(bcc: Any, text: str) -> Any:  # noqa: ANN401
    try:
        return bcc.BPF(text=text.encode())
    except Exception as error:  # noqa: BLE001  # bcc raises bare exceptions
        raise SourceUnavailableError(
            "ebpf",
            f"bcc could not compile the programs or make their maps ({_errno()}: {error})",
            "see the compiler's messages in the log",
        ) from None


def _errno() -> str:
    return errno.errorcode.get(ctypes.get_errno(), "no errno")


def _attach(program: int, tracepoint: str, *, is_target: bool) -> int:
    try:
        return bpf.attach_tracepoint(program, None if is_target else tracepoint)
    except OSError as error:
        raise _refused(tracepoint, error) from None


def _attach_iterator(program: int) -> int:
    try:
        return bpf.attach_iterator(program)
    except OSError as error:
        raise _refused("iter/task", error) from None


def _refused(what: str, error: OSError) -> SourceUnavailableError:
    if error.errno == errno.EPERM:
        fix = "allow bpf(2): lockdown, a seccomp filter or a security module forbids it"
        with contextlib.suppress(OSError):  # not mounted, or not built in
            fix += f" (lockdown: {Path('/sys/kernel/security/lockdown').read_text().strip()})"
    else:
        fix = "report it with the output of uname -r"
    return SourceUnavailableError("ebpf", f"the kernel refused {what} with {_name(error)}", fix)


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "no errno")


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # bcc's exit handlers would detach the programs, slowly
