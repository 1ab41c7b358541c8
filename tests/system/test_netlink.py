"""Imports of pyroute2: only the necessary parts."""

from __future__ import annotations

import subprocess
import sys

PARTS = """
import sys
from sessiond.system import netlink
assert netlink.NetlinkSocket and netlink.ProcEventSocket
print(sorted({"pyroute2.netlink", "pyroute2.ndb", "pyroute2.iproute"} & {*sys.modules}))
"""
WHOLE = """
import sys
from sessiond.system import netlink
for name in [each for each in sys.modules if each.startswith("pyroute2")]:
    del sys.modules[name]
netlink.import_parts(["pyroute2.netlink", "pyroute2.what_this_version_does_not_have"])
from pyroute2 import IPRoute
print(IPRoute.__name__)
"""


def printed(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_rest_is_not_imported() -> None:
    """The netlink core is imported; the database and the routing sockets are not."""
    assert printed(PARTS) == "['pyroute2.netlink']"


def test_a_version_that_does_not_come_apart_is_used_as_a_whole() -> None:
    """If parts can't be imported separately, the whole package is imported."""
    assert printed(WHOLE) == "IPRoute"
