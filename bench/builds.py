"""The measured builds of sessiond: a copy of the source, and the compiled modules."""

from __future__ import annotations

import compileall
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.host import BenchError

ROOT: Final = Path(__file__).resolve().parent.parent
_KEPT: Final = ROOT / "bench" / "build"


def plain(directory: Path) -> Path:
    """Copy the source to ``directory``, so that it can't change meanwhile; return the copy."""
    shutil.copytree(
        ROOT / "sessiond",
        directory / "sessiond",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
    )
    compileall.compile_dir(directory / "sessiond", quiet=2)
    return directory


def compiled() -> Path | None:
    """Return the directory of a compiled build of this source, None if there is none."""
    directory = _KEPT / _fingerprint()
    return directory if directory.exists() else None


def build() -> Path:
    """Compile this source with mypyc, in about a minute; remove builds of other sources.

    Raises BenchError if that is impossible.
    """
    made = compiled()
    if made:
        return made
    directory = _KEPT / _fingerprint()
    work = _KEPT / "work"
    shutil.rmtree(_KEPT, ignore_errors=True)
    work.mkdir(parents=True)
    plain(work)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, work)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-lib", str(work / "lib")],
        cwd=work,
        env={**os.environ, "SESSIOND_COMPILE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not is_compiled(work / "lib"):
        said = (done.stderr.strip() or "mypyc is not installed").splitlines()[-1]
        raise BenchError(f"can't compile: {said}")
    compileall.compile_dir(work / "lib" / "sessiond", quiet=2)
    (work / "lib").rename(directory)
    shutil.rmtree(work)
    return directory


def _fingerprint() -> str:
    digest = hashlib.sha256((ROOT / "setup.py").read_bytes())
    for file in sorted((ROOT / "sessiond").rglob("*")):
        if file.is_file() and file.suffix not in (".so", ".pyc"):
            digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def is_compiled(packages: Path) -> bool:
    """Return whether the package sessiond in ``packages`` is a compiled one."""
    return bool(list(packages.glob("sessiond/pipeline/pipeline*.so")))


def commit() -> str | None:
    """Return the git commit of the source, with "+" if the source was changed; None without git."""
    try:
        name = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "sessiond", "setup.py"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return name.stdout.strip() + ("+" if changed.stdout else "")
