"""The real daemon as a subprocess: start, queries, stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from support.truth import until

Document = dict[str, Any]

# As sitecustomize.py in the daemon: SIGUSR1 takes the kernel's programs away from its tracer.
WITHOUT_TRACER = """
import gc, os, signal

def detach(*_):
    from sessiond.sources.ebpf.source import EbpfSource
    gc.unfreeze()
    for source in gc.get_objects():
        if type(source) is EbpfSource:  # a weak proxy may be of nothing
            null = os.open(os.devnull, os.O_RDONLY)
            for descriptor in source._descriptors[3:]:
                os.dup2(null, descriptor)

signal.signal(signal.SIGUSR1, detach)
"""


class Daemon:
    """One ``sessiond run`` with its own directory, and so its own output, state, spool and socket.

    ``settings`` extend a base configuration that keeps everything inside the directory and
    writes long lines. ``environment`` is added to that of the tests.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.output = directory / "events.ndjson"
        self.log = directory / "log"
        self.config = directory / "sessiond.yml"
        self.notified: list[str] = []
        # A command that executes the daemon, such as unshare.
        self.prefix: list[str] = []
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._notify: socket.socket | None = None
        self._offset = 0
        self._read: list[Document] = []
        directory.mkdir(parents=True, exist_ok=True)
        self.configure(settings or {})

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Rewrite the configuration file."""
        inside = {
            "output": {"file": {"path": str(self.output), "rotate": {"size": 0}}},
            "state_directory": str(self.directory / "state"),
            "runtime_directory": str(self.directory / "run"),
            # The processes record their whole argv; tests of the limits set these themselves.
            "event": {"max_args_bytes": "1MiB", "max_line_bytes": "16MiB"},
        }
        self.config.write_text(yaml.safe_dump(_merged(inside, settings)))
        self.config.chmod(0o600)

    # --- lifecycle ---

    @property
    def pid(self) -> int:
        """The pid of the running daemon."""
        assert self._process is not None
        return self._process.pid

    def spawn(self) -> None:
        """Start the daemon without waiting for its readiness."""
        address = self.directory / "notify"
        address.unlink(missing_ok=True)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._notify.bind(str(address))
        self._notify.setblocking(False)
        self.notified.clear()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "sessiond", "run", "-c", str(self.config)],
                env={**os.environ, **self._environment, "NOTIFY_SOCKET": str(address)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start(self, seconds: float = 30) -> Daemon:
        """Start the daemon and wait at most ``seconds`` for READY=1."""
        self.spawn()
        self.wait_notified("READY=1", seconds)
        return self

    def wait_notified(self, word: str, seconds: float = 10) -> None:
        """Wait until a message to the service manager contains ``word``."""

        def said() -> bool:
            assert self._process is not None
            self._receive_notifications()
            if any(word in message for message in self.notified):
                return True
            assert self._process.poll() is None, f"the daemon is gone: {self.log.read_text()}"
            return False

        until(said, seconds, f"{word} from the daemon: {self.log.read_text()[-2000:]}")

    def is_fed(self, seconds: float) -> bool:
        """Return whether the daemon notifies the watchdog within ``seconds`` from now."""
        self._receive_notifications()
        self.notified.clear()
        try:
            self.wait_notified("WATCHDOG=1", seconds)
        except AssertionError:
            return False
        return True

    def _receive_notifications(self) -> None:
        assert self._notify is not None
        while True:
            try:
                self.notified.append(self._notify.recv(65536).decode())
            except BlockingIOError:
                return

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def reload(self) -> None:
        """Reload the daemon, and wait until it reports completion."""
        self._receive_notifications()
        self.notified.clear()
        self.send(signal.SIGHUP)
        self.wait_notified("RELOADING=1")
        self.wait_notified("READY=1")

    def wait(self, seconds: float = 30) -> int:
        """Wait for its end, such as after a signal; return its exit code."""
        assert self._process is not None
        deadline = time.monotonic() + seconds
        try:
            while self._process.poll() is None:
                # A service manager never stops reading, and the daemon may wait for it.
                self._receive_notifications()
                assert time.monotonic() < deadline, (
                    f"still there after {seconds} s: {self.log.read_text()}"
                )
                time.sleep(0.02)
            return self._process.returncode
        finally:
            if self._process.poll() is not None and self._notify is not None:
                self._notify.close()
                self._notify = None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it with a signal, and return its exit code."""
        self.send(number)
        return self.wait()

    def end(self) -> None:
        """End it in any way, if it is still running."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self.wait(15)
            except AssertionError:
                self._process.kill()
        self.wait()

    # --- queries ---

    def documents(self) -> list[Document]:
        """Return every complete document in the output file."""
        if not self.output.exists():
            return []
        with self.output.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._read += [json.loads(line) for line in whole.splitlines()]
        return self._read

    def find(self, **wanted: Any) -> list[Document]:
        """Return the documents with these values; __ in a name stands for a dot."""
        return [
            document
            for document in self.documents()
            if all(
                value(document, path.replace("__", ".")) == expected
                for path, expected in wanted.items()
            )
        ]

    def await_one(self, seconds: float = 10, **wanted: Any) -> Document:
        """Wait for a document with these values, and return the first."""
        found: list[Document] = until(
            lambda: self.find(**wanted), seconds, f"an event with {wanted}"
        )
        return found[0]

    def settle(self, seconds: float = 10) -> list[Document]:
        """Wait until the output has not grown for half a second, and return all documents.

        Only the time in which the daemon wants no CPU counts: on a busy machine it may get none.
        """
        deadline = time.monotonic() + seconds
        count, quiet = len(self.documents()), 0
        while quiet < 10 and time.monotonic() < deadline:
            time.sleep(0.05)
            quiet = 0 if self._is_busy() or len(self.documents()) != count else quiet + 1
            count = len(self.documents())
        return self.documents()

    def _is_busy(self) -> bool:
        """Return whether a thread of the daemon runs, or waits for a CPU or a disk."""
        for stat in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with suppress(OSError):  # the thread has ended
                if stat.read_text().rpartition(") ")[2][0] in "RD":
                    return True
        return False

    def status(self) -> Document:
        """Return the output of ``sessiond status --json``, whatever the health."""
        asked = self.command("status", "--json")
        assert asked.returncode in (0, 1), asked.stderr
        status: Document = json.loads(asked.stdout)
        return status

    def command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of sessiond with this daemon's configuration."""
        return subprocess.run(
            [sys.executable, "-m", "sessiond", name, "-c", str(self.config), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


def value(document: Document, path: str) -> Any:
    """Return the value at a dotted path; None if it is absent."""
    found: Any = document
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found


def token_of(document: Document) -> str | None:
    """Return the last argument, which identifies a run of the generator."""
    arguments = value(document, "process.args")
    return str(arguments[-1]) if arguments else None


def _merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, given in more.items():
        both = isinstance(given, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], given) if both else given
    return merged
