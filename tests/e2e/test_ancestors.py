"""Ancestors of a process on the real kernel, including ones that ended long before."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from ecs_schema.validate import validate
from support.daemon import Daemon, Document
from support.truth import until

pytestmark = pytest.mark.kernel

# Each shell forks the next one and ends at once; the last one remains and waits.
_CHAIN = "/bin/sh -c '/bin/sh -c \"(sleep 1; /bin/true {token}) & exit\" & exit' & exit"


@pytest.mark.parametrize("number", [0, 2, 20])
def test_the_number_of_ancestors_is_configured(
    make_daemon: Callable[..., Daemon], number: int
) -> None:
    """Their ids are those of the processes' own lines, with pids and executables."""
    daemon = make_daemon({"event": {"ancestors": number}}).start()
    subprocess.run(["/bin/sh", "-c", _CHAIN.format(token="token")], check=True)

    def found() -> list[Document]:
        lines = daemon.find(event__action="exec", process__executable="/usr/bin/true")
        return [each for each in lines if each["process"]["args"][1:] == ["token"]]

    until(lambda: bool(found()), 15, "the last exec")
    (document,) = found()
    assert validate(document) == []
    ancestry = document["process"].get("Ext", {}).get("ancestry", [])
    ancestors = document["sessiond"].get("ancestors", []) if "sessiond" in document else []
    assert len(ancestry) == len(ancestors)
    if number < 20:
        assert len(ancestry) == number
    if number:
        assert ancestry[0] == document["process"]["parent"]["entity_id"]
        known = {
            each["process"]["entity_id"]: each["process"]["pid"]
            for each in daemon.documents()
            if "process" in each
        }
        assert [known[each] for each in ancestry] == [each["pid"] for each in ancestors]
        shells = [each["executable"] for each in ancestors[:2]]
        assert all(each.endswith("sh") for each in shells)
