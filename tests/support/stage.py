"""Performs actions with real processes, in a private copy of the file system.

An action is a list of steps: {"run": EXECUTABLE, "args": [...], "do": [steps of that process]},
with ``cwd``, ``env``, ``user`` and ``group`` (ids), ``setuid`` or ``capability`` (a number) of its
file, ``real`` for the host's own program; or one operation, such as {"create": PATH}. Every other
executable is a copy of tests/support/actor.c, which performs only its steps, so that no action does
harm. ``python3 stage.py WORK ACTOR PLAYS PIDS`` runs as root in its own mount namespace: WORK is an
empty directory, PLAYS a file of JSON, PIDS a descriptor that gets a line of JSON for each (id,
session leader's pid). It needs only the standard library, because it runs in the copy.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

LOGIN_UID = 4242  # audit rules select the actions by this
ACTOR = "/.actor"
_FILES = ("create", "open", "delete", "chmod", "chown", "rename")

Step = dict[str, Any]


def encode(steps: list[Step]) -> str:
    """Encode steps for the actor."""
    return "".join("".join(word + "\x1f" for word in words) + "\x1e" for words in _flat(steps))


def _flat(steps: list[Step]) -> list[list[str]]:
    found = []
    for step in steps:
        if "run" not in step:
            found.append([word for item in step.items() for word in item])
            continue
        below = _flat(step.get("do", []))
        ids = [str(step.get(name, 0)) for name in ("user", "group")]
        start = ["run", str(len(below)), step["run"], step.get("cwd", "/"), *ids]
        found.append([*start, *step.get("env", []), "--", *step["args"]])
        found += below
    return found


def programs(steps: list[Step]) -> list[Step]:
    """Yield every program of an action."""
    below = [each for step in steps for each in programs(step.get("do", []))]
    return [step for step in steps if "run" in step] + below


def _acts(steps: list[Step]) -> list[tuple[str, str]]:
    below = [each for step in steps for each in _acts(step.get("do", []))]
    return [item for step in steps if "run" not in step for item in step.items()] + below


def _enter(work: str) -> None:
    """Mount a copy of the file system over the host's, and enter it."""
    tree = f"{work}/root"
    script = f"""
        mount -t tmpfs -o mode=0755 stage {work} && cd {work} && mkdir up work root
        mount -t overlay -o lowerdir=/,upperdir=up,workdir=work stage root
        for each in proc dev sys; do mount --rbind /$each {tree}/$each; done
        for each in dev/shm run tmp; do mount -t tmpfs stage {tree}/$each; done
        chmod 1777 {tree}/tmp && mkdir {tree}/.host && pivot_root {tree} {tree}/.host
    """
    subprocess.run(["sh", "-euc", script], check=True)
    os.chdir("/")


def _directory(path: Path) -> None:
    """Create a directory and its parents, replacing other files."""
    for each in [*reversed(path.parents), path]:
        if os.path.lexists(each) and not each.is_dir():
            each.unlink()
        each.mkdir(exist_ok=True)


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _set(steps: list[Step]) -> None:
    """Create the programs and files of an action."""
    for program in programs(steps):
        if "cwd" in program:
            _directory(Path(program["cwd"]))
            Path(program["cwd"]).chmod(0o777)
    for program in programs(steps):
        path = Path(program["run"])
        if program.get("real"):
            continue
        _directory(path.parent)
        _clear(path)
        if not {"setuid", "capability"} & set(program):
            with suppress(OSError):  # on another file system a copy is used
                os.link(ACTOR, path)
                continue
        shutil.copy(ACTOR, path)
        path.chmod(0o4755 if program.get("setuid") else 0o755)
        if "capability" in program:  # permitted and effective: VFS_CAP_REVISION_2 of capability.h
            value = struct.pack("<5I", 0x02000001, 1 << program["capability"], 0, 0, 0)
            os.setxattr(path, "security.capability", value)
    for act, name in _acts(steps):
        if act not in _FILES:
            continue
        path = Path(name)
        _directory(path.parent)
        path.parent.chmod(0o777)
        _clear(path)
        if act == "rename":
            Path(f"{path}.new").touch()
        elif act != "create":
            path.touch()
            path.chmod(0o666)


def _play(steps: list[Step], *, terminal: bool) -> int:
    """Run an action in a separate session and return the leader's pid."""
    environment = {"PLAY": encode(steps)}
    if terminal:
        pid, master = pty.fork()
        if pid == 0:
            os.execve(ACTOR, ["actor"], environment)
        _, status = os.waitpid(pid, 0)
        os.close(master)
    else:
        played = subprocess.Popen([ACTOR], env=environment, start_new_session=True)
        pid, status = played.pid, played.wait()
    if status:
        sys.exit(f"did not play: {steps}")
    return pid


def main(work: str, actor: str, plays: str, pids: str) -> None:
    """Perform all actions."""
    behaviours = json.loads(Path(plays).read_text("utf-8"))
    program = Path(actor).read_bytes()
    _enter(work)
    subprocess.run(["umount", "-l", "/.host"], check=True)
    Path(ACTOR).write_bytes(program)
    Path(ACTOR).chmod(0o755)
    Path("/proc/self/loginuid").write_text(str(LOGIN_UID))
    # The host's own programs come first: actors with their names replace them later.
    behaviours.sort(key=lambda each: not any("real" in one for one in programs(each["do"])))
    with os.fdopen(int(pids), "w") as told:
        for behaviour in behaviours:
            _set(behaviour["do"])
            pid = _play(behaviour["do"], terminal=behaviour.get("terminal", False))
            told.write(json.dumps([behaviour["id"], pid]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
