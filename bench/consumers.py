"""The consumers of audit records: auditd, auditd with LAUREL, and sessiond.

Their output and configuration are in a directory of the measurement.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import orjson

from bench.builds import is_compiled
from bench.host import BenchError, audit_status, auditctl
from bench.load import Reader
from sessiond.config.schema import DEFAULT_RULES

# The unit uses /run, which is not a tmpfs in every container or virtual machine.
_TMPFS: Final = Path("/dev/shm")
_LIMIT: Final = 60.0  # seconds for a start, and for an end
_TOKEN: Final = re.compile(rb'"(bench-\d+-\d+)"')
_PID: Final = re.compile(rb" pid=(\d+) ")


@dataclass
class Running:
    """A consumer at work: its process, its output, and how long it took to be ready."""

    pid: int
    output: Path
    seconds_to_ready: float
    killed: bool = False

    def kill(self) -> None:
        """Kill it, as in a crash, and wait for its end."""
        self.killed = True
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)


class Consumer(Protocol):
    """A program that can be measured. ``reader`` finds execs and ends in its output."""

    name: str

    @property
    def reader(self) -> Reader:
        """Finds execs and ends in the output."""

    def missing(self) -> str | None:
        """Return what is not installed, as text; None if nothing is missing."""

    def running(self, directory: Path) -> AbstractContextManager[Running]:
        """Start it in an empty directory, yield when it is ready, and end it."""


class Auditd:
    """auditd as Debian configures it, with the ENRICHED log as the only output.

    With ``rotated`` it rotates its log as in Debian; otherwise the log is one file.
    """

    name = "auditd"

    def __init__(self, *, rotated: bool = False) -> None:
        """Take the option."""
        self._rotated = rotated

    @property
    def reader(self) -> Reader:
        """Read auditd's log."""
        return _read_log

    def missing(self) -> str | None:
        """Return what is not installed, as text; None if nothing is missing."""
        return None if Path("/usr/sbin/auditd").exists() else "the Debian package auditd"

    def configure(self, directory: Path) -> Path:
        """Write the configuration to ``directory``; return the output file."""
        output = directory / "audit.log"
        _configure_auditd(directory, output, write_logs=True, rotated=self._rotated)
        return output

    @contextmanager
    def running(self, directory: Path) -> Iterator[Running]:
        """Run auditd; it is ready when it has the audit socket and the rules are loaded."""
        output = self.configure(directory)
        begin = time.monotonic()
        log = directory / "said"
        # Not -f, which is for debugging: it writes events to standard error instead of the log.
        with _process(["/usr/sbin/auditd", "-n", "-c", str(directory)], log, {}) as process:
            _await(lambda: audit_status()["pid"] == str(process.pid), process, log)
            # The first rules of Debian's rules.d, followed by sessiond's built-in rules.
            auditctl("-b", "8192")
            auditctl("--backlog_wait_time", "60000")
            for rule in DEFAULT_RULES.splitlines():
                if rule:
                    auditctl(*rule.split())
            self.await_more(process, log)
            running = Running(process.pid, output, time.monotonic() - begin)
            yield running
            _must_run(process, running, log)

    def await_more(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Wait for further parts; auditd alone has none."""


class Laurel(Auditd):
    """auditd with LAUREL as its plugin, and LAUREL's JSON as the only output."""

    name = "laurel"

    @property
    def reader(self) -> Reader:
        """Read LAUREL's log."""
        return _read_laurel

    def missing(self) -> str | None:
        """Return what is not installed, as text; None if nothing is missing."""
        return super().missing() or (None if _laurel() else "the Debian package laurel")

    def configure(self, directory: Path) -> Path:
        """Write the configuration to ``directory``; return the output file."""
        _configure_auditd(directory, directory / "audit.log", write_logs=False)
        logs = directory / "laurel"
        logs.mkdir()
        logs.chmod(0o750)
        shutil.chown(logs, "_laurel")
        config = directory / "laurel.toml"
        # The installed configuration, with another directory and without rotation: the log is one
        # file.
        settings = Path("/etc/laurel/config.toml").read_text()
        for name, value in (("directory", f'"{logs}"'), ("size", "100000000000")):
            settings = re.sub(rf"(?m)^{name} = .*", f"{name} = {value}", settings, count=1)
        config.write_text(settings)
        plugin = directory / "plugins.d" / "laurel.conf"
        plugin.write_text(
            "active = yes\ndirection = out\ntype = always\nformat = string\n"
            f"path = {_laurel()}\nargs = --config {config}\n"
        )
        plugin.chmod(0o640)
        return logs / "audit.log"

    def await_more(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Wait until LAUREL, a child of auditd, runs."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        _await(lambda: bool(children.read_text().split()), process, log)


class Sessiond:
    """sessiond from a directory with its package, plain or compiled, with output to a file.

    ``more_rules`` are loaded after the built-in ones. With ``audit`` False every event comes
    from the tracer. ``rotate`` are the settings of that name as YAML; by default the log is one
    file.
    """

    def __init__(
        self,
        name: str,
        packages: Path,
        *,
        backend: str,
        more_rules: Sequence[str] = (),
        audit: bool = True,
        rotate: str = "{size: 0}",
    ) -> None:
        """Take the package in ``packages``."""
        self.name = name
        self.packages = packages
        self.audit = audit
        self._rotate = rotate
        self._backend = backend
        rules = "".join(f"    {rule}\n" for rule in (*DEFAULT_RULES.splitlines(), *more_rules))
        self._auditd = (
            f"auditd:\n  audit_rules: |\n{rules}" if audit else "auditd: {enabled: false}\n"
        )

    @property
    def compiled(self) -> bool:
        """Whether its hot modules are compiled."""
        return is_compiled(self.packages)

    @property
    def reader(self) -> Reader:
        """Read sessiond's lines."""
        return _read_ours

    def missing(self) -> str | None:
        """Return what is not installed, as text; None if nothing is missing."""
        return None

    @contextmanager
    def running(self, directory: Path) -> Iterator[Running]:
        """Run the daemon; it is ready when it sends READY=1."""
        output = directory / "events.ndjson"
        runtime = runtime_directory(directory)
        config = directory / "sessiond.yml"
        config.write_text(
            f"{self._auditd}"
            f"session_metadata: {{backend: {self._backend}, fallback: false}}\n"
            f"output: {{file: {{path: {output}, rotate: {self._rotate}}}}}\n"
            f"state_directory: {directory}/state\nruntime_directory: {runtime}\n"
        )
        config.chmod(0o600)
        ready = threading.Event()
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.bind(str(directory / "notify"))
        threading.Thread(target=_listen, args=(manager, ready), daemon=True).start()
        environment = {
            # Shared by all runs, as by all starts on a host: only the first one compiles eBPF.
            "CACHE_DIRECTORY": str(directory.parent / "cache"),
            "NOTIFY_SOCKET": str(directory / "notify"),
            "PYTHONPATH": str(self.packages),
            "PYTHONSAFEPATH": "1",
        }
        begin = time.monotonic()
        log = directory / "said"
        command = [sys.executable, "-m", "sessiond", "run", "-c", str(config)]
        try:
            with _process(command, log, environment) as process:
                _await(ready.is_set, process, log)
                running = Running(process.pid, output, time.monotonic() - begin)
                yield running
                _must_run(process, running, log)
        finally:
            manager.shutdown(socket.SHUT_RDWR)
            manager.close()
            (directory / "notify").unlink()


def runtime_directory(directory: Path) -> Path:
    """Return sessiond's runtime directory: on a tmpfs if possible, as under the shipped unit."""
    return _TMPFS / directory.name if _TMPFS.is_dir() else directory / "run"


def _laurel() -> str | None:
    return shutil.which("laurel", path="/usr/sbin:/usr/local/sbin:/usr/bin")


def _configure_auditd(
    directory: Path, output: Path, *, write_logs: bool, rotated: bool = False
) -> None:
    # Debian's auditd.conf with other directories, without actions on a full disk, and without
    # rotation unless ``rotated``.
    rotation = (
        "num_logs = 5\nmax_log_file = 8\nmax_log_file_action = ROTATE\n"
        if rotated
        else "num_logs = 0\nmax_log_file = 100000\nmax_log_file_action = IGNORE\n"
    )
    (directory / "plugins.d").mkdir()
    config = directory / "auditd.conf"
    config.write_text(
        f"local_events = yes\nwrite_logs = {'yes' if write_logs else 'no'}\nlog_file = {output}\n"
        "log_group = root\nlog_format = ENRICHED\nflush = INCREMENTAL_ASYNC\nfreq = 50\n"
        f"{rotation}priority_boost = 4\n"
        "name_format = NONE\nspace_left = 75\nspace_left_action = IGNORE\n"
        "admin_space_left = 50\nadmin_space_left_action = IGNORE\ndisk_full_action = IGNORE\n"
        "disk_error_action = IGNORE\nq_depth = 2000\noverflow_action = SYSLOG\n"
        f"max_restarts = 10\nplugin_dir = {directory}/plugins.d\nend_of_event_timeout = 2\n"
    )
    config.chmod(0o640)


@contextmanager
def _process(
    command: Sequence[str], log: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    # In a separate session, so that Ctrl-C reaches only the benchmark, which ends it.
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_LIMIT)
        except BaseException:
            process.kill()
            process.wait()
            raise


def _must_run(process: subprocess.Popen[bytes], running: Running, log: Path) -> None:
    if process.poll() is not None and not running.killed:
        raise BenchError(f"ended under the load with {process.returncode}: {_last_words(log)}")


def _await(done: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _LIMIT
    while not done():
        if process.poll() is not None or time.monotonic() > deadline:
            state = "ended" if process.returncode is not None else f"is not ready in {_LIMIT:.0f} s"
            lines = log.read_text(errors="replace").splitlines() or [
                "it said nothing; perhaps the system log knows"
            ]
            raise BenchError(f"{state}: {lines[-1]}")
        time.sleep(0.005)


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing; perhaps the system log knows"


def _listen(manager: socket.socket, ready: threading.Event) -> None:
    # A service manager never stops reading. After the shutdown of the socket no message arrives.
    while said := manager.recv(65536):
        if b"READY=1" in said:
            ready.set()


def _read_log(line: bytes) -> bytes | int | None:
    if line.startswith(b"type=EXECVE "):
        token = _TOKEN.search(line)
        return token[1] if token else None
    if line.startswith(b"type=SYSCALL ") and b" SYSCALL=exit_group " in line:
        pid = _PID.search(line)
        return int(pid[1]) if pid else None
    return None


def _read_laurel(line: bytes) -> bytes | int | None:
    event = orjson.loads(line)
    call = event.get("SYSCALL", {})
    if "EXECVE" in event:
        token = _TOKEN.search(orjson.dumps(event["EXECVE"]))
        return token[1] if token else None
    return int(call["pid"]) if call.get("SYSCALL") == "exit_group" else None


def _read_ours(line: bytes) -> bytes | int | None:
    event = orjson.loads(line)
    process, action = event.get("process", {}), event["event"]["action"]
    if action == "exec":
        args = process.get("args") or [""]
        return str(args[-1]).encode()
    return int(process["pid"]) if action == "end" else None
