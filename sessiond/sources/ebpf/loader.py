"""The short-lived helper process that compiles, loads and attaches the tracer's programs.

helper.py starts ``python -m sessiond.sources.ebpf.loader SOCKET RING_BYTES ARGS_LIMIT`` with one
end of a socket pair. It compiles, waits for a message, and answers with one: a JSON object and, on
success, the descriptors that keep the programs attached. The compiler's memory is freed when this
process ends.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sessiond.errors import SourceUnavailableError
from sessiond.sources.ebpf import btf, kernel_headers
from sessiond.sources.ebpf.records import CPUS

_HERE = Path(__file__).parent
_RAW_TRACEPOINT, _TRACEPOINT, _TRACING = 17, 5, 26  # enum bpf_prog_type

_RAW_TRACEPOINTS = {
    # Attached in this order, so that each reported fork has a reported end. Loading a program takes
    # some ms, in which most earlier forks execute their programs.
    "on_exit": "sched_process_exit",
    "on_fork": "sched_process_fork",
    "on_exec": "sched_process_exec",
    "on_cgroup_mkdir": "cgroup_mkdir",
}
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


def load(
    ring_bytes: int, args_limit: int, wait: Callable[[], None] = lambda: None
) -> tuple[dict[str, Any], list[int]]:
    """Compile, ``wait``, and attach; return the answer and the descriptors that it names.

    The answer has ``controller`` (the version 1 cgroup controller in use, or None) and ``degraded``
    (the tracer's limitations on this host, as text). The first descriptors are the ring, the
    counters of losses and of records and, if ``iterator`` is true, the snapshot iterator; the
    others only have to be kept open. Raises SourceUnavailableError.
    """
    _check_privileges()
    bcc = _import_bcc()
    controller, hierarchy = _version_1_hierarchy(Path("/proc/cgroups"))
    header, has_btf = _header(bcc)
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
    module = _compile(bcc, text)
    wait()
    links = [
        _attach(
            bcc.lib.bpf_attach_raw_tracepoint(
                _load_program(module, function, _RAW_TRACEPOINT), tracepoint.encode()
            ),
            tracepoint,
        )
        for function, tracepoint in _RAW_TRACEPOINTS.items()
    ]
    degraded = [_MISSING[feature] for feature in header.missing]
    syscall_links, reason = _attach_syscalls(bcc, module)
    if reason:
        degraded.append(reason)
    descriptors = [module[name].map_fd for name in (b"ring", b"lost", b"submitted")]
    if has_btf:
        program = _load_program(module, "bpf_iter__task", _TRACING)
        descriptors.append(_attach(bcc.lib.bcc_iter_attach(program, None, 0), "iter/task"))
    else:
        degraded.append(_NO_ITERATOR)
    descriptors += [*links, *syscall_links]
    answer = {
        "controller": controller,
        "degraded": degraded,
        "iterator": has_btf,
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


def _header(bcc: Any) -> tuple[btf.Header, bool]:  # noqa: ANN401
    """Return the layouts as a header, and whether they come from BTF."""
    try:
        layouts = btf.KernelBtf()
    except SourceUnavailableError:
        if not kernel_headers.available():
            raise
        return btf.generate(kernel_headers.KernelHeaders(bcc)), False
    try:
        return btf.generate(layouts), True
    finally:
        layouts.close()


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
            f"bcc could not compile the programs or make their maps ({_strerror()}: {error})",
            "see the compiler's messages in the log",
        ) from None


def _strerror() -> str:
    return errno.errorcode.get(ctypes.get_errno(), "no errno")


def _load_program(module: Any, function: str, kind: int) -> int:  # noqa: ANN401
    ctypes.set_errno(0)
    try:
        return int(module.load_func(function.encode(), kind).fd)
    except Exception:  # noqa: BLE001  # bcc raises bare exceptions; errno has the reason
        raise _refused(function) from None


def _attach(descriptor: int, where: str) -> int:
    if descriptor < 0:
        raise _refused(where)
    return descriptor


def _refused(what: str) -> SourceUnavailableError:
    if ctypes.get_errno() == errno.EPERM:
        fix = "allow bpf(2): lockdown, a seccomp filter or a security module forbids it"
        with contextlib.suppress(OSError):  # not mounted, or not built in
            fix += f" (lockdown: {Path('/sys/kernel/security/lockdown').read_text().strip()})"
    else:
        fix = "report it with the output of uname -r"
    return SourceUnavailableError("ebpf", f"the kernel refused {what} with {_strerror()}", fix)


def _attach_syscalls(bcc: Any, module: Any) -> tuple[list[int], str | None]:  # noqa: ANN401
    """Attach to changes of session, group or ids; these tracepoints need tracefs."""
    if not (_tracefs_is_readable() or (_mount_tracefs() and _tracefs_is_readable())):
        return [], (
            "setsid, setpgid and set*id are seen only at the next fork, exec or exit:"
            " tracefs isn't readable at /sys/kernel/tracing"
        )
    links, missing = [], []
    for tracepoint, function in _SYSCALL_TRACEPOINTS.items():
        program = _load_program(module, function, _TRACEPOINT)
        link = bcc.lib.bpf_attach_tracepoint(program, b"syscalls", tracepoint.encode())
        if link < 0:
            missing.append(f"{tracepoint} ({_strerror()})")
        else:
            links.append(link)
    return links, f"could not attach to {', '.join(missing)}" if missing else None


def _tracefs_is_readable() -> bool:
    return any(
        os.access(root / "events/syscalls", os.X_OK, effective_ids=True) for root in _TRACEFS
    )


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
