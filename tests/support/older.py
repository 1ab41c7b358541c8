"""Waiting sessions of all kinds, each of which runs a program on request.

They are started once; an older daemon and a newer one can observe them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import termios
from contextlib import ExitStack, suppress
from pathlib import Path

from support.containers import Runc
from support.logins import Sshd, Tmux
from support.manager import UserManager
from support.truth import until

CONSOLE = Path("/dev/tty63")  # a directory that no other process uses
CRON_TABLE = Path("/etc/cron.d/sessiond-older")
CRON_MARKS = (Path("/run/crond.reboot"), Path("/run/crond.pid"))
MARKER = "/bin/true"

# Prints its attributes, then reads a word, runs a program with it, and executes itself again.
_SCRIPT = f"""\
echo $$ >"${{0%/*}}/$1.pid"
read -r word <"${{0%/*}}/$1" && {MARKER} "$word"
exec /bin/sh "$0" "$1"
"""

_DOUBLE_FORK = """
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.execv("/bin/sh", sys.argv[1:])
"""


KINDS = (
    "ssh with a terminal",
    "ssh without a terminal",
    "sudo",
    "su",
    "nohup",
    "tmux",
    "screen",
    "cron",
    "at",
    "service",
    "user service",
    "console login",
    "container",
    "container that was left",
    "container in a login",
    "double fork",
    "pipeline",
)


class OlderSessions:
    """One session of each kind that this host supports, by its name.

    ``missing`` has the reasons for the other kinds. All users can write to ``directory``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kinds: list[str] = []
        self.missing: dict[str, str] = {}
        self._script = directory / "wait.sh"
        self._in_containers: dict[str, Path] = {}
        self._ending: list[subprocess.Popen[bytes]] = []
        self._stack = ExitStack()

    def start(self) -> None:
        """Start them, and wait for the end of the logins that are to end."""
        self._script.write_text(_SCRIPT)
        with self._stack as stack:
            self._start_logins()
            self._start_others()
            self._start_containers()
            for login in self._ending:
                assert login.wait(30) == 0
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Stop all sessions, and their servers."""
        for kind in self.kinds:
            if kind not in self._in_containers:
                with suppress(OSError, ValueError):
                    pid = int((self.directory / f"{_file(kind)}.pid").read_text())
                    os.kill(pid, signal.SIGKILL)
        self._stack.close()

    def command(self, kind: str) -> list[str]:
        """Return the command line that a session executes repeatedly."""
        directory = "/bin" if kind in self._in_containers else str(self.directory)
        return ["/bin/sh", f"{directory}/{self._script.name}", _file(kind)]

    def run(self, kind: str, word: str) -> None:
        """Make a session run ``/bin/true WORD``, and then execute itself."""
        fifo = self._in_containers.get(kind, self.directory) / _file(kind)
        descriptor: int = until(lambda: _opened(fifo), 30, f"{kind} to wait")
        try:
            os.write(descriptor, f"{word}\n".encode())
        finally:
            os.close(descriptor)

    # Starting the sessions

    def _add(self, kind: str, directory: Path | None = None) -> str:
        """Prepare a session, and return its command line as text for a shell."""
        self.kinds.append(kind)
        if directory is not None:
            self._in_containers[kind] = directory
        fifo = (directory or self.directory) / _file(kind)
        os.mkfifo(fifo)
        fifo.chmod(0o666)
        return shlex.join(self.command(kind))

    def _background(self, command: list[str], *, ends: bool = False) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if ends:
            self._ending.append(process)
        self._stack.callback(_ended, process)
        return process

    def _start_logins(self) -> None:
        home = self.directory / "sshd"
        home.mkdir(mode=0o700)
        sshd = Sshd(home, pam=True)
        self._stack.callback(sshd.stop)
        sshd.start()
        self._sshd = sshd
        tmux = Tmux(home)
        self._stack.callback(tmux.stop)
        screens = home / "screens"
        screens.mkdir(mode=0o700)
        for kind, command, terminal in (
            ("ssh with a terminal", "{}; :", True),
            ("ssh without a terminal", "{}; :", False),
            ("sudo", "sudo -n -u nobody {}", True),
            ("su", "su -s /bin/sh nobody -c {!r}", True),
        ):
            text = command.format(self._add(kind))
            self._background(sshd.command(text, terminal=terminal))
        for kind, command, terminal in (
            ("nohup", "nohup {} </dev/null >/dev/null 2>&1 &", False),
            ("tmux", f"{shlex.join(tmux.new_session(''))[:-2]}{{!r}}", True),
            ("screen", f"SCREENDIR={screens} screen -dmS older {{}}", True),
        ):
            text = f"{command.format(self._add(kind))}\nsleep 0.3"
            self._background(sshd.command(text, terminal=terminal), ends=True)
        text = self._add("console login")
        try:
            descriptor = os.open(CONSOLE, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            self._lacks("console login", f"needs {CONSOLE}: {error.strerror}")
        else:
            self._log_in_at(descriptor, text)

    def _log_in_at(self, console: int, text: str) -> None:
        self._stack.callback(os.close, console)
        os.set_blocking(console, True)
        login = subprocess.Popen(
            ["setsid", "-c", "login", "-f", "root"], stdin=console, stdout=console, stderr=console
        )
        self._stack.callback(_ended, login)
        until(lambda: _children(login.pid), 10, "a shell on the console")
        for byte in f"unset HISTFILE; {text}\n".encode():
            fcntl.ioctl(console, termios.TIOCSTI, bytes([byte]))

    def _start_others(self) -> None:
        self._start_cron()
        self.missing["at"] = "needs atd, of the package at"
        if shutil.which("atd") is not None:
            self.missing["at"] = "needs an atd that no other job uses"
        self.missing["service"] = "needs systemd as the host's init"
        manager = UserManager()
        self._stack.callback(manager.stop)
        manager.start()
        text = self._add("user service")
        manager.install("older.service", f"[Service]\nExecStart={text}\nUser=nobody\n")
        manager.systemctl("start", "older.service")
        double_fork = self._add("double fork")
        command = [sys.executable, "-c", _DOUBLE_FORK, *shlex.split(double_fork)]
        self._background(command, ends=True)
        pipeline = self._add("pipeline")
        # With job control the pipeline has a process group, led by its first process.
        self._background(["/bin/bash", "-c", f"set -m; {MARKER} | {pipeline}"])

    def _start_cron(self) -> None:
        if shutil.which("cron") is None or any(mark.exists() for mark in CRON_MARKS):
            self.missing["cron"] = "needs a host whose cron does not run"
            return
        text = self._add("cron")
        for path in (CRON_TABLE, *CRON_MARKS):
            self._stack.callback(path.unlink, missing_ok=True)
        CRON_TABLE.write_text(f"@reboot nobody {text}\n")
        self._background(["cron", "-f"])

    def _start_containers(self) -> None:
        home = self.directory / "containers"
        home.mkdir()
        runc = Runc(home)
        inside = runc.add(self._script)
        directory = runc.file_system / inside.strip("/").rpartition("/")[0]

        def prepare(kind: str, *, detached: bool = False) -> list[str]:
            self._add(kind, directory)
            identifier, command = runc.command(*self.command(kind), detached=detached)
            self._stack.callback(runc.remove, identifier)
            return command

        self._background(prepare("container"))
        self._background(prepare("container that was left", detached=True), ends=True)
        in_login = shlex.join(prepare("container in a login"))
        self._background(self._sshd.command(in_login))

    def _lacks(self, kind: str, reason: str) -> None:
        self.kinds.remove(kind)
        self.missing[kind] = reason


def _file(kind: str) -> str:
    return kind.replace(" ", "-")


def _opened(fifo: Path) -> int | None:
    """Return a descriptor that wakes a waiting reader; None without one."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def _children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def _ended(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
