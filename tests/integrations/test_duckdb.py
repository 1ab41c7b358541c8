"""DuckDB with the shipped SQL, on files as sessiond writes them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from support.manager import PROJECT
from support.stream import processes_of

LOGIN = PROJECT / "tests" / "data" / "viewer" / "login.ndjson.gz"
LOG = "/var/log/sessiond/events.ndjson*"


@pytest.fixture
def ask(tmp_path: Path) -> Any:
    """A function that queries the lines of a login, half of them rotated and compressed."""
    duckdb = pytest.importorskip("duckdb", reason="needs duckdb, of PyPI")
    lines = gzip.decompress(LOGIN.read_bytes()).splitlines(keepends=True)
    half = len(lines) // 2
    (tmp_path / "events.ndjson.1.gz").write_bytes(gzip.compress(b"".join(lines[:half])))
    (tmp_path / "events.ndjson").write_bytes(b"".join(lines[half:]))
    script = (PROJECT / "integrations" / "duckdb" / "sessiond.sql").read_text("utf-8")
    assert LOG in script
    connection = duckdb.connect()
    connection.execute(script.replace(LOG, f"{tmp_path}/events.ndjson*"))
    return lambda question: connection.execute(question).fetchall()


def test_queries_work(ask: Any) -> None:
    """The queries logins, tree and first_seen return the data of the lines."""
    documents = [json.loads(line) for line in gzip.decompress(LOGIN.read_bytes()).splitlines()]
    assert ask("SELECT count(*) FROM events") == [(len(documents),)]
    logins = ask("SELECT session, entry, address, user FROM logins")
    assert [login[1:] for login in logins] == [
        ("sshd", "198.51.100.7", "ann"),
        ("sshd", "198.51.100.8", "ann"),
    ]
    session = logins[0][0]
    tree = ask(f"SELECT command, exit_code FROM tree('{session}')")
    assert len(tree) == len(processes_of(documents, session))
    assert tree[0][0] == "-bash"
    make = tree.index(("  make -j2", 0))
    assert tree[make + 1][0].startswith("    gcc ")
    (moment,) = ask("SELECT min(time) FROM events WHERE executable LIKE '%/make'")[0]
    new = ask(f"SELECT executable FROM first_seen(TIMESTAMP '{moment}')")
    assert new[0] == ("/usr/bin/make",)
    assert ("/usr/bin/bash",) not in new
