"""Real logins: sshd on the loopback interface, tmux."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from support.truth import until

SSHD = Path("/usr/sbin/sshd")
PRIVILEGE_SEPARATION = Path("/run/sshd")

_CONFIG = """\
ListenAddress 0.0.0.0:{port}
ListenAddress [::1]:{port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/user_key.pub
PidFile none
PermitRootLogin yes
PasswordAuthentication no
StrictModes no
UsePAM {pam}
{more}
"""
# Bash then reads no start-up files, which differ from host to host.
NO_STARTUP_FILES = "SetEnv SHLVL=2"


class Sshd:
    """An sshd that accepts the user of the tests, with its own keys and port.

    With ``pam`` a login has its own audit session; ``more`` is a line of its configuration. It
    runs as ``user``, and accepts this user.
    """

    def __init__(
        self, directory: Path, *, pam: bool = False, more: str = "", user: str = "root"
    ) -> None:
        self.directory = directory
        self._user = user
        self._more = more
        self._pam = "yes" if pam else "no"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._made_separation = False

    @property
    def pid(self) -> int:
        """The pid of the listening sshd."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Create keys and configuration, start it, and wait until it accepts connections."""
        for name in ("host_key", "user_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.directory / name],
                check=True,
            )
            shutil.chown(self.directory / name, self._user)
        config = self.directory / "sshd_config"
        config.write_text(
            _CONFIG.format(port=self.port, directory=self.directory, pam=self._pam, more=self._more)
        )
        self._made_separation = not PRIVILEGE_SEPARATION.exists()
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        log = self.directory / "sshd.log"
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", config],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                **({} if self._user == "root" else as_user(self._user)),
            )
        until(lambda: "Server listening" in log.read_text(), 10, "a listening sshd")

    def stop(self) -> None:
        """Stop it, with all open logins."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
        if self._made_separation:
            PRIVILEGE_SEPARATION.rmdir()

    def command(
        self, command: str, *, terminal: bool = False, address: str = "127.0.0.1"
    ) -> list[str]:
        """Return the ssh command line that runs ``command``, with a terminal if wanted.

        ``address`` is one of this host: the connection's source and destination.
        """
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        return [
            "ssh",
            *(["-tt"] if terminal else []),
            *(f"-o{option}" for option in options),
            *("-F", "none", "-i", str(self.directory / "user_key"), "-p", str(self.port)),
            *("-b", address, f"{self._user}@{address}", command),
        ]

    def login(self, command: str, *, terminal: bool = False, address: str = "127.0.0.1") -> str:
        """Log in, run ``command`` in the login shell, and return its output."""
        done = subprocess.run(
            self.command(command, terminal=terminal, address=address),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def as_user(name: str) -> dict[str, Any]:
    """Return the options of Popen with which a program runs as a user, without other groups."""
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


class Tmux:
    """A tmux server with its own socket."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "tmux.sock"

    def command(self, *arguments: str) -> list[str]:
        """Return the tmux command line for this server."""
        return ["tmux", "-S", str(self.socket), "-f", "/dev/null", *arguments]

    def new_session(self, command: str) -> list[str]:
        """Return the command line that runs ``command`` in a new session in the background."""
        return self.command("new-session", "-d", "-x", "80", "-y", "24", command)

    def run(self, command: str) -> None:
        """Run ``command`` in a new session of the server, and start the server if necessary."""
        subprocess.run(self.new_session(command), stdin=subprocess.DEVNULL, check=True, timeout=10)

    def pid(self) -> int | None:
        """Return the server's pid; None if it does not run."""
        asked = subprocess.run(
            self.command("display-message", "-p", "#{pid}"),
            capture_output=True,
            text=True,
            check=False,
        )
        return int(asked.stdout) if asked.returncode == 0 and asked.stdout.strip() else None

    def stop(self) -> None:
        """Stop the server and everything in it."""
        pid = self.pid()
        subprocess.run(self.command("kill-server"), capture_output=True, check=False)
        if pid is not None:
            until(lambda: not _alive(pid), 10, "the end of the tmux server")


def quoted(command: list[str]) -> str:
    """Return a command line, quoted for a shell."""
    return shlex.join(command)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
