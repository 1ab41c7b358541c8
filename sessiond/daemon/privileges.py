"""Which capabilities the daemon still needs once the tracer's loader runs.

docs/operations.md has a table with the reasons.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sessiond.config.schema import AuditdSettings, Config, SessionMetadataSettings
from sessiond.system.proc import PROC

# The capabilities of the shipped unit.
SERVICE: Final = frozenset(
    (
        "CAP_AUDIT_CONTROL",
        "CAP_AUDIT_READ",
        "CAP_BPF",
        "CAP_DAC_READ_SEARCH",
        "CAP_NET_ADMIN",
        "CAP_PERFMON",
        "CAP_SYS_PTRACE",
    )
)
# What the helper process needs that reads procfs, the only program that the daemon executes later.
HELPERS: Final = frozenset(("CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"))
# Linux 5.19 and later check CAP_BPF only when programs are loaded and maps are made; earlier ones
# check it in each call of bpf(2), unless kernel.unprivileged_bpf_disabled is 0.
_LOOSE_BPF: Final = (5, 19)


def needless(config: Config, *, release: str, rmem_max: int) -> frozenset[str]:
    """Return the capabilities of SERVICE that nothing needs after the tracer's loader has started.

    ``release`` is the kernel's (uname -r), ``rmem_max`` its limit of receive buffers in bytes.
    """
    return SERVICE - frozenset(_needed(config, release, rmem_max))


def _needed(config: Config, release: str, rmem_max: int) -> Iterator[str]:
    yield from HELPERS
    audit, source = config.auditd, config.session_metadata
    if audit.enabled:
        yield "CAP_AUDIT_CONTROL"
        if audit.socket_type != "unicast":
            yield "CAP_AUDIT_READ"
    if _may_use_connector(source) or _needs_force(audit, rmem_max):
        yield "CAP_NET_ADMIN"
    if source.backend in ("auto", "ebpf") and _version(release) < _LOOSE_BPF:
        yield "CAP_BPF"  # each snapshot after a loss calls bpf(2)


def _may_use_connector(source: SessionMetadataSettings) -> bool:
    """Return whether the proc connector is the source, or may replace it."""
    return source.backend in ("auto", "proc_connector") or (
        source.backend == "ebpf" and source.fallback
    )


def _needs_force(audit: AuditdSettings, rmem_max: int) -> bool:
    """Return whether the audit socket's buffer exceeds the host's limit (the kernel doubles)."""
    return audit.enabled and audit.receive_buffer // 2 > rmem_max


def _version(release: str) -> tuple[int, int]:
    """Return the first two numbers of a kernel's release; (0, 0) if it has none."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def rmem_max(proc: Path = PROC) -> int:
    """Return net.core.rmem_max in bytes; 0 if it can't be read, as in a network namespace."""
    try:
        return int((proc / "sys/net/core/rmem_max").read_text())
    except (OSError, ValueError):
        return 0
