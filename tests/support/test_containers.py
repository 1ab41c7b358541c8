"""Containers of the tests have their own pids and root file system."""

from __future__ import annotations

import pytest
from support.containers import Runc

pytestmark = pytest.mark.kernel


def test_a_container_runs_in_its_own_namespace_and_root(runc: Runc) -> None:
    """The first process has pid 1, and writes to the given root file system."""
    identifier = runc.run("/bin/sh", "-c", "echo $$ >/tmp/pid")
    assert len(identifier) == 64
    assert (runc.directory / "rootfs/tmp/pid").read_text() == "1\n"
