"""The status socket: answers, refusals, and the text of an answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.cli import status
from sessiond.cli.status import query, render
from sessiond.daemon import status_server
from sessiond.daemon.status_server import StatusServer
from sessiond.errors import StatusError

NOBODY = 65534
DOCUMENT = {"health": {"state": "ok", "problems": []}, "audit": {"received": 3}}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: asks as another user")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that other users can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def serve(server: StatusServer, ask: Callable[[], Awaitable[Any]]) -> Any:
    """Run the server while ``ask`` runs; return the result of ``ask``."""

    async def both() -> Any:
        await server.start()
        try:
            return await ask()
        finally:
            await server.close()

    return asyncio.run(both())


def ask_as(path: Path, *setpriv: str) -> str:
    """Connect as another user, in a separate process, and return the raw answer."""
    client = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "print(s.makefile().read(), end='')"
    )
    command = ["setpriv", *setpriv, "/usr/bin/python3", "-c", client, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return done.stdout or done.stderr


def test_a_client_gets_the_document(directory: Path) -> None:
    """The client gets the document that the provider returns; the socket is removed at the end."""
    path = directory / "status.sock"
    calls = iter(range(10))
    server = StatusServer(path, lambda: DOCUMENT | {"call": next(calls)}, mode=0o600)

    async def ask() -> list[dict[str, Any]]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        return [await asyncio.to_thread(query, path) for _ in range(2)]

    assert serve(server, ask) == [DOCUMENT | {"call": 0}, DOCUMENT | {"call": 1}]
    assert not path.exists()
    assert server.counters["answered"] == 2


@as_root
def test_only_those_entitled_get_an_answer(directory: Path) -> None:
    """The kernel's credentials decide, even if the file admits everyone."""
    path = directory / "status.sock"
    nobody = ("--reuid", str(NOBODY), "--regid", str(NOBODY))

    async def ask() -> list[str]:
        return [
            await asyncio.to_thread(ask_as, path, *nobody, *groups)
            for groups in (("--clear-groups",), ("--groups", "4242"), ("--groups", "1,2,4243"))
        ]

    server = StatusServer(path, lambda: DOCUMENT, mode=0o666, group=4243)
    refused = '{"error":"refused"}\n'
    answers = serve(server, ask)
    assert answers[:2] == [refused, refused]
    assert '"received":3' in answers[2]
    assert server.counters["refused"] == 2
    owned = StatusServer(path, lambda: DOCUMENT, mode=0o666, owner=NOBODY)
    assert '"received":3' in serve(owned, ask)[0]


@as_root
def test_strangers_take_nobodys_place(directory: Path) -> None:
    """Clients without permission are refused before they say anything."""
    path = directory / "status.sock"
    server = StatusServer(path, lambda: DOCUMENT, mode=0o666)
    hold = (
        "import os, socket, sys\n"
        "held = [socket.socket(socket.AF_UNIX) for _ in range(100)]\n"
        "for each in held: each.connect(sys.argv[1])\n"
        "print(*{each.recv(100) for each in held}, flush=True)\n"
        "sys.stdin.read()"
    )
    command = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", "/usr/bin/python3", "-c", hold]

    async def ask() -> tuple[bytes, Any]:
        process = await asyncio.create_subprocess_exec(
            *command, str(path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        said = await process.stdout.readline()
        answer = await asyncio.to_thread(query, path)
        process.kill()
        await process.wait()
        return said, answer

    said, answer = serve(server, ask)
    assert said == b'b\'{"error":"refused"}\\n\'\n'
    assert answer == DOCUMENT
    assert (server.counters["refused"], server.counters["too_many"]) == (100, 0)


@as_root
def test_the_permissions_of_the_socket_keep_others_out(directory: Path) -> None:
    """With the default mode a stranger can't even connect."""
    path = directory / "status.sock"

    async def ask() -> str:
        return await asyncio.to_thread(
            ask_as, path, "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"
        )

    assert "PermissionError" in serve(StatusServer(path, lambda: DOCUMENT), ask)


@contextlib.contextmanager
def answering(path: Path, answer: bytes | None) -> Iterator[Path]:
    """Give one client a fixed answer (None: never any), which the real server does not send."""
    done = threading.Event()

    def answer_one() -> None:
        with contextlib.suppress(OSError):  # no client came until the end
            client, _ = listener.accept()
            with client:
                if answer is None:
                    done.wait()
                else:
                    client.sendall(answer)
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(4096):  # closing with unread data would reset the connection
                        pass

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=answer_one)
        thread.start()
        try:
            yield path
        finally:
            done.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_refused_client_is_told_what_to_do(directory: Path) -> None:
    """The client turns the refusal into a line with a remedy."""
    with (
        answering(directory / "s", b'{"error":"refused"}\n') as path,
        pytest.raises(StatusError, match="permission denied; run as root, or as a member"),
    ):
        query(path)


@pytest.mark.parametrize("answer", [b"", b"[]\n", b"hello", b'{"health":'])
def test_nonsense_is_no_answer(directory: Path, answer: bytes) -> None:
    """Another program on the socket causes an error, not a traceback."""
    with (
        answering(directory / "s", answer) as path,
        pytest.raises(StatusError, match="not an answer of sessiond, or incomplete"),
    ):
        query(path)


def test_a_daemon_that_hangs_is_not_waited_for(directory: Path) -> None:
    """The client gives up after its timeout."""
    with (
        answering(directory / "s", None) as path,
        pytest.raises(StatusError, match=r"no answer within 0\.1 s"),
    ):
        query(path, timeout=0.1)


def test_without_a_daemon_the_error_says_how_to_start_it(directory: Path) -> None:
    """No socket, no directory, or a stale socket: all mean that no daemon runs."""
    for path in (directory / "none", directory / "no" / "none"):
        with pytest.raises(StatusError, match="no daemon answers; start it") as caught:
            query(path)
        assert caught.value.exit_code == 7
    with answering(directory / "s", b"") as path:
        pass
    with pytest.raises(StatusError, match="no daemon answers"):
        query(path)


def test_a_stale_socket_is_replaced(directory: Path) -> None:
    """A socket without a listener is removed at the start."""
    with answering(directory / "s", b"") as path:
        pass
    assert path.is_socket()

    async def ask() -> dict[str, Any]:
        return await asyncio.to_thread(query, path)

    assert serve(StatusServer(path, lambda: DOCUMENT), ask) == DOCUMENT


async def nothing() -> None:
    """Ask nothing."""


def test_other_files_at_the_path_stay(directory: Path) -> None:
    """A file, a link, or a socket that answers is an error, and stays unchanged."""
    file = directory / "file"
    file.write_text("precious")
    link = directory / "link"
    link.symlink_to(directory / "elsewhere")
    for path in (file, link):
        with pytest.raises(StatusError, match="in the way of the status socket"):
            serve(StatusServer(path, lambda: DOCUMENT), nothing)
    assert file.read_text() == "precious"
    assert not (directory / "elsewhere").exists()
    with answering(directory / "s", b"") as path:
        with pytest.raises(StatusError, match="another sessiond answers here"):
            serve(StatusServer(path, lambda: DOCUMENT), nothing)
        assert path.is_socket()


def test_a_directory_that_others_can_write_is_refused(directory: Path) -> None:
    """A directory that other users can write is refused."""
    directory.chmod(0o777)
    with pytest.raises(StatusError, match="others can write it; chmod o-w"):
        serve(StatusServer(directory / "s", lambda: DOCUMENT), nothing)


def test_a_socket_that_was_replaced_is_left_alone(directory: Path) -> None:
    """At the end, a socket of another daemon under the same name is not removed."""
    path = directory / "status.sock"

    async def replace() -> None:
        path.unlink()
        path.write_text("not ours")

    serve(StatusServer(path, lambda: DOCUMENT), replace)
    assert path.read_text() == "not ours"


def test_a_long_path_is_no_problem(directory: Path) -> None:
    """The 107 bytes of sun_path limit neither server nor client."""
    deep = directory / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    path = deep / "status.sock"

    async def ask() -> dict[str, Any]:
        return await asyncio.to_thread(query, path)

    assert serve(StatusServer(path, lambda: DOCUMENT), ask) == DOCUMENT


def test_slow_and_many_clients_do_not_hurt(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow clients are dropped after a while, excess clients at once, and others are served."""
    monkeypatch.setattr(status_server, "CLIENT_TIMEOUT", 0.2)
    path = directory / "status.sock"
    server = StatusServer(path, lambda: {"big": "x" * 4_000_000})

    async def ask() -> dict[str, Any]:
        idle = []
        for _ in range(status_server.MAX_CLIENTS + 3):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, str(path))
            idle.append(client)
            await asyncio.sleep(0)
        for _ in range(100):
            if server.counters["too_slow"] == status_server.MAX_CLIENTS:
                break
            await asyncio.sleep(0.1)
        answer = await asyncio.to_thread(query, path)
        for client in idle:
            client.close()
        return answer

    assert len(serve(server, ask)["big"]) == 4_000_000
    assert server.counters["too_slow"] == status_server.MAX_CLIENTS
    assert server.counters["too_many"] == 3


def test_the_text_begins_with_health() -> None:
    """The text shows problems first, then numbers with aligned names, then sections."""
    document = {
        "audit": {"records": {"received": 1234567, "lost": 0}, "role": "unicast"},
        "uptime": 12.5,
        "health": {"state": "degraded", "problems": ["audit: rules were deleted by uid 1000"]},
        "version": "1.0",
        "pid": None,
        "outputs": [],
        "locked": False,
    }
    assert render(document) == (
        "health\n"
        "  state  degraded\n"
        "  problems\n"
        "    - audit: rules were deleted by uid 1000\n"
        "uptime   12.5\n"
        "version  1.0\n"
        "pid      -\n"
        "outputs  none\n"
        "locked   no\n"
        "audit\n"
        "  role  unicast\n"
        "  records\n"
        "    received  1,234,567\n"
        "    lost      0\n"
    )


def test_health_is_what_the_problems_say() -> None:
    """Healthy means a health section without problems."""
    assert status.healthy(DOCUMENT)
    assert not status.healthy({"health": {"problems": ["blind"]}})
    assert not status.healthy({})


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _VALUES, max_size=4))
def test_no_document_can_drive_the_terminal(document: dict[str, Any]) -> None:
    """Process names in the document are escaped: only printable text is written."""
    assert all(line.isprintable() for line in render(document).split("\n"))
