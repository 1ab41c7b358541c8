"""Keys and secrets in systemd credentials, or in files that only their owner can read."""

from __future__ import annotations

import os
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
    fix = "make a key with sessiond verify --new-key, or name the file that has it"
    key = _read_private(setting, path, fix)
    if len(key) < least:
        raise ConfigError(f"{setting}: {path}: a key has at least {least} bytes")
    return key


def read_secret(setting: str, source: str) -> str:
    """Read a secret of one line of ASCII from a file, or from the credential of that name.

    Raises ConfigError, which names the setting, and never the secret.
    """
    path = Path(source) if source.startswith("/") else credential(source)
    if path is None:
        raise ConfigError(
            f"{setting}: systemd gave no credential {source} to this service; fix: "
            f"LoadCredential={source}:/path in its unit, or the absolute path of a file"
        )
    text = _read_private(setting, path, "write the secret into it").decode("latin-1")
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret or not secret.isascii() or not secret.isprintable():
        raise ConfigError(f"{setting}: {path}: a secret is one line of ASCII, not empty")
    return secret


def _read_private(setting: str, path: Path, fix: str) -> bytes:
    """Read a file that only its owner can read, or a systemd credential."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{setting}: {path}: not a file")
            data = os.read(descriptor, MAX_KEY)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise ConfigError(f"{setting}: {path}: no such file; {fix}") from None
    except OSError as error:
        raise ConfigError(f"{setting}: {path}: {error.strerror}") from None
    # systemd grants the service's user access to a credential by an ACL, shown as group bits.
    open_to = 0o007 if _is_credential(path) else 0o077
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & open_to:
        raise ConfigError(
            f"{setting}: {path}: others may read or change it; fix: chown root, chmod 0600"
        )
    return data


def _is_credential(path: Path) -> bool:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return directory is not None and path.parent == Path(directory)


def make_key(path: Path, size: int) -> None:
    """Write a new random key, readable only by its owner. Raises FileExistsError, OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(os.urandom(size))
