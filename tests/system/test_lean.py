"""What the daemon's imports bring into its memory."""

from __future__ import annotations

import subprocess
import sys

DAEMON = """
import sys
from sessiond.cli import main
from sessiond.system import lean
lean.import_lean()
import sessiond.config.load, sessiond.daemon.daemon
print(*sys.modules)
import ssl, hashlib
from sessiond.output.tls import ClientTls
ClientTls("example.com", setting="test").context()
hashlib.sha256(b"")
"""
EARLIER = """
import asyncio, ssl
from sessiond.system import lean
lean.import_lean()
assert asyncio.sslproto.ssl is sys.modules["ssl"] is ssl
"""
BROKEN = """
import sys
sys.modules["structlog"] = None
from sessiond.system import lean
try:
    lean.import_lean()
except ImportError:
    import ssl
    print("ssl" in sys.modules)
"""


def output_of(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout


def test_the_daemon_loads_nothing_large_without_need() -> None:
    """Neither OpenSSL nor rich; outputs with TLS can load it later."""
    loaded = set(output_of(DAEMON).split())
    assert {"asyncio", "structlog"} <= loaded
    assert loaded.isdisjoint({"ssl", "_ssl", "_hashlib", "rich", "pygments", "http.client", "bcc"})


def test_what_was_imported_earlier_stays_as_it_is() -> None:
    """A program that has imported asyncio with TLS keeps that."""
    assert output_of("import sys" + EARLIER) == ""


def test_a_failed_import_hides_nothing() -> None:
    """A missing library is reported as usual, and the rest can still be imported."""
    assert output_of(BROKEN) == "True\n"
