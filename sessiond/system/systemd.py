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

# Seconds to wait for an answer of the manager, so that a stop is still in time.
_ANSWER_TIMEOUT = 5.0
# Seconds for which a message may wait for the manager to read earlier ones.
_SEND_TIMEOUT = 0.2


def ready(status: str) -> None:
    """Notify the manager that start-up, or a reload, is complete."""
    _send(f"READY=1\nSTATUS={_one_line(status)}")


def reloading() -> None:
    """Notify the manager that a reload starts; ``ready`` ends it."""
    microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    _send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")


def stopping(reason: str) -> None:
    """Notify the manager that the service is stopping."""
    _send(f"STOPPING=1\nSTATUS={_one_line(reason)}")


def watchdog() -> None:
    """Notify the manager's watchdog."""
    _send("WATCHDOG=1")


def watchdog_interval() -> float | None:
    """Return how often, in seconds, to call ``watchdog``; None without a watchdog."""
    pid = os.environ.get("WATCHDOG_PID")
    interval = os.environ.get("WATCHDOG_USEC", "")
    if not interval.isdigit() or (pid is not None and pid != str(os.getpid())):
        return None
    # Half the timeout, as sd_watchdog_enabled(3) recommends.
    return int(interval) / 2e6


def store(name: str, descriptor: int) -> bool:
    """Put a descriptor into the manager's store; the next start receives it under ``name``."""
    return _send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", descriptor)


def remove_stored(name: str) -> None:
    """Remove the descriptors stored under ``name`` from the manager's store."""
    _send(f"FDSTOREREMOVE=1\nFDNAME={name}")


def barrier() -> None:
    """Wait until the manager has processed all earlier messages, see sd_notify_barrier(3)."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        sent = _send("BARRIER=1", theirs)
    finally:
        os.close(theirs)
    try:
        if sent:
            poll = select.poll()
            poll.register(ours, select.POLLHUP)
            poll.poll(_ANSWER_TIMEOUT * 1000)
    finally:
        os.close(ours)


def will_start_again() -> bool:
    """Return whether the manager will restart this service and keeps the descriptor store.

    It does unless a stop job is queued: ``systemctl restart`` has a restart job, an automatic
    restart has none. The unit passes its name in $SESSIOND_UNIT. If the manager does not answer,
    assume a permanent stop: a gap is better than rules left behind.
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
    """Return the stored descriptors of an earlier run, by name."""
    found: dict[str, list[int]] = {}
    for descriptor, name in daemon.listen_fds_with_names().items():
        found.setdefault(name, []).append(descriptor)
    return found


def _send(message: str, *descriptors: int) -> bool:
    # A manager that has exited or does not read must not stop or delay the daemon.
    with contextlib.suppress(OSError):
        return _reads() and bool(daemon.notify(message, fds=list(descriptors)))
    return False


def _reads() -> bool:
    """Return whether the manager's socket has room: otherwise sending would block (unix(7))."""
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
