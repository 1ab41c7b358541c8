"""A real service manager: ``systemd --user``, which as root does nearly all that pid 1 does."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from support.truth import until

SYSTEMD = Path("/lib/systemd/systemd")
UNITS = Path("/usr/lib/systemd/user")
# Without this directory systemctl assumes that systemd is not running, see sd_booted(3).
BOOTED = Path("/run/systemd/system")
# pid 1 creates this for ProtectHome= and the like; a manager of root looks for it there, too.
INACCESSIBLE = Path("/run/systemd/inaccessible")
# The mounts of a service are built here; the first start creates it.
UNIT_ROOT = Path("/run/systemd/unit-root")
PROJECT = Path(__file__).parents[2]
UNIT = PROJECT / "packaging/systemd/sessiond.service"


CGROUPS = Path("/sys/fs/cgroup")
# A manager owns the control group that it is started in, and everything in it.
_INTO_CGROUPS = """
for group; do echo $$ >"$group/cgroup.procs" || exit; done
exec "$0" --user --log-target=console
"""


def version() -> int:
    """Return the version of systemd."""
    done = subprocess.run([SYSTEMD, "--version"], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[1])


class UserManager:
    """A manager with its own directories, and only the units that are installed here.

    The directories are below /var/lib, because PrivateTmp= hides the usual directories of
    tests. If /run is not a mount point, as in a container, services with ProtectProc= get an
    empty one.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sessiond-manager-", dir="/var/lib"))
        # Services of other users need access to their runtime and notification sockets.
        self.directory.chmod(0o711)
        self.units = self.directory / "units"
        # The places of RuntimeDirectory=, StateDirectory=, CacheDirectory= and LogsDirectory= of a
        # user's manager.
        self.runtime = self.directory / "run"
        # Up to version 253 a user's manager keeps state beside the configuration.
        self.state = self.directory / ("state" if version() > 253 else "config")
        self.cache = self.directory / "cache"
        self.logs = self.state / "log"
        for made in (self.units, self.runtime, self.cache, self.logs):
            made.mkdir(mode=0o711, parents=True)
        self._log = self.directory / "manager.log"
        self._cgroups: list[Path] = []
        self._undo: list[Callable[[], None]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {
            **os.environ,
            "HOME": str(self.directory),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_CONFIG_HOME": str(self.directory / "config"),
            "XDG_STATE_HOME": str(self.directory / "state"),
            "XDG_CACHE_HOME": str(self.cache),
            "SYSTEMD_UNIT_PATH": str(self.units),
        }

    def start(self) -> None:
        """Start the manager and wait until it answers."""
        hierarchies = [CGROUPS, CGROUPS / "unified", CGROUPS / "systemd"]
        for hierarchy in hierarchies:
            if (hierarchy / "cgroup.procs").exists():
                self._cgroups.append(hierarchy / self.directory.name)
                self._cgroups[-1].mkdir()
        for name in ("basic.target", "shutdown.target", "exit.target", "systemd-exit.service"):
            (self.units / name).symlink_to(UNITS / name)
        (self.units / "default.target").write_text("[Unit]\nDescription=Nothing\n")
        if not BOOTED.exists():
            BOOTED.mkdir(parents=True)
            self._undo.append(BOOTED.rmdir)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _INTO_CGROUPS, SYSTEMD, *map(str, self._cgroups)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until((self.runtime / "systemd/private").exists, 10, "the manager's socket")
        # As pid 1's socket is: services of other users write to it.
        (self.runtime / "systemd/notify").chmod(0o777)
        if not UNIT_ROOT.exists():
            self._undo.append(lambda: UNIT_ROOT.rmdir() if UNIT_ROOT.exists() else None)
        if not INACCESSIBLE.exists():
            INACCESSIBLE.symlink_to(self.runtime / "systemd/inaccessible")
            self._undo.append(INACCESSIBLE.unlink)
        until(
            lambda: self.systemctl("is-system-running", check=False) == "running",
            10,
            f"a running manager: {self._log.read_text()[-2000:]}",
        )

    def stop(self) -> None:
        """Stop the manager, its services, and remove its files."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for undo in self._undo:
            undo()
        for group in CGROUPS.glob(f"**/{self.directory.name}"):
            for below in sorted(group.glob("**/"), reverse=True):
                below.rmdir()
        shutil.rmtree(self.directory)

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """Run ``systemctl --user`` and return its output."""
        done = subprocess.run(
            ["systemctl", "--user", "--no-pager", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0 or not check, f"{done.stderr}\n{self.log()[-4000:]}"
        return done.stdout.strip()

    def show(self, unit: str, name: str) -> str:
        """Return the value of a unit's property."""
        return self.systemctl("show", unit, f"--property={name}", "--value")

    def log(self) -> str:
        """Return the manager's own log."""
        return self._log.read_text(errors="replace")

    def install(self, name: str, text: str) -> None:
        """Write a unit file and reload the manager."""
        (self.units / name).write_text(text)
        self.systemctl("daemon-reload")


def strict_drop_in() -> str:
    """Return the settings of the strict drop-in in docs/operations.md."""
    text = (PROJECT / "docs/operations.md").read_text()
    block = r"```ini\n# [^\n]*/strict\.conf\n\[Service\]\n(.*?)```"
    (found,) = re.findall(block, text, re.DOTALL)
    return str(found)


def adapted(unit: str, settings: Mapping[str, str | None]) -> str:
    """Return the text of a unit with changed settings; None removes one.

    Raises KeyError for a setting that the unit lacks, so that every change has an effect.
    """
    for name, given in settings.items():
        line = re.compile(rf"^{re.escape(name)}=.*\n", re.MULTILINE)
        if not line.search(unit):
            raise KeyError(name)
        unit = line.sub("" if given is None else f"{name}={given}\n", unit, count=1)
        if given is None:
            unit = line.sub("", unit)
    return unit


def service(command: str, log: Path, **settings: str | None) -> str:
    """Return the shipped unit as a service of these tests: other program, user and log.

    Everything else is as shipped, in particular the sandbox and the capabilities, except that
    the sandbox must not hide this checkout.
    """
    changed: dict[str, str | None] = {"ExecStart": command, "User": "nobody", "Group": "nogroup"}
    if PROJECT.is_relative_to("/home") or PROJECT.is_relative_to("/root"):
        changed["ProtectHome"] = "no"
    if PROJECT.is_relative_to("/tmp") or PROJECT.is_relative_to("/var/tmp"):
        changed["PrivateTmp"] = "no"
    text = adapted(UNIT.read_text(), {**changed, **settings})
    return text.replace(
        "[Service]\n", f"[Service]\nStandardOutput=append:{log}\nStandardError=append:{log}\n"
    )
