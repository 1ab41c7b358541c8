"""Keys in files that only their owner can read or change."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.descriptors import none_left_open

from sessiond.errors import ConfigError
from sessiond.system.secret import credential, make_key, read_key, read_secret


def test_a_new_key_is_random_and_ones_own(tmp_path: Path) -> None:
    """An existing key is never overwritten."""
    one, other = tmp_path / "one", tmp_path / "other"
    make_key(one, 32)
    make_key(other, 32)
    assert one.stat().st_mode & 0o777 == 0o600
    assert read_key("event.chain_key", one, least=32) != read_key("x", other, least=32)
    with pytest.raises(FileExistsError):
        make_key(one, 32)


@pytest.mark.parametrize(
    ("mode", "content", "said"),
    [
        (0o640, b"k" * 32, "chmod 0600"),
        (0o602, b"k" * 32, "chmod 0600"),
        (0o600, b"short", "at least 32 bytes"),
        (None, b"", "sessiond verify --new-key"),
    ],
)
def test_a_bad_key_is_refused(tmp_path: Path, mode: int | None, content: bytes, said: str) -> None:
    """The line names the setting, the file and the fix."""
    path = tmp_path / "key"
    if mode is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(ConfigError, match=said) as raised:
        read_key("event.chain_key", path, least=32)
    assert str(raised.value).startswith(f"event.chain_key: {path}: ")


def test_a_credential_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LoadCredential= puts it in a directory of the service."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert credential("sessiond.chain") is None
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert credential("sessiond.chain") is None
    (tmp_path / "sessiond.chain").touch()
    assert credential("sessiond.chain") == tmp_path / "sessiond.chain"


def test_a_secret_is_one_line(tmp_path: Path) -> None:
    """Its newline does not belong to it."""
    path = tmp_path / "key"
    path.write_bytes(b"ApiKey c2VjcmV0\r\n")
    path.chmod(0o600)
    assert read_secret("output.http.secret_headers.X", str(path)) == "ApiKey c2VjcmV0"


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb\n", b"\xff\n", b"a\x00\n"])
def test_an_invalid_secret_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    """The line names the file, never its content."""
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as raised:
        read_secret("x", str(path))
    assert str(raised.value) == f"x: {path}: a secret is one line of ASCII, not empty"


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """Except for a credential in systemd's directory: an ACL shows as group bits."""
    path = tmp_path / "key"
    path.write_text("secret")
    path.chmod(0o440)
    with pytest.raises(ConfigError, match="chmod 0600"):
        read_secret("x", str(path))


def test_a_directory_is_no_secret(tmp_path: Path) -> None:
    """It is read again for each connection to a server: no descriptor remains."""
    with none_left_open(), pytest.raises(ConfigError, match="not a file"):
        read_secret("x", str(tmp_path))


def test_a_secret_among_the_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential is found by name; a missing one is an error with a remedy."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "elastic").write_text("secret\n")
    (tmp_path / "elastic").chmod(0o440)
    assert read_secret("x", "elastic") == "secret"
    with pytest.raises(ConfigError, match="LoadCredential=other:/path"):
        read_secret("x", "other")
