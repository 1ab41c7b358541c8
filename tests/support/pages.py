"""A new user's first session: the commands of integrations/README.md, as they are there.

``packaging/trial.sh --pages`` runs it on a clean system, on the real kernel. The service manager is
``systemd --user``, which has the directories of the system's manager here. It prints the commands
with their output and the seconds that each section has taken.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from support.manager import UserManager

LOCK = Path("/run/lock/sessiond-kernel.lock")  # the lock of the tests on the real kernel
PAGE = Path("README.md")
SECTIONS = ("From a fresh Debian to the tree of a session", "One host, without a server")
LIMIT = 600  # seconds
EXAMPLE = "lOcVr6UYKV_j9tnoaonUD00F"
SYSTEMCTL = Path("/usr/local/bin/systemctl")
# systemctl finds the manager at its usual socket; only which packages are enabled it does not know.
WRAPPER = """#!/bin/sh
case "$*" in *is-enabled*) exec env -u SYSTEMD_UNIT_PATH /usr/bin/systemctl --root=/ "$@" ;; esac
exec /usr/bin/systemctl "$@"
"""
# apt hides /usr/local from the packages.
APT = f"""
APT::Get::Assume-Yes "true";
DPkg::Path "{SYSTEMCTL.parent}:/usr/sbin:/usr/bin:/sbin:/bin";
"""


class SystemManager(UserManager):
    """A user's manager with the directories and the units of the system's manager."""

    def __init__(self) -> None:
        super().__init__()
        self.runtime = Path("/run")
        self.environment = {
            "XDG_RUNTIME_DIR": "/run",
            "XDG_CONFIG_HOME": "/var/lib",
            "SYSTEMD_UNIT_PATH": f"{self.units}:/usr/lib/systemd/system",
        }
        self._environment.update(self.environment)
        Path("/var/lib/log").symlink_to("/var/log")
        # No journal runs here.
        self.journal = self.directory / "journal"
        (self.units / "service.d").mkdir()
        (self.units / "service.d" / "log.conf").write_text(
            f"[Service]\nStandardOutput=append:{self.journal}\nStandardError=append:{self.journal}\n"
        )


def commands(page: str, section: str) -> str:
    """Return the commands of a section of a page."""
    text = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))


def run(script: str) -> str:
    """Print and return the commands of a script with their output; exit with 1 if one fails."""
    try:
        return _run(script)
    except subprocess.CalledProcessError as error:
        sys.stdout.write(error.stdout)
        raise SystemExit(f"FAILED with {error.returncode}") from None
    except subprocess.TimeoutExpired as error:
        sys.stdout.write((error.stdout or b"").decode())
        raise SystemExit(f"FAILED: more than {LIMIT} s") from None


def _run(script: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"PS4='+ ${{SECONDS}}s: '\nset -x\n{script}"],
        cwd="/root",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    sys.stdout.write(done.stdout)
    return done.stdout


def first_session() -> None:
    """Follow the page; exit with 1 if a command fails, a tree is wrong or it takes too long."""
    page = PAGE.read_text("utf-8")
    started = time.monotonic()
    session = EXAMPLE
    for section in SECTIONS:
        output = run(commands(page, section).replace(EXAMPLE, session))
        seconds = time.monotonic() - started
        tree = output.rpartition("\n+ ")[2]
        if not re.search(r"[ ─]id\b", tree) or seconds > LIMIT:
            raise SystemExit(f"FAILED: {section}, after {seconds:.0f} s")
        sys.stdout.write(f"ok: {section}, after {seconds:.0f} s\n")
        if session == EXAMPLE:
            session = re.findall(r"session=(\S{24})$", output, re.MULTILINE)[0]


def main() -> None:
    """Prepare the system, follow the page, and end what it started."""
    Path("/etc/apt/apt.conf.d/99trial").write_text(APT)
    SYSTEMCTL.write_text(WRAPPER)
    SYSTEMCTL.chmod(0o755)
    manager = SystemManager()
    os.environ.update(manager.environment, DEBIAN_FRONTEND="noninteractive")
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        manager.start()
        try:
            first_session()
        finally:
            sys.stdout.write(f"services:\n{manager.journal.read_text()}")
            for service in ("rsyslog", "opensearch", "sessiond"):
                manager.systemctl("stop", service, check=False)
            manager.stop()


if __name__ == "__main__":
    main()
