"""ClickHouse with the shipped tables: the real engine, in a process (chdb)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from support.manager import PROJECT
from support.stream import processes_of

LOGIN = PROJECT / "tests" / "data" / "viewer" / "login.ndjson.gz"
INSERT = "INSERT INTO sessiond.events (doc) FORMAT JSONAsObject"


@pytest.fixture
def ask(tmp_path: Path) -> Any:
    """A function that queries an engine with the tables, and returns the rows."""
    session = pytest.importorskip("chdb.session", reason="needs chdb, of PyPI, 500 MB")
    engine = session.Session(str(tmp_path / "data"))
    script = (PROJECT / "integrations" / "clickhouse" / "sessiond.sql").read_text("utf-8")
    for statement in script.split(";\n"):
        if statement.strip():
            engine.query(statement)

    def ask(question: str) -> list[list[str]]:
        answer = str(engine.query(question, "TSV"))
        return [line.split("\t") for line in answer.splitlines() if line]

    yield ask
    engine.close()


def test_lines_are_stored_once_and_queries_work(ask: Any) -> None:
    """Lines are sent twice, as after a crash; the queries are logins, tree and first_seen."""
    assert INSERT in (PROJECT / "integrations" / "clickhouse" / "README.md").read_text("utf-8")
    lines = gzip.decompress(LOGIN.read_bytes()).decode()
    documents = [json.loads(line) for line in lines.splitlines()]
    for _ in range(2):
        ask(f"{INSERT}\n{lines}")
    assert ask("SELECT count() FROM sessiond.events FINAL") == [[str(len(documents))]]
    logins = ask("SELECT session, host_name, entry, address, user FROM sessiond.logins")
    assert [login[1:] for login in logins] == [
        ["web1", "sshd", "198.51.100.7", "ann"],
        ["web1", "sshd", "198.51.100.8", "ann"],
    ]
    session = logins[0][0]
    tree = ask(f"SELECT command, exit_code FROM sessiond.tree(wanted = '{session}')")
    assert len(tree) == len(processes_of(documents, session))
    assert tree[0][0] == "-bash"
    make = tree.index(["  make -j2", "0"])
    assert tree[make + 1][0].startswith("    gcc ")
    (moment,) = ask(
        "SELECT min(time) FROM sessiond.events WHERE doc.process.executable LIKE '%/make'"
    )
    seconds = moment[0].partition(".")[0]
    new = ask(f"SELECT executable FROM sessiond.first_seen(since = '{seconds}')")
    assert ["/usr/bin/make"] in new
    assert ["/usr/bin/bash"] not in new
