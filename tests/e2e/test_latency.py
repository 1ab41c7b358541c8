"""No process of the host waits for sessiond, whatever its state."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.kernel import AuditState
from support.spawns import Spawns, Took, finished

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]

# 20,000 spawns in the full version.
COUNT = int(os.environ.get("SESSIOND_LATENCY_SPAWNS", "4000"))
# How long, in seconds, the daemon is at least stopped; a minute in the full version.
STOPPED = float(os.environ.get("SESSIOND_LATENCY_STOPPED", "0"))
# How much longer than without sessiond the longest spawn may take, in microseconds.
STALL = 50_000.0


def least(measure: Callable[[], Took]) -> Took:
    """Repeat slow measurements: stalls caused by sessiond recur, others do not."""
    took = measure()
    for _ in range(2):
        if took.max < STALL:
            break
        again = measure()
        took = min(took, again, key=lambda each: each.max)
    return took


def many_rules() -> str:
    """Return two hundred rules that apply to no process of this test."""
    rule = "-a always,exit -F arch=b64 -S execve -F uid={} -k many"
    return "".join(rule.format(60000 + number) + "\n" for number in range(200))


def test_no_spawn_is_stalled(
    make_daemon: MakeDaemon, spawns: Spawns, tmp_path: Path, record_property: Callable[..., None]
) -> None:
    """Thousands of spawns while sessiond runs, is stopped, is unread, and while 200 rules load."""
    bare = least(lambda: spawns.run(COUNT))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "reader"))
    listener.listen()  # it never reads
    output = {"file": {"enabled": False}, "socket": {"address": str(tmp_path / "reader")}}
    daemon = make_daemon().start()
    unread = make_daemon({"output": output})
    took = {"bare": bare, "with the daemon": least(lambda: spawns.run(COUNT))}

    def while_stopped() -> Took:
        daemon.send(signal.SIGSTOP)
        end = time.monotonic() + STOPPED
        try:
            took = spawns.run(COUNT)
            while time.monotonic() < end:
                took = max(took, spawns.run(COUNT), key=lambda each: each.max)
            return took
        finally:
            daemon.send(signal.SIGCONT)

    took["with the daemon stopped"] = least(while_stopped)

    def while_rules_load() -> Took:
        run = spawns.start(COUNT // 4)
        for rules in (many_rules(), None):
            daemon.configure({"auditd": {"audit_rules": rules}} if rules else {})
            daemon.send(signal.SIGHUP)
            time.sleep(1)
        return finished(run)

    took["while rules load"] = least(while_rules_load)
    daemon.stop()
    unread.start()
    took["with its output never read"] = least(lambda: spawns.run(COUNT))
    unread.stop()
    listener.close()
    for name, each in took.items():
        record_property(name, str(each))  # the figures, in the report of the run
    assert all(each.max < bare.max + STALL for each in took.values()), took


def test_a_wait_time_would_stall_the_host(make_daemon: MakeDaemon, spawns: Spawns) -> None:
    """A wait time of 60 s and a full backlog cause a stall: the test above can fail."""
    ticks = 60 * os.sysconf("SC_CLK_TCK")
    auditd = {
        "backlog_wait_time": ticks,
        "backpressure_strategy": "none",
        "backlog_limit": 8,
        "receive_buffer": "64KiB",
    }
    daemon = make_daemon({"auditd": auditd}).start()
    assert AuditState.read().status["backlog_wait_time"] == str(ticks)
    # Ending the stall must not require the start or end of a process.
    end = threading.Timer(1.5, os.kill, (daemon.pid, signal.SIGCONT))
    end.start()
    daemon.send(signal.SIGSTOP)
    try:
        took = spawns.run(40)
    finally:
        end.join()
    assert took.max > 10 * STALL
    daemon.stop()
    assert AuditState.read().status["backlog_wait_time"] != str(ticks)
