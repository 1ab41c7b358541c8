"""Keys in files: of systemd's credentials, or readable by their owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from sessiond.errors import ConfigError

MAX_KEY: Final = 4096  # bytes


def credential(name: str) -> Path | None:
    """Return the file of a credential that systemd gave to this service, None without one.

    See systemd.exec(5), LoadCredential=.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(directory) / name if directory else None
    return path if path is not None and path.exists() else None


def read_key(setting: str, path: Path, *, least: int) -> bytes:
    """Read a key of at least ``least`` bytes. Raises ConfigError, which names the setting."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            key = file.read(MAX_KEY)
    except FileNotFoundError:
        fix = "make a key with sessiond verify --new-key, or name the file that has it"
        raise ConfigError(f"{setting}: {path}: there is no such file; {fix}") from None
    except OSError as error:
        raise ConfigError(f"{setting}: {path}: {error.strerror}") from None
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o077:
        raise ConfigError(
            f"{setting}: {path}: others may read or change it; fix: chown root, chmod 0600"
        )
    if not stat.S_ISREG(status.st_mode) or len(key) < least:
        raise ConfigError(f"{setting}: {path}: a key has at least {least} bytes")
    return key


def make_key(path: Path, size: int) -> None:
    """Write a new random key, for its owner alone. Raises FileExistsError, OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(size))
