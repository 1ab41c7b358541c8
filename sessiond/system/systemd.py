"""The service manager: readiness, status lines, the watchdog and the descriptor store.

Without a listener on $NOTIFY_SOCKET every function is a no-op. See sd_notify(3),
sd_watchdog_enabled(3) and sd_listen_fds(3).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import time

from systemd import daemon

# How long, in seconds, the manager may take to answer, so that a stop still ends in time.
_ANSWER_TIMEOUT = 5.0
# How long, in seconds, a message may wait until the manager has read earlier ones.
_SEND_TIMEOUT = 0.2


def ready(status: str) -> None:
    """Say that start-up, or a reload, is complete."""
    _send(f"READY=1\nSTATUS={_one_line(status)}")


def reloading() -> None:
    """Say that a reload begins; ``ready`` ends it."""
    microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    _send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")


def stopping(reason: str) -> None:
    """Say that the service goes down."""
    _send(f"STOPPING=1\nSTATUS={_one_line(reason)}")


def watchdog() -> None:
    """Say that the daemon is alive."""
    _send("WATCHDOG=1")


def watchdog_interval() -> float | None:
    """How often, in seconds, to call ``watchdog``; None without a watchdog."""
    pid = os.environ.get("WATCHDOG_PID")
    interval = os.environ.get("WATCHDOG_USEC", "")
    if not interval.isdigit() or (pid is not None and pid != str(os.getpid())):
        return None
    # Half of it, as sd_watchdog_enabled(3) advises.
    return int(interval) / 2e6


def store(name: str, descriptor: int) -> bool:
    """Give a descriptor to the manager's store; it comes back to the next start under ``name``."""
    return _send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", descriptor)


def remove_stored(name: str) -> None:
    """Remove the descriptors stored under ``name`` from the manager's store."""
    _send(f"FDSTOREREMOVE=1\nFDNAME={name}")


def barrier() -> None:
    """Wait until the manager has processed all earlier messages, see sd_notify_barrier(3)."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        told = _send("BARRIER=1", theirs)
    finally:
        os.close(theirs)
    try:
        if told:
            poll = select.poll()
            poll.register(ours, select.POLLHUP)
            poll.poll(_ANSWER_TIMEOUT * 1000)
    finally:
        os.close(ours)


def will_start_again() -> bool:
    """Tell whether the manager restarts this service after its end and keeps the store until then.

    It does unless a stop job is queued: ``systemctl restart`` is a job of its own, an automatic
    restart has none. The unit asks for this by telling its name in $SESSIOND_UNIT. Where the
    manager does not answer, the service stops for good: a gap is better than rules left behind.
    """
    unit, address = os.environ.get("SESSIOND_UNIT"), os.environ.get("NOTIFY_SOCKET", "")
    if not unit or not address:
        return False
    whose = "--system" if address.startswith("/run/systemd/") else "--user"
    command = ["systemctl", whose, "--no-legend", "--no-pager", "--full", "list-jobs", unit]
    try:
        asked = subprocess.run(command, capture_output=True, timeout=_ANSWER_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    # A line is: number, unit, type, state.
    return asked.returncode == 0 and b"stop" not in asked.stdout.split()


def stored() -> dict[str, list[int]]:
    """The descriptors that the manager kept from an earlier run, by name."""
    found: dict[str, list[int]] = {}
    for descriptor, name in daemon.listen_fds_with_names().items():
        found.setdefault(name, []).append(descriptor)
    return found


def _send(message: str, *descriptors: int) -> bool:
    # A manager that is gone or doesn't read must not stop or delay the daemon.
    with contextlib.suppress(OSError):
        return _reads() and bool(daemon.notify(message, fds=list(descriptors)))
    return False


def _reads() -> bool:
    """Tell whether the manager's socket has room: sending waits for it (unix(7))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return bool(address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
        poll = select.poll()
        poll.register(probe, select.POLLOUT)
        return bool(poll.poll(_SEND_TIMEOUT * 1000))


def _one_line(text: str) -> str:
    return " ".join(text.split())
