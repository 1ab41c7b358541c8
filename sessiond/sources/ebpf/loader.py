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

_RAW_TRACEPOINTS = {
    # Attached in this order, so that each reported fork has a reported end.
    "on_exit": "sched_process_exit",
    "on_fork": "sched_process_fork",
    "on_exec": "sched_process_exec",
    "on_cgroup_mkdir": "cgroup_mkdir",
}
# Seconds in which most processes that were forked without a report execute their programs, so that
# these execs are not reported either.
_FORK_TO_EXEC = 0.01
_IDS = (  # 0 when they worked
    "setuid setgid setreuid setregid setresuid setresgid setgroups capset unshare setns"
).split()
_SYSCALL_TRACEPOINTS = {
    "sys_enter_setpgid": "on_setpgid_enter",
    "sys_exit_setpgid": "on_setpgid",
    "sys_exit_setsid": "on_setsid",
    "sys_exit_setfsuid": "on_fsids",
    "sys_exit_setfsgid": "on_fsids",
    **{f"sys_exit_{name}": "on_ids" for name in _IDS},
}
_ITERATOR = "bpf_iter__task"
_KINDS = {
    **dict.fromkeys(_RAW_TRACEPOINTS, bpf.RAW_TRACEPOINT),
    **dict.fromkeys(_SYSCALL_TRACEPOINTS.values(), bpf.TRACEPOINT),
    _ITERATOR: bpf.TRACING,
}
_SYSCALL_EXIT = {"x86_64": 60, "aarch64": 93}
_TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_CAPABILITIES = {39: "CAP_BPF", 38: "CAP_PERFMON"}
_CAP_SYS_ADMIN = 21
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 0x40000  # linux/sched.h, linux/mount.h


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
    header, iterated = _header()
    defines: dict[str, int | str] = {
        "PAGE_SIZE": mmap.PAGESIZE,
        "RING_PAGES": ring_bytes // mmap.PAGESIZE,
        "ARGS_LIMIT": args_limit,
        "HIERARCHY": hierarchy,
        "CPUS": CPUS,
        "SYSCALL_EXIT": _SYSCALL_EXIT.get(platform.machine(), -1),
    }
    if controller:
        defines["CONTROLLER"] = f"CONTROLLER_{controller.upper()}"
    text = "\n".join(
        (
            *(f"#define {name} {value}" for name, value in defines.items()),
            "#include <linux/types.h>",
            header.text,
            (_HERE / "programs.c").read_text(),
        )
    )
    (maps, programs), compiled = _load(text, iterated)
    wait()
    links = []
    for function, tracepoint in _RAW_TRACEPOINTS.items():
        if function == "on_exec":
            time.sleep(_FORK_TO_EXEC)
        links.append(_attach_raw_tracepoint(programs[function], tracepoint))
    degraded = [_MISSING[feature] for feature in header.missing]
    syscall_links, reason = _attach_syscalls(programs)
    if reason:
        degraded.append(reason)
    descriptors = [maps[name] for name in ("ring", "lost", "submitted")]
    if _ITERATOR in programs:
        descriptors.append(_attach_iterator(programs[_ITERATOR]))
    else:
        degraded.append(_NO_ITERATOR)
    descriptors += [*links, *syscall_links]
    answer = {
        "controller": controller,
        "degraded": degraded,
        "compiled": compiled,
        "iterator": _ITERATOR in programs,
        "descriptors": len(descriptors),
    }
    return answer, descriptors


_MISSING = {
    "LOGIN": "loginuid and audit session of processes are unknown (no CONFIG_AUDIT)",
    "SYSCALL": "exit(2) of the last thread can't be distinguished from exit_group(2)",
    "MOUNT_NAMESPACE": "the mount namespace of an executable's path is unknown",
    "AUDIT_STAMP": "execs can't be matched with audit events by their exact time stamp",
}


_NO_ITERATOR = "processes that ran before the start come from procfs (the kernel has no BTF)"


def _header() -> tuple[btf.Header, int | None]:
    """Return the layouts as a header, and the BTF id of the function that iterates over tasks.

    The id is None if the layouts come from the kernel's headers instead of BTF.
    """
    try:
        layouts = btf.KernelBtf()
    except SourceUnavailableError:
        if not kernel_headers.available():
            raise
        return btf.generate(kernel_headers.KernelHeaders(_import_bcc())), None
    try:
        return btf.generate(layouts), layouts.function("bpf_iter_task")
    finally:
        layouts.close()


def _load(text: str, iterated: int | None) -> tuple[_Loaded, str]:
    """Load the programs from the cache directory, or compile ``text`` and keep the result there.

    Returns them, and why they were compiled; "" if they were not, or if there is no such directory.
    """
    file = _cache_file()
    if file is None:
        return _into_kernel(_compiled(text), iterated), ""
    key = compiled_programs.cache_key(text)
    try:
        return _into_kernel(compiled_programs.read(file, key), iterated), ""
    except UnusableCacheError as error:
        reason = f"{file}: {error}"
    except (SourceUnavailableError, ValueError, LookupError) as error:
        reason = f"{file}: unusable: {error}"
    compiled = _compiled(text)
    loaded = _into_kernel(compiled, iterated)
    try:
        compiled_programs.write(file, key, compiled)
    except (OutputError, OSError) as error:
        reason += f"; it can't be written: {error}"
    return loaded, reason


def _cache_file() -> Path | None:
    """Return the file in the directory that the unit's CacheDirectory= has made (systemd.exec)."""
    directory = os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]
    return Path(directory) / compiled_programs.FILE if directory else None


def _compiled(text: str) -> CompiledPrograms:
    """Compile. The compiler has to make the maps as well: they end with this process."""
    module = _compile(_import_bcc(), text)
    code = {name: module.dump_func(name.encode()) for name in _KINDS}
    return compiled_programs.from_compiler(code, bpf.map_of)


def _into_kernel(compiled: CompiledPrograms, iterated: int | None) -> _Loaded:
    """Create the maps and load the programs, except the iterator's if ``iterated`` is None.

    Raises SourceUnavailableError if the kernel refuses, ValueError or LookupError if the programs
    are damaged.
    """
    try:
        descriptors = [bpf.create_map(each) for each in compiled.maps]
    except OSError as error:
        raise _refused("the maps", error) from None
    programs = {}
    for name, kind in _KINDS.items():
        if name == _ITERATOR and iterated is None:
            continue
        code = compiled_programs.with_maps(compiled.programs[name], descriptors.__getitem__)
        try:
            programs[name] = bpf.load_program(
                name, kind, code, iterated or 0 if name == _ITERATOR else 0
            )
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


def _attach_raw_tracepoint(program: int, tracepoint: str) -> int:
    try:
        return bpf.attach_raw_tracepoint(program, tracepoint)
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


def _attach_syscalls(programs: dict[str, int]) -> tuple[list[int], str | None]:
    """Attach to changes of session, group or ids; these tracepoints need tracefs."""
    events = _syscall_events() or (_syscall_events() if _mount_tracefs() else None)
    if events is None:
        return [], (
            "setsid, setpgid and set*id are seen only at the next fork, exec or exit:"
            " tracefs isn't readable at /sys/kernel/tracing"
        )
    links, missing = [], []
    for tracepoint, function in _SYSCALL_TRACEPOINTS.items():
        try:
            number = int((events / tracepoint / "id").read_text())
            links.append(bpf.attach_tracepoint(programs[function], number))
        except OSError as error:
            missing.append(f"{tracepoint} ({_name(error)})")
    return links, f"could not attach to {', '.join(missing)}" if missing else None


def _syscall_events() -> Path | None:
    """Return the directory of the tracepoints of system calls, None if it isn't readable."""
    places = (root / "events/syscalls" for root in _TRACEFS)
    return next((place for place in places if os.access(place, os.X_OK, effective_ids=True)), None)


def _mount_tracefs() -> bool:
    """Mount tracefs in a private mount namespace, which ends with this process.

    A host without systemd has not mounted it after a boot. Returns False if that is refused:
    without CAP_SYS_ADMIN, or if the kernel has no tracefs (mount(2), unshare(2)).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(
        libc.unshare(_CLONE_NEWNS) == 0
        and libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) == 0
        and libc.mount(b"tracefs", bytes(_TRACEFS[0]), b"tracefs", 0, None) == 0
    )


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # bcc's exit handlers would detach the programs, slowly
