"""Real containers: runc with a root file system made from busybox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path

BUSYBOX = Path("/bin/busybox")


class Runc:
    """Runs containers whose bundles and state are in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._root = directory / "state"
        self.file_system = directory / "rootfs"
        for name in ("bin", "proc", "sys", "dev", "tmp"):
            (self.file_system / name).mkdir(parents=True)
        shutil.copy2(BUSYBOX, self.file_system / "bin/busybox")
        for applet in ("sh", "true", "sleep", "cat", "echo", "setsid"):
            os.symlink("busybox", self.file_system / "bin" / applet)

    def add(self, program: Path) -> str:
        """Copy a static program into the containers' /bin; return its path there."""
        shutil.copy2(program, self.file_system / "bin" / program.name)
        return f"/bin/{program.name}"

    def run(self, *command: str) -> str:
        """Run a command in a new container to its end, and return the container's id.

        Raises CalledProcessError if it fails.
        """
        identifier, run = self.command(*command)
        try:
            subprocess.run(
                run, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60
            )
        finally:
            shutil.rmtree(self.directory / identifier)
        return identifier

    def command(self, *command: str, detached: bool = False) -> tuple[str, list[str]]:
        """Prepare a container; return its id and the command line that runs it.

        ``detached``: runc exits once the command runs.
        """
        identifier = uuid.uuid4().hex * 2  # 64 hex digits, as engines use
        bundle = self.directory / identifier
        bundle.mkdir()
        subprocess.run(["runc", "spec"], cwd=bundle, check=True)
        path = bundle / "config.json"
        spec = json.loads(path.read_text())
        spec["process"]["terminal"] = False
        spec["process"]["args"] = list(command)
        spec["root"] = {"path": str(self.file_system), "readonly": False}
        path.write_text(json.dumps(spec))
        run = ["runc", "--root", str(self._root), "run", *(["--detach"] if detached else [])]
        return identifier, [*run, "--bundle", str(bundle), identifier]

    def remove(self, identifier: str) -> None:
        """Remove a container that may still run."""
        subprocess.run(
            ["runc", "--root", self._root, "delete", "--force", identifier],
            capture_output=True,
            check=True,
            timeout=30,
        )
