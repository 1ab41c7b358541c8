"""``sessiond verify`` on lines written by a daemon."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.stream import agree, malformed

from sessiond.cli.main import main
from sessiond.ecs.chain import LineChain
from sessiond.system.secret import make_key

MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The file with a key."""
    path = tmp_path / "key"
    make_key(path, 32)
    return path


def written(path: Path, key: Path, number: int = 5) -> list[bytes]:
    chain = LineChain(key.read_bytes())
    lines = [
        chain.seal(b'{"event":{"id":"e%d","sequence":%d}}\n' % (each, each))
        for each in range(1, number + 1)
    ]
    path.write_bytes(b"".join(lines))
    return lines


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["verify", *arguments])
    return ended.value.code


def test_valid_lines_are_reported(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result has the number of lines, and their range."""
    written(tmp_path / "events.ndjson", key)
    assert run("--key", str(key), str(tmp_path / "events.ndjson")) == 0
    assert capsys.readouterr().out == "5 lines, 1 to 5: as they were written\n"


def test_a_mismatch_is_reported_with_its_place(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result has the file and the line; the exit code is 1."""
    path = tmp_path / "events.ndjson"
    lines = written(path, key)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert run("--key", str(key), str(path)) == 1
    assert "events.ndjson: after line 2 comes line 4" in capsys.readouterr().out


def test_lines_without_a_seal_are_no_proof(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result is not a success."""
    path = tmp_path / "events.ndjson"
    path.write_bytes(b'{"event":{"id":"e","sequence":1}}\n')
    assert run("--key", str(key), str(path)) == 8
    assert "event.chain" in capsys.readouterr().err


def test_a_new_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key is created only once."""
    path = tmp_path / "new"
    assert run("--new-key", "--key", str(path)) == 0
    assert path.stat().st_size == 32
    assert run("--new-key", "--key", str(path)) == 2
    assert "File exists" in capsys.readouterr().err


@pytest.mark.kernel
def test_rotation_restarts_and_kills_keep_the_chain(make_daemon: MakeDaemon, key: Path) -> None:
    """Each line of every file matches the one before it."""
    daemon = make_daemon(
        {
            "event": {"chain": True, "chain_key": str(key), "max_line_bytes": "32KiB"},
            "output": {"file": {"rotate": {"size": "256KiB", "keep": 20, "min_age": "0s"}}},
        }
    ).start()
    for end in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        for _ in range(40):
            subprocess.run(["/bin/true"], check=True)
        time.sleep(1)
        daemon.stop(end)
        daemon.start()
    daemon.stop()
    rotated = sorted(daemon.output.parent.glob(f"{daemon.output.name}.*"))
    assert rotated
    done = daemon.command("verify")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.endswith(": as they were written\n")
    agree(malformed(daemon))
    lines = daemon.output.read_bytes().splitlines(keepends=True)
    daemon.output.write_bytes(b"".join(lines[:1] + lines[2:]))
    assert daemon.command("verify").returncode == 1
