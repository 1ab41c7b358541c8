"""The real daemon and an HTTP server that is killed, full, or silent: each event arrives once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.stream import Stream, agree, inconsistent
from support.truth import Truth, read, until
from support.web import Web, bulk, hang, status

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def web() -> Iterator[Web]:
    with closing(Web(bulk)) as made:
        yield made


def settings(web: Web, key: Path) -> dict[str, Any]:
    """Return a configuration whose only output is the server."""
    http = {
        "url": f"http://127.0.0.1:{web.port}",
        "preset": "elasticsearch",
        "secret_headers": {"Authorization": str(key)},
        "batch": {"interval": "50ms"},
        "backoff": {"init": "50ms", "max": "200ms"},
        "timeout": "1s",
    }
    return {"output": {"file": {"enabled": False}, "http": http}}


def start(make_daemon: MakeDaemon, web: Web, key: Path) -> Daemon:
    """A daemon with these settings and its key."""
    key.write_text("ApiKey c2VjcmV0\n")
    key.chmod(0o600)
    daemon = make_daemon(settings(web, key))
    web.file = daemon.output
    return daemon.start()


def output(daemon: Daemon) -> dict[str, Any]:
    """Return the state of the only output."""
    ((_, state),) = daemon.status()["outputs"].items()
    found: dict[str, Any] = state
    return found


def all_arrived(daemon: Daemon) -> bool:
    state = output(daemon)
    return bool(state["queued"] == state["spooled"] == 0)


def test_every_event_arrives_once(
    make_daemon: MakeDaemon, truth: Truth, web: Web, tmp_path: Path
) -> None:
    """The server works, is unreachable, full, and silent in turn."""
    daemon = start(make_daemon, web, tmp_path / "key")
    files = []
    for trouble in ("none", "gone", "full", "silent"):
        if trouble == "gone":
            web.kill()
        elif trouble == "full":
            web.script.extend([status(429, Retry_After="0"), status(503)])
        elif trouble == "silent":
            web.script.append(hang)
        files.append(truth.file())
        truth.run_into(files[-1], "spawn", 100)
        if trouble == "gone":
            until(lambda: output(daemon)["spooled"] > 0, 10, "lines in the spool")
            metrics = daemon.command("status", "--prometheus").stdout
            name = f'{{output="http://127.0.0.1:{web.port}/logs-sessiond.process-default/_bulk"}}'
            assert f"sessiond_output_healthy{name}" in metrics
            assert f"sessiond_output_spooled_lines{name} 0" not in metrics
            web.start()
    until(lambda: all_arrived(daemon), 20, "all lines at the server")
    daemon.settle()
    for file in files:
        agree(Stream(daemon).untrue(read(file), file))
    agree(inconsistent(daemon.documents()))
    assert daemon.find(event__action="sessiond-lost") == []
    assert set(web.kept.values()) == {1}
    assert {fields["authorization"] for fields in web.headers} == {"ApiKey c2VjcmV0"}
    assert "c2VjcmV0" not in daemon.log.read_text() + str(daemon.status())
    assert daemon.stop() == 0
    sequences = sorted(each["event"]["sequence"] for each in daemon.documents())
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))


def test_a_kill_loses_no_line(
    make_daemon: MakeDaemon, truth: Truth, web: Web, tmp_path: Path
) -> None:
    """The next daemon sends the lines that the server had not confirmed."""
    daemon = start(make_daemon, web, tmp_path / "key")
    first, second = truth.file(), truth.file()
    truth.run_into(first, "spawn", 100)
    until(lambda: all_arrived(daemon), 20, "all lines at the server")
    web.take = hang
    truth.run_into(second, "spawn", 100)
    until(lambda: output(daemon)["accepted"] > len(web.kept) + 200, 10, "lines on their way")
    daemon.send(signal.SIGKILL)
    daemon.wait()
    web.take = bulk
    web.release.set()
    daemon.start()
    until(lambda: all_arrived(daemon), 20, "all lines at the server")
    daemon.settle()
    for file in (first, second):
        agree(Stream(daemon).untrue(read(file), file))
    assert set(web.kept.values()) == {1}


def test_a_reload_leads_waiting_lines_to_another_server(
    make_daemon: MakeDaemon, truth: Truth, web: Web, tmp_path: Path
) -> None:
    """The first server is gone; a reload without the new key changes nothing."""
    daemon = start(make_daemon, web, tmp_path / "key")
    files = [truth.file() for _ in range(3)]
    truth.run_into(files[0], "spawn", 50)
    until(lambda: all_arrived(daemon), 20, "all lines at the first server")
    web.kill()
    truth.run_into(files[1], "spawn", 50)
    until(lambda: output(daemon)["spooled"] > 0, 10, "lines in the spool")
    with closing(Web(bulk)) as other:
        other.file = daemon.output
        key = tmp_path / "other"
        daemon.configure(settings(other, key))
        daemon.reload()
        (refused,) = [each for each in daemon.log.read_text().splitlines() if "reload_r" in each]
        assert f"secret_headers.Authorization: {key}: no such file" in refused
        assert other.bodies == []
        key.write_text("ApiKey YW5vdGhlcg==\n")
        key.chmod(0o600)
        daemon.reload()
        truth.run_into(files[2], "spawn", 50)
        until(lambda: all_arrived(daemon), 20, "all lines at the other server")
        daemon.settle()
        for file in files:
            agree(Stream(daemon).untrue(read(file), file))
        assert daemon.find(event__action="sessiond-lost") == []
        assert set((web.kept + other.kept).values()) == {1}
        assert {fields["authorization"] for fields in other.headers} == {"ApiKey YW5vdGhlcg=="}
        assert daemon.stop() == 0
