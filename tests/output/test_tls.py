"""Lines over TLS: only to the right server."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support.certificates import make_certificates
from support.output import line

from sessiond.errors import ConfigError
from sessiond.output.stream import StreamOutput
from sessiond.output.tls import ClientTls


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server's certificate for localhost, and a client's."""
    return make_certificates(tmp_path_factory.mktemp("keys"))


class Server:
    """Accepts connections one after the other, and keeps the received data."""

    def __init__(self, keys: Path, *, version: ssl.TLSVersion | None = None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys / "server.pem", keys / "server.key")
        context.load_verify_locations(keys / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        if version is not None:
            context.maximum_version = version
        self.received = b""
        self.subjects: list[object] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._context = context
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            wrap = self._context.wrap_socket
            with raw, suppress(OSError), wrap(raw, server_side=True) as connection:
                certificate = connection.getpeercert() or {}
                self.subjects.append(certificate.get("subject"))
                while data := connection.recv(65536):
                    self.received += data

    def close(self) -> None:
        """Accept no more connections, and wait for the end of the last one."""
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept, which close does not
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def server(keys: Path) -> Iterator[Server]:
    with closing(Server(keys)) as made:
        yield made


def output(server: Server, keys: Path, *, ca: str = "ca", name: str = "localhost") -> StreamOutput:
    files = {"certificate": keys / "client.pem", "key": keys / "client.key"}
    tls = ClientTls(name, ca=keys / f"{ca}.pem", setting="x", **files)
    return StreamOutput(host="127.0.0.1", port=server.port, tls=tls, backoff=(0.05, 0.1))


def deliver(made: StreamOutput, lines: list[bytes], seconds: float = 10) -> None:
    """Write lines like the output's thread, until all are confirmed."""
    end = time.monotonic() + seconds
    while lines or made.unconfirmed:
        lines = lines[made.write(lines) :] if lines else lines
        made.tick(time.monotonic())
        assert time.monotonic() < end, made.trouble
        time.sleep(0.005)


def test_lines_arrive_encrypted_and_whole(server: Server, keys: Path) -> None:
    """More data than the kernel accepts at once; the client shows its certificate."""
    lines = [line(number) + b"x" * 1000 + b"\n" for number in range(5_000)]
    with closing(output(server, keys)) as made:
        made.open()
        deliver(made, list(lines))
        whole = b"".join(lines)
        end = time.monotonic() + 10
        while len(server.received) < len(whole) and time.monotonic() < end:
            time.sleep(0.01)
    assert server.received == whole
    assert server.subjects == [((("commonName", "client"),),)]


@pytest.mark.parametrize(("ca", "name"), [("other", "localhost"), ("ca", "elsewhere.example")])
def test_another_server_gets_nothing(server: Server, keys: Path, ca: str, name: str) -> None:
    """It has an unknown authority, or another name."""
    with closing(output(server, keys, ca=ca, name=name)) as made:
        made.open()
        end = time.monotonic() + 10
        while made.trouble is None and time.monotonic() < end:
            assert made.write([line(1)]) == 0
            made.tick(time.monotonic())
            time.sleep(0.01)
        assert made.trouble is not None
        assert "certificate verify failed" in made.trouble
    assert server.received == b""


def test_an_old_version_is_refused(keys: Path) -> None:
    """TLS 1.2 is the minimum."""
    context = ClientTls("x", ca=keys / "ca.pem", setting="x").context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_server_that_is_replaced_gets_what_may_be_lost(keys: Path) -> None:
    """A new connection has a new handshake."""
    with closing(Server(keys)) as server, closing(output(server, keys)) as made:
        made.open()
        deliver(made, [line(1)])
        made.reopen()
        deliver(made, [line(2)])
        end = time.monotonic() + 10
        while server.received != line(1) + line(2) and time.monotonic() < end:
            time.sleep(0.01)
        assert server.received == line(1) + line(2)
        assert made.status()["connections"] == 2


def test_files_that_are_none_are_named(tmp_path: Path, keys: Path) -> None:
    """The error names the setting and the file."""
    (tmp_path / "empty.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"output\.http\.tls: .*empty\.pem can't be used"):
        ClientTls("x", ca=tmp_path / "empty.pem", setting="output.http.tls")
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        ClientTls("x", certificate=tmp_path / "missing.pem", setting="x")
    with pytest.raises(ConfigError, match=r"client\.pem or .*ca\.key"):
        ClientTls("x", certificate=keys / "client.pem", key=keys / "ca.key", setting="x")


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    """Instead of a question for its passphrase at a terminal."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:secret"]
    command += ["-subj", "/CN=x", "-keyout", "locked.key", "-out", "locked.pem"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with pytest.raises(ConfigError, match=r"x: .*locked\.key: the key has a passphrase; fix: "):
        ClientTls(
            "x", certificate=tmp_path / "locked.pem", key=tmp_path / "locked.key", setting="x"
        )


def test_renewed_certificates_are_used_for_the_next_connection(tmp_path: Path) -> None:
    """Without a reload; a file that is half written is a failure that passes."""
    old, new, used = (tmp_path / name for name in ("old", "new", "used"))
    for each in (old, new):
        each.mkdir()
        make_certificates(each)
    shutil.copytree(old, used)
    with closing(Server(new)) as server, closing(output(server, used)) as made:
        made.open()
        end = time.monotonic() + 30

        def fails_for(reason: str) -> bool:
            assert made.write([line(1)]) == 0
            made.tick(time.monotonic())
            time.sleep(0.01)
            assert time.monotonic() < end, made.trouble
            return reason in str(made.trouble)

        while not fails_for("certificate verify failed"):
            continue
        shutil.copy(new / "client.pem", used)
        while not fails_for("can't be used"):
            continue
        for name in ("ca.pem", "client.key"):
            shutil.copy(new / name, used)
        deliver(made, [line(1)])
    assert server.received == line(1)
