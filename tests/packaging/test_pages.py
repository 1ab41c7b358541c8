"""A new user's first session by integrations/README.md, on a clean Debian.

The trial fetches some 300 MB of packages: SESSIOND_ENGINES=1 enables it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.manager import PROJECT
from support.pages import EXAMPLE, LIMIT, SECTIONS, commands

PAGE = (PROJECT / "integrations" / "README.md").read_text("utf-8")


def test_the_trial_finds_the_pages_commands() -> None:
    """Both sections lead from the installation to a tree; the second has the example's id."""
    first, second = (commands(PAGE, section) for section in SECTIONS)
    for text in ("apt install ./sessiond_*.deb", "rsyslog", "ssh localhost 'id;", "sessiond tree"):
        assert text in first
    assert f"tree('{EXAMPLE}')" in second
    assert commands(PAGE, "No such section") == ""


@pytest.mark.kernel
@pytest.mark.timeout(3 * LIMIT)  # other tests of the kernel come first
@pytest.mark.skipif(os.environ.get("SESSIOND_ENGINES") != "1", reason="needs SESSIOND_ENGINES=1")
@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="needs mmdebstrap")
@pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="needs sshd")
def test_a_new_user_has_a_sessions_tree_within_ten_minutes() -> None:
    """Each command of the page succeeds as it is there, and the trees have the login's commands."""
    done = subprocess.run(
        ["sh", PROJECT / "packaging" / "trial.sh", "--pages", "bookworm"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    took = re.findall(r"^ok: (.*), after (\d+) s$", done.stdout, re.MULTILINE)
    assert [section for section, _ in took] == list(SECTIONS)
    assert max(int(seconds) for _, seconds in took) < LIMIT
