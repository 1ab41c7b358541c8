"""The package on a clean system: installed, started, upgraded under load, removed.

``packaging/trial.sh`` runs it with the system as root directory, on the real kernel and under a
real service manager (``systemd --user``, which as root does nearly all that pid 1 does): python3
trial.py OLD.deb NEW.deb prints the steps, and exits with 1 at the first failure.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self

from support.manager import UserManager, adapted, version
from support.truth import until

NAME = "sessiond.service"
# From version 254 on a user's manager implements these with a user namespace, in which audit does
# not work.
SANDBOX = re.compile(
    "(Protect|Private|Restrict|SystemCall|Lock|MemoryDeny|NoNew|Keyring|IPAddress|RemoveIPC"
    "|CapabilityBounding|AmbientCap|SecureBits)"
)
LOCK = Path("/run/lock/sessiond-kernel.lock")  # the lock of the tests on the real kernel
CONFIGURATION = Path("/etc/sessiond.yml")
UNIT = Path("/usr/lib/systemd/system/sessiond.service")
# The package's scripts call the system's manager; here they must reach this one.
WRAPPER = Path("/usr/local/bin/systemctl")


def run(*command: str | Path, check: bool = True) -> str:
    """Run a command and return its output, including errors."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        check=False,
    )
    if check and done.returncode:
        raise SystemExit(f"FAILED: {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def expect(fact: object, what: str) -> None:
    """Print what holds; exit if it does not."""
    if not fact:
        raise SystemExit(f"FAILED: {what}")
    sys.stdout.write(f"ok: {what}\n")
    sys.stdout.flush()


def install(package: str) -> str:
    return run("apt-get", "install", "-y", "-q", "--no-install-recommends", "--allow-downgrades",
               "-o", "Dpkg::Options::=--force-confold", package)  # fmt: skip


class Load:
    """Starts programs, some 40 per second, each with a unique argument, until it is stopped."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._start_programs)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _start_programs(self) -> None:
        while not self._ended.is_set():
            token = f"load-{os.getpid()}-{len(self.tokens)}"
            subprocess.run(["/bin/true", token], check=True)
            self.tokens.append(token)
            time.sleep(0.02)


def events(file: Path) -> list[dict[str, Any]]:
    """Read the written events, without rotated files."""
    data = file.read_bytes()
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def executed(file: Path) -> Counter[str]:
    """Count the execs of programs with a token."""
    return Counter(
        event["process"]["args"][1]
        for event in events(file)
        if event["event"]["action"] == "exec"
        and len(event["process"].get("args", ())) == 2
        and event["process"]["args"][1].startswith("load-")
    )


def main(old: str, new: str) -> None:
    """Run all steps."""
    started = time.monotonic()
    install(old)
    seconds = time.monotonic() - started
    expect(Path("/usr/bin/sessiond").exists(), f"installed in {seconds:.0f} s")
    expect("sessiond" in run("id", "sessiond"), "the user is there")
    mode = CONFIGURATION.stat()
    expect(stat.S_IMODE(mode.st_mode) == 0o640 and mode.st_gid != 0, "its group reads the settings")
    expect(run("systemctl", "is-enabled", NAME) == "enabled\n", "the service is enabled")
    expect("rules: " in run("sessiond", "check"), "sessiond check passes")
    before = run("sessiond", "--version")

    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        manager = UserManager()
        try:
            manager.start()
            _under_the_manager(manager, old, new, before)
        finally:
            manager.stop()
            WRAPPER.unlink(missing_ok=True)

    # As `systemctl enable` does, of which Debian's helper does not know.
    timer = Path("/etc/systemd/system/timers.target.wants/sessiond-metrics.timer")
    timer.parent.mkdir(exist_ok=True)
    timer.symlink_to("/lib/systemd/system/sessiond-metrics.timer")
    run("apt-get", "remove", "-y", "-q", "sessiond")
    expect(not Path("/usr/lib/sessiond").exists(), "removed: nothing is left of the program")
    expect(CONFIGURATION.exists(), "removed: the configuration stays")
    Path("/var/log/sessiond").mkdir(exist_ok=True)
    run("apt-get", "purge", "-y", "-q", "sessiond")
    left = run("find", "/etc", "/usr", "/var", "-name", "*sessiond*")
    expect(left == "", f"purged: nothing is left{left and ' but ' + left}")


def _under_the_manager(manager: UserManager, old: str, new: str, before: str) -> None:
    output = manager.logs / "sessiond/events.ndjson"
    log = manager.directory / "log"
    settings = (
        f"output: {{file: {{path: {output}}}}}\n"
        f"state_directory: {manager.state}/sessiond\n"
        f"runtime_directory: {manager.runtime}/sessiond\n"
    )
    CONFIGURATION.write_text(settings)
    environment = {"XDG_RUNTIME_DIR": manager.runtime, "XDG_CONFIG_HOME": manager.state,
                   "SYSTEMD_UNIT_PATH": manager.units}  # fmt: skip
    exported = "".join(f"export {name}={value}\n" for name, value in environment.items())
    WRAPPER.write_text(
        f"#!/bin/sh\n{exported}"
        'for word; do shift; [ "$word" = --system ] || set -- "$@" "$word"; done\n'
        'exec /usr/bin/systemctl --user "$@"\n'
    )
    WRAPPER.chmod(0o755)

    def unit(user: str = "root") -> None:
        """Return the packaged unit, with its log in a file.

        This manager reports a pending restart only to root, which decides what is kept; the
        system's manager reports it to every user, over D-Bus.
        """
        lines = f"[Service]\nStandardOutput=append:{log}\nStandardError=append:{log}\n"
        text = adapted(UNIT.read_text(), {"User": user, "Group": user})
        if version() > 253:
            text = "\n".join(line for line in text.split("\n") if not SANDBOX.match(line))
        manager.install(NAME, text.replace("[Service]\n", lines))

    # Only up to version 253 does a user's manager give directories to another user.
    for user in ("root",) if version() > 253 else ("sessiond", "root"):
        unit(user)
        manager.systemctl("start", NAME, check=False)
        state = manager.show(NAME, "ActiveState")
        expect(state == "active", f"started as {user}; its log:\n{log.read_text()[-600:]}")
        status = run("sessiond", "status", check=False)
        expect("state  healthy" in status, "it is healthy")
        if user == "sessiond":
            manager.systemctl("stop", NAME)
            output.unlink()
    pid = manager.show(NAME, "MainPID")
    with Load() as load:
        until(lambda: len(executed(output)) > 20, 20, "events")
        expect(True, "programs are told")
        run("dpkg", "--unpack", new)
        unit()
        run("dpkg", "--configure", "sessiond")
        until(lambda: manager.show(NAME, "MainPID") != pid, 30, "a restart by the package")
        until(lambda: manager.show(NAME, "ActiveState") == "active", 30, "the new daemon")
        expect(run("sessiond", "--version") != before, "upgraded under load")
        time.sleep(3)
    until(lambda: load.tokens[-1] in executed(output), 30, "the last event")
    time.sleep(2)
    counted = executed(output)
    expect(CONFIGURATION.read_text() == settings, "the changed configuration is kept")
    wrong = {token: counted[token] for token in load.tokens if counted[token] != 1}
    if wrong:
        sys.stdout.write(f"{wrong}\n{log.read_text()}\n")
    expect(not wrong, f"each of {len(load.tokens)} programs is told once, none is lost")
    gaps = [event for event in events(output) if event["event"]["action"] == "sessiond-lost"]
    expect(not gaps, "nothing is told as lost")
    pid = manager.show(NAME, "MainPID")
    run("dpkg", "--force-confold", "--install", old)
    until(lambda: manager.show(NAME, "MainPID") != pid, 30, "a restart by the package")
    expect(run("sessiond", "--version") == before, "downgraded")
    manager.systemctl("stop", NAME)


if __name__ == "__main__":
    main(*sys.argv[1:])
