"""``sessiond ps``: its views of the daemon's process table."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.cli import ps
from sessiond.daemon import status_server
from sessiond.daemon.status_server import StatusServer
from sessiond.errors import StatusError
from sessiond.pipeline.listing import End, Fact, FactList, ListRequest, Row
from sessiond.viewer.words import width_of

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
NOBODY = 65534


def row(pid: int, parent: int | None = 1, command: str = "sleep 60", **more: object) -> Row:
    """A process of root, started today."""
    known: dict[str, object] = {
        "ppid": parent or 0,
        "session": 1,
        "user": "root",
        "login": None,
        "entry": None,
        "start": f"2026-05-01T10:00:{pid % 60:02}.000000Z",
        "end": None,
    }
    return Row(pid=pid, parent=parent, command=command, **(known | more))  # type: ignore[arg-type]


def shown(rows: list[Row], width: int | None = None, *, tree: bool = False) -> list[str]:
    """The lines of a table, without trailing blanks."""
    return [line.rstrip() for line in ps.table(rows, width=width, now=NOW, tree=tree)]


def test_a_table_has_a_line_for_each_process() -> None:
    """Without a terminal no line is cut or folded."""
    rows = [
        row(1, None, "init", start="2026-04-30T09:08:07.000000Z"),
        row(20, login="ann", entry="sshd 192.0.2.7"),
        row(21, command="x" * 300),
        row(22, command="gone", end="2026-05-01T11:00:00.000000Z"),
    ]
    assert shown(rows) == [
        "PID  USER  LOGIN  ENTRY           SINCE         COMMAND",
        "  1  root  -      -               Apr 30 09:08  init",
        " 20  root  ann    sshd 192.0.2.7  10:00:20      sleep 60",
        f" 21  root  -      -               10:00:21      {'x' * 300}",
        " 22  root  -      -               10:00:22      gone (ended 11:00:00)",
    ]


def test_a_tree_has_each_process_below_its_creator() -> None:
    """A process is below its creator, else below its current parent, else a root."""
    rows = [
        row(1, None, "init"),
        row(2, 1, "bash"),
        row(3, 2, "make"),
        row(4, 3, "cc"),
        row(5, 2, "vi"),
        row(6, 99, "orphan", ppid=1),
        row(7, 98, "stray", ppid=97),
        row(8, 59, "before its parent"),
        row(59, None, "younger"),
    ]
    commands = [re.split(r"\d\d:\d\d:\d\d  ", line)[1] for line in shown(rows, tree=True)[1:]]
    assert commands == [
        "init",
        "├─ bash",
        "│  ├─ make",
        "│  │  └─ cc",
        "│  └─ vi",
        "└─ orphan",
        "stray",
        "before its parent",
        "younger",
    ]


def test_on_a_terminal_repetition_is_folded() -> None:
    """Processes that differ only by pid, and have no children, share a line."""
    rows = [row(1, None, "init"), *(row(pid) for pid in range(2, 9)), row(9, 8, "child")]
    lines = shown(rows, 80, tree=True)
    assert any(line.endswith("├─ 6 x sleep 60") for line in lines)
    assert any(line.endswith("└─ sleep 60") for line in lines)
    assert len(lines) == 5
    assert any(line.endswith("6 x sleep 60") for line in shown(rows, 80))
    assert len(shown(rows)) == 10


def test_a_deep_chain_is_no_trouble() -> None:
    """A fork bomb without execs is a long chain."""
    rows = [
        row(pid, pid - 1 or None, start="2026-05-01T10:00:00.000000Z") for pid in range(1, 3000)
    ]
    assert len(shown(rows, tree=True)) == 3000


@given(
    st.lists(st.builds(row, st.integers(1, 50), st.integers(1, 50), st.text(max_size=200))),
    st.integers(1, 200),
    st.booleans(),
)
def test_a_line_fits_the_terminal(rows: list[Row], width: int, tree: bool) -> None:
    """Lines fit for any arguments: also wide characters, and no control character is shown."""
    distinct = list({each.pid: each for each in rows}.values())
    for line in ps.table(distinct, width=width, now=NOW, tree=tree):
        assert line.isprintable()
        assert width_of(line) <= max(width, 20)


def test_facts_have_their_sources() -> None:
    """The process is first, then its ancestors."""
    facts = [
        FactList(
            pid=7, ended=False, facts=[Fact("start", "then", "ebpf"), Fact("user", "\x1b", "p")]
        ),
        FactList(pid=1, ended=True, facts=[]),
    ]
    lines = list(ps.family(map(msgspec.json.encode, facts), None))
    assert [re.sub("  +", "  ", line) for line in lines] == [
        "process 7",
        "  start  then  ebpf",
        "  user  \\x1b  p",
        "forked by 1 (ended)",
    ]
    assert max(map(len, ps.family(map(msgspec.json.encode, facts), 50))) <= 50


# Requests


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that other users can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def rows_of(number: int) -> Iterator[bytes]:
    """An answer of that many rows."""
    for pid in range(1, number + 1):
        yield msgspec.json.encode(row(pid)) + b"\n"
    yield msgspec.json.encode(End(number)) + b"\n"


def test_a_list_comes_in_slices(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other work is done between two slices, and the server receives the request unchanged."""
    monkeypatch.setattr(status_server, "LIST_CHUNK", 1000)
    asked: list[ListRequest] = []
    turns = 0

    def lister(request: ListRequest) -> Iterator[bytes]:
        asked.append(request)
        return rows_of(2000)

    async def run() -> list[Row]:
        nonlocal turns
        server = StatusServer(directory / "s", dict, lister=lister)
        await server.start()
        request = ListRequest(user="ann", ended=True)
        asking = asyncio.create_task(
            asyncio.to_thread(lambda: ps.rows(ps.listed(directory / "s", request)))
        )
        while not asking.done():
            turns += 1
            await asyncio.sleep(0)
        await server.close()
        return asking.result()

    assert [each.pid for each in asyncio.run(run())] == list(range(1, 2001))
    assert asked == [ListRequest(user="ann", ended=True)]
    assert turns > 100


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (b"nonsense\n", "no such request"),
        (b'{"pid":"x"}\n', "no such request"),
        (b'{"colour":1}\n', "no such request"),
        (b"[]\n", "no such request"),
        (b"\xff\n", "no such request"),
        (b"x" * 100_000, "too long"),
    ],
)
def test_nonsense_is_refused(directory: Path, request_: bytes, said: str) -> None:
    """The answer is one line with the reason; the daemon continues."""

    def ask() -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(directory / "s"))
            answer = b""
            # The server may answer and close before it has read everything.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(request_)
            with contextlib.suppress(ConnectionResetError):
                while data := client.recv(4096):
                    answer += data
            return answer.decode()

    async def run() -> str:
        server = StatusServer(directory / "s", dict, lister=lambda _: rows_of(1))
        await server.start()
        answer = await asyncio.to_thread(ask)
        await server.close()
        return answer

    assert said in asyncio.run(run())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: asks as another user")
@pytest.mark.parametrize("allowed", [True, False])
def test_only_readers_of_the_output_may_list(directory: Path, allowed: bool) -> None:
    """Members of status_socket.group may query the status, but arguments can contain secrets."""
    asked: list[tuple[int, frozenset[int]]] = []

    def may_read(uid: int, groups: frozenset[int]) -> bool:
        asked.append((uid, groups))
        return allowed

    async def run() -> str:
        server = StatusServer(
            directory / "s", dict, mode=0o666, group=NOBODY, lister=lambda _: rows_of(1),
            may_read=may_read,
        )  # fmt: skip
        await server.start()
        client = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            "s.sendall(b'{}\\n'); print(s.makefile().read(), end='')"
        )
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--groups=4242"]
        done = await asyncio.to_thread(
            subprocess.run,
            [*command, "/usr/bin/python3", "-c", client, str(directory / "s")],
            capture_output=True,
            text=True,
        )
        await server.close()
        return str(done.stdout)

    assert ('"pid":1' in asyncio.run(run())) is allowed
    assert asked == [(NOBODY, frozenset((NOBODY, 4242)))]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b'{"error":"refused"}\n', "permission denied; run as root, or as a user who can read"),
        (b'{"pid":1}\n', "is incomplete"),
        (b'{"pid":1}\n{"end":2}\n', "is incomplete"),
        (b"", "is incomplete"),
        (b'{"error":"a\\u001b[31m"}\n', r"a\\x1b\[31m"),
    ],
)
def test_a_broken_answer_is_an_error(directory: Path, answer: bytes, said: str) -> None:
    """A list without its end is not shown as complete."""

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.recv(65536)
            client.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "s"))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(StatusError, match=said):
            list(ps.listed(directory / "s", ListRequest()))
        thread.join()
