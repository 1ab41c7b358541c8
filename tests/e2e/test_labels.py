"""Configured additions to lines, on the real kernel, also after a reload."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from support.daemon import Daemon, Document
from support.truth import until

pytestmark = pytest.mark.kernel


def exec_of(daemon: Daemon, token: str) -> Document:
    """Run a program with the token as its argument; return the line of its exec."""
    subprocess.run(["/bin/true", token], check=True)

    def found() -> list[Document]:
        lines = daemon.find(event__action="exec")
        return [each for each in lines if token in each["process"].get("args", ())]

    until(lambda: bool(found()), 10, f"the exec of {token}")
    return found()[0]


def test_labels_tags_and_host_are_live(make_daemon: Callable[..., Daemon]) -> None:
    """A reload changes them from the next line on; the ids of processes stay."""
    daemon = make_daemon(
        {"labels": {"env": "test"}, "tags": ["one"], "host": {"name": "web", "id": "i-1"}}
    )
    daemon.start()
    first = exec_of(daemon, "first")
    assert first["labels"] == {"env": "test"}
    assert first["tags"] == ["exec", "one"]
    assert (first["host"]["name"], first["host"]["hostname"], first["host"]["id"]) == (
        "web",
        "web",
        "i-1",
    )
    daemon.configure({"labels": {"env": "other"}, "host": {"hostname": "web.example"}})
    daemon.reload()
    second = exec_of(daemon, "second")
    assert second["labels"] == {"env": "other"}
    assert second["tags"] == ["exec"]
    assert second["host"]["hostname"] == "web.example"
    assert second["host"]["name"] != "web"
    own = first["process"]["parent"]["entity_id"], second["process"]["parent"]["entity_id"]
    assert own[0] == own[1]
