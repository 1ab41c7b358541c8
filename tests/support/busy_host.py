"""An hour of a busy host, really run, in well under a minute.

Cron's jobs of every minute, a monitoring agent whose script has 40 children a minute, health checks
in a container, a build, and two people who are logged in by ssh.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from support.containers import Runc
from support.control_groups import ControlGroups, as_user
from support.logins import Sshd

MINUTES, CHILDREN = 60, 40
PROBES = 360  # every 10 seconds
SOURCES = 250
# Accounts of services, which Debian has.
AGENT, BUILDER = 1, 34
ADDRESSES = ("127.0.0.2", "127.0.0.3")

_CRON_TABLE = Path("/etc/cron.d/sessiond-busy")
_CRON_MARKS = (Path("/run/crond.reboot"), Path("/run/crond.pid"))
_CHECK = f"for n in $(seq {CHILDREN}); do /usr/bin/test -e /proc/$n; done"
# What the noise runs as well, and what only people do.
_SESSION = """
id -un; uptime; ls /; /usr/bin/test -e /; cat /etc/hostname; ps -e
su -s /bin/sh nobody -c 'id; /bin/true {person}'
/bin/sh -c 'for n in 1 2 3; do /bin/true $n; done'
/bin/true {person} leaves
"""


def why_not() -> str | None:
    """Say why it can't be run on this host; None when it can."""
    for program in ("cron", "runc", "gcc", "make", "busybox", "setpriv"):
        if shutil.which(program) is None:
            return f"needs {program}"
    if any(mark.exists() for mark in _CRON_MARKS):
        return "needs a host whose cron does not run"
    return None


class BusyHost:
    """The host's programs and files; ``hour`` lets it be busy, as often as wanted."""

    def __init__(self, runc: Runc, sshd: Sshd, groups: ControlGroups) -> None:
        self._runc, self._sshd, self._groups = runc, sshd, groups
        self._directory = Path(tempfile.mkdtemp(prefix="sessiond-busy-", dir="/var/tmp"))
        self._directory.chmod(0o755)
        self._check = self._script("check.sh", _CHECK)
        self._job = self._script("sa1.sh", "date +%s; hostname")
        minutes = f"for minute in $(seq {MINUTES})"
        agent = self._script("agent.sh", f"{minutes}; do /bin/sh {self._check}; done")
        self._agent = self._service("zabbix-agent", AGENT, "/bin/sh", str(agent))
        self._build = self._service("buildkite-agent", BUILDER, "make", "-C", str(self._sources()))
        container, run = runc.command("/bin/sleep", "1000", detached=True)
        self._container = container
        # Without pipes: the container's process would keep them open.
        nothing = subprocess.DEVNULL
        subprocess.run(run, stdin=nothing, stdout=nothing, stderr=nothing, check=True)
        probe = f"runc --root {runc.directory}/state exec {container} /bin/true /healthz"
        engine = self._script("engine.sh", f"for probe in $(seq {PROBES}); do {probe}; done")
        self._engine = self._service("containerd", 0, "/bin/sh", str(engine))

    def hour(self) -> float:
        """Let it be busy for an hour; return how many seconds that really took."""
        began = time.monotonic()
        line = f"@reboot root /bin/sh {self._job} >/dev/null\n"
        _CRON_TABLE.write_text(line * MINUTES)
        cron = subprocess.Popen(["cron", "-f"], start_new_session=True)
        shutil.rmtree(self._directory / "build/out", ignore_errors=True)
        running = [self._start(each) for each in (self._agent, self._build, self._engine)]
        people = [self._start(self._person(each)) for each in ADDRESSES]
        try:
            assert [each.wait(120) for each in (*running, *people)] == [0] * 5
        finally:
            cron.terminate()
            cron.wait(10)
            for path in (_CRON_TABLE, *_CRON_MARKS):
                path.unlink(missing_ok=True)
        return time.monotonic() - began

    def remove(self) -> None:
        """End the container, and remove the files."""
        self._runc.remove(self._container)
        shutil.rmtree(self._directory)

    def _person(self, address: str) -> list[str]:
        session = _SESSION.format(person=f"person-{address}").strip().replace("\n", "; ")
        return self._sshd.command(session, terminal=True, address=address)

    def _script(self, name: str, text: str) -> Path:
        path = self._directory / name
        path.write_text(text + "\n")
        return path

    def _sources(self) -> Path:
        """Make a project of many small files, all of which are compiled."""
        project = self._directory / "build"
        project.mkdir()
        shutil.chown(project, BUILDER, BUILDER)
        for number in range(SOURCES):
            (project / f"f{number}.c").write_text(f"int f{number}(void) {{ return {number}; }}\n")
        objects = " ".join(f"out/f{number}.o" for number in range(SOURCES))
        (project / "Makefile").write_text(
            f"all: {objects}\nout/%.o: %.c\n\t@mkdir -p out\n\t@gcc -c -o $@ $<\n"
        )
        return project

    def _service(self, name: str, uid: int, *command: str) -> list[str]:
        """Return the command that runs a service in a unit of its own."""
        unit = self._groups.make(f"/system.slice/{name}.service")
        return self._groups.inside(unit, *(as_user(uid, command) if uid else command))

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
