"""Performs actions on the real kernel beside a running daemon; see stage.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from support import stage
from support.containers import Runc

Document = dict[str, Any]

# The records of these rules belong to an action, whatever file system it sees.
_PLAYED = f"-a always,exit -F arch=b64 -F auid={stage.LOGIN_UID}"
RULES = f"""
-a always,exit -F arch=b64 -S execve,execveat -k exec
-a always,exit -F arch=b64 -S exit_group -k exit
{_PLAYED} -S openat,open,creat,rename,unlink,chmod,chown -k file
{_PLAYED} -S connect,socket,prctl,kill,init_module,mprotect -k call
"""


def _actor(directory: Path) -> Path:
    source, actor = Path(stage.__file__).with_name("actor.c"), directory / "actor"
    subprocess.run(["cc", "-O2", "-static", "-Wall", "-Werror", "-o", actor, source], check=True)
    return actor


def play(directory: Path, behaviours: list[dict[str, Any]]) -> dict[str, int]:
    """Perform actions, and return the pid of the session leader of each, by its id.

    Actions with ``container`` run in one, by runc: they are its only processes.
    """
    directory.mkdir()
    actor = _actor(directory)
    work, plays = directory / "work", directory / "plays.json"
    work.mkdir()
    outside = [each for each in behaviours if not each.get("container")]
    plays.write_text(json.dumps(outside))
    reader, writer = os.pipe()
    command = ["unshare", "--mount", "--propagation", "private", "/usr/bin/python3"]
    command += [stage.__file__, str(work), str(actor), str(plays), str(writer)]
    with subprocess.Popen(command, pass_fds=[writer]) as playing:
        os.close(writer)
        with os.fdopen(reader) as told:
            pids = dict(json.loads(line) for line in told)
    assert playing.returncode == 0
    assert len(pids) == len(outside)
    return pids


def play_in_containers(directory: Path, behaviours: list[dict[str, Any]]) -> dict[str, str]:
    """Perform each action with ``container`` in a container; return the containers' ids."""
    runc, found = Runc(directory), {}
    actor = _actor(directory)
    for behaviour in behaviours:
        for program in stage.programs(behaviour["do"]):
            path = directory / "rootfs" / program["run"].lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(actor, path)
        first = runc.add(actor)
        steps = stage.encode(behaviour["do"])
        found[behaviour["id"]] = runc.run("/bin/busybox", "env", f"PLAY={steps}", first)
    return found
