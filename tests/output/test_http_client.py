"""One POST: over TLS and proxies, to faulty servers, without secrets in messages."""

from __future__ import annotations

import email.utils
import gzip
import io
import shutil
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from support.certificates import make_certificates
from support.web import Exchange, Web, hang, raw, status

from sessiond.errors import ConfigError
from sessiond.output.http_client import MAX_ANSWER, HttpClient, HttpError, Server, compressor
from sessiond.output.tls import ClientTls
from sessiond.system import zstd

SECRET = "ApiKey c2VjcmV0"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def web() -> Iterator[Web]:
    with closing(Web(status(200, b"taken"))) as made:
        yield made


@pytest.fixture
def tls_web(keys: Path) -> Iterator[Web]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.pem", keys / "server.key")
    context.load_verify_locations(keys / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with closing(Web(status(200, b"taken"), context)) as made:
        yield made


def client(web: Web, **more: Any) -> HttpClient:
    tls, proxy = more.pop("tls", None), more.pop("proxy", None)
    server = Server("127.0.0.1", web.port, "/in?query=1", tls, proxy)
    secrets = more.pop("secrets", lambda: {"Authorization": SECRET})
    return HttpClient(server, headers={"X-Org": "hosts"}, secrets=secrets, timeout=5, **more)


def tls(keys: Path, *, ca: str = "ca", name: str = "localhost") -> ClientTls:
    files = {"certificate": keys / "client.pem", "key": keys / "client.key"}
    return ClientTls(name, ca=keys / f"{ca}.pem", setting="output.http.tls", **files)


def test_a_request_has_its_fields_and_its_body(web: Web) -> None:
    """The connection is used again."""
    with closing(client(web)) as made:
        for _ in range(3):
            answer = made.post(b"body", {"Content-Type": "application/x-ndjson"})
            assert (answer.status, answer.body, answer.cut) == (200, b"taken", False)
        assert made.connections == 1
    assert web.bodies == [b"body"] * 3
    assert web.paths == ["/in?query=1"] * 3
    assert web.headers[0]["authorization"] == SECRET
    assert web.headers[0]["x-org"] == "hosts"
    assert web.headers[0]["user-agent"].startswith("sessiond/")


def test_the_name_of_a_server_has_no_query() -> None:
    """The query may be a key."""
    assert Server("::1", 80, "/a?key=k").name == "http://[::1]:80/a"


def test_an_idle_connection_that_was_closed_is_no_failure(web: Web) -> None:
    """The server may close it at any time; the request uses a new one."""
    with closing(client(web)) as made:
        made.post(b"1", {})
        web.kill()
        web.start()
        assert made.post(b"2", {}).status == 200
        assert made.connections == 2


def test_keys_are_read_for_each_connection(web: Web) -> None:
    """After an error there is a new connection, so that a replaced key needs no reload."""
    current = ["old"]
    with closing(client(web, secrets=lambda: {"Authorization": current[0]})) as made:
        web.script.append(status(401))
        assert made.post(b"1", {}).status == 401
        current[0] = "new"
        assert made.post(b"2", {}).status == 200
    assert [fields["authorization"] for fields in web.headers] == ["old", "new"]


def test_a_key_that_can_not_be_read_is_a_failure(web: Web) -> None:
    """It is reported like any other error, and nothing is sent."""

    def secrets() -> dict[str, str]:
        raise ConfigError("output.http.secret_headers.Authorization: /key: no such file")

    with closing(client(web, secrets=secrets)) as made, pytest.raises(HttpError, match="/key"):
        made.post(b"1", {})
    assert web.bodies == []


def test_a_redirect_is_not_followed(web: Web) -> None:
    """The key would go to the server that the redirect names."""
    with closing(Web(status(200))) as other, closing(client(web)) as made:
        web.script.append(status(307, Location=f"http://127.0.0.1:{other.port}/"))
        answer = made.post(b"1", {})
        assert (answer.status, answer.location) == (307, f"http://127.0.0.1:{other.port}/")
        assert other.bodies == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "broke its answer off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "broke its answer off"),
        (b"HTTP/1.1 200 OK\r\nX: y", "does not say where it ends"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "broke its answer off"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 " + b"2" * 100_000, "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nab", "broke its answer off"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            "broke its answer off",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\n{}", "does not say where it ends"),
    ],
)
def test_a_faulty_server_is_an_error(web: Web, data: bytes, reason: str) -> None:
    """A status line alone is not an answer."""
    with closing(client(web)) as made:
        web.script.append(raw(data))
        with pytest.raises(HttpError, match=reason) as raised:
            made.post(b"1", {})
        assert SECRET not in str(raised.value)
        assert made.post(b"2", {}).status == 200


def test_an_endless_answer_is_cut(web: Web) -> None:
    """Memory is bounded; the result is marked as cut."""
    with closing(client(web)) as made:
        web.script.append(status(200, b"x" * (MAX_ANSWER + 1)))
        answer = made.post(b"1", {})
        assert (answer.cut, len(answer.body)) == (True, MAX_ANSWER)
        assert made.post(b"2", {}).body == b"taken"


def test_a_chunk_without_end_is_cut(web: Web) -> None:
    """A chunk whose size is negative must not be read until the end of the connection."""

    def endless(exchange: Exchange) -> None:
        exchange.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
        for _ in range(10 * MAX_ANSWER >> 20):
            exchange.wfile.write(b"x" * (1 << 20))
        exchange.close_connection = True

    with closing(client(web)) as made:
        web.script.append(endless)
        assert len(made.post(b"1", {}).body) == MAX_ANSWER
        assert made.post(b"2", {}).body == b"taken"


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_interim_answers_are_skipped(web: Web, interim: bytes) -> None:
    """The answer is the one after them, which often arrives in the same segment."""
    with closing(client(web)) as made:
        head = b"HTTP/1.1 %b\r\nLink: </x>\r\n\r\n" % interim
        web.script.append(raw(head * 2 + b"HTTP/1.1 201 Made\r\nContent-Length: 2\r\n\r\nok"))
        answer = made.post(b"1", {})
        assert (answer.status, answer.body) == (201, b"ok")


def test_a_failure_of_an_old_proxy_is_heard(web: Web) -> None:
    """Unlike a success, an error is reported even if its answer ends with the connection."""
    with closing(client(web)) as made:
        web.script.append(raw(b"HTTP/1.0 503 Service Unavailable\r\n\r\n<html>no server</html>"))
        answer = made.post(b"1", {})
        assert (answer.status, answer.body) == (503, b"<html>no server</html>")


@pytest.mark.parametrize("end", ["shutdown", "close", "reset"])
def test_an_answer_before_the_end_of_the_request_is_heard(end: str) -> None:
    """A server that finds a request too large answers and closes, in whatever way."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            if end == "shutdown":
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 20):
                    continue
            elif end == "reset":
                at_once = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        server = Server("127.0.0.1", listener.getsockname()[1], "/")
        with closing(HttpClient(server, headers={}, secrets=dict, timeout=5)) as made:
            assert made.post(b"x" * (4 << 20), {}).status == 413
        thread.join(timeout=5)


@pytest.mark.parametrize("what", ["server", "proxy"])
def test_a_name_that_can_not_be_resolved_is_a_failure(what: str) -> None:
    """An invalid name raises no OSError."""
    host, proxy = ("a..b", None) if what == "server" else ("es", ("x" * 64, 1))
    server = Server(host, 9200, "/", proxy=proxy)
    with (
        closing(HttpClient(server, headers={}, secrets=dict, timeout=5)) as made,
        pytest.raises(HttpError, match="the server's name is invalid"),
    ):
        made.post(b"1", {})


@pytest.mark.parametrize("when", ["answer", "handshake"])
def test_a_hanging_request_can_be_aborted(keys: Path, web: Web, when: str) -> None:
    """Another thread aborts it, in any phase; it is not retried."""
    web.take = hang
    web.script.append(status(200))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        if when == "answer":
            made = client(web)
            made.post(b"0", {})
        else:
            server = Server("127.0.0.1", silent.getsockname()[1], "/", tls(keys))
            made = HttpClient(server, headers={}, secrets=dict, timeout=60)
        failed = threading.Event()

        def post() -> None:
            with pytest.raises(HttpError):
                made.post(b"1", {})
            failed.set()

        threading.Thread(target=post, daemon=True).start()
        end = time.monotonic() + 10
        while not failed.wait(0.02):  # once it has reached the phase in which it hangs
            made.abort()
            assert time.monotonic() < end
        made.close()
        assert len(web.bodies) == (2 if when == "answer" else 0)


def test_no_server(web: Web) -> None:
    """The reason is the system's error."""
    web.kill()
    with closing(client(web)) as made, pytest.raises(HttpError, match="Connection refused"):
        made.post(b"1", {})


def test_tls_with_certificates_of_both(tls_web: Web, keys: Path) -> None:
    """Both sides verify the other."""
    with closing(client(tls_web, tls=tls(keys))) as made:
        assert made.post(b"1", {}).status == 200
        assert made.post(b"2", {}).status == 200


@pytest.mark.parametrize(("ca", "name"), [("other", "localhost"), ("ca", "elsewhere.example")])
def test_another_server_receives_nothing(tls_web: Web, keys: Path, ca: str, name: str) -> None:
    """A server with another authority or name receives neither lines nor key."""
    with (
        closing(client(tls_web, tls=tls(keys, ca=ca, name=name))) as made,
        pytest.raises(HttpError, match="certificate verify failed"),
    ):
        made.post(b"1", {})
    assert tls_web.bodies == []


def test_renewed_certificates_are_used(tls_web: Web, keys: Path, tmp_path: Path) -> None:
    """Of the client and of the authority, for the next connection; an unusable one is reported."""
    used = make_certificates(tmp_path)
    with closing(client(tls_web, tls=tls(used))) as made:
        with pytest.raises(HttpError, match="certificate verify failed"):
            made.post(b"1", {})
        shutil.copy(keys / "client.pem", used)
        with pytest.raises(HttpError, match=r"output\.http\.tls: .* can't be used"):
            made.post(b"2", {})
        shutil.copy(keys / "client.key", used)
        shutil.copy(keys / "ca.pem", used)
        assert made.post(b"3", {}).status == 200
    assert tls_web.bodies == [b"3"]


class Proxy:
    """A proxy that connects to the requested target, or refuses."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.heads: list[bytes] = []
        self._refuse = refuse
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._serve)

    def _start(self, target: Callable[..., None], *args: socket.socket) -> None:
        self._threads.append(threading.Thread(target=target, args=args, daemon=True))
        self._threads[-1].start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(65536)
                self.heads.append(head)
                if self._refuse:
                    client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                    client.shutdown(socket.SHUT_RDWR)
                    continue
                _, where, _ = head.split(b" ", 2)
                host, port = where.removeprefix(b"http://").split(b"/")[0].split(b":")
                server = socket.create_connection((host.decode(), int(port)))
                self._sockets.append(server)
                if head.startswith(b"CONNECT"):
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    server.sendall(head)
                for one, other in ((client, server), (server, client)):
                    self._start(self._pass, one, other)

    @staticmethod
    def _pass(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End all connections, and accept no more."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # wakes accept and recv, which close does not
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for each in self._sockets:
            each.close()


FOR_BOTH = {"Authorization": SECRET, "Proxy-Authorization": "Basic cHJveHk="}


def test_tls_through_a_proxy(tls_web: Web, keys: Path) -> None:
    """The proxy has its own key and sees no other."""
    with closing(Proxy()) as proxy:
        made = client(tls_web, tls=tls(keys), proxy=proxy.address, secrets=lambda: FOR_BOTH)
        with closing(made):
            assert made.post(b"1", {}).status == 200
        (head,) = proxy.heads
    assert head.startswith(b"CONNECT 127.0.0.1:%d " % tls_web.port)
    assert b"Basic cHJveHk=" in head
    assert SECRET.encode() not in head
    assert tls_web.headers[0]["authorization"] == SECRET
    assert "proxy-authorization" not in tls_web.headers[0]


def test_an_address_of_ipv6_through_a_proxy(keys: Path) -> None:
    """It is in brackets, as in a URL."""
    with closing(Proxy(refuse=True)) as proxy:
        server = Server("::1", 9200, "/", tls(keys), proxy.address)
        with (
            closing(HttpClient(server, headers={}, secrets=dict, timeout=5)) as made,
            pytest.raises(HttpError, match="407"),
        ):
            made.post(b"1", {})
    assert proxy.heads[0].startswith(b"CONNECT [::1]:9200 ")


def test_a_plain_request_through_a_proxy(web: Web) -> None:
    """The request line has the whole URL."""
    with closing(Proxy()) as proxy:
        with closing(client(web, proxy=proxy.address, secrets=lambda: FOR_BOTH)) as made:
            assert made.post(b"1", {}).status == 200
        assert proxy.heads[0].startswith(b"POST http://127.0.0.1:%d/in?query=1 " % web.port)
        assert b"Proxy-Authorization: Basic cHJveHk=" in proxy.heads[0]


def test_a_proxy_that_refuses(tls_web: Web, keys: Path) -> None:
    """The error has the proxy's text."""
    with (
        closing(Proxy(refuse=True)) as proxy,
        closing(client(tls_web, tls=tls(keys), proxy=proxy.address)) as made,
        pytest.raises(HttpError, match="407 Proxy Authentication Required"),
    ):
        made.post(b"1", {})


def test_retry_after_is_parsed(web: Web) -> None:
    """In seconds, or as a date; invalid values are ignored."""
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    waits = []
    with closing(client(web)) as made:
        for text in ("17", date, "soon", "-3", "\xb2", "9" * 1000):
            web.script.append(status(503, Retry_After=text))
            waits.append(made.post(b"1", {}).retry_after)
    seconds, until, *nonsense, huge = waits
    assert (seconds, nonsense) == (17.0, [None, None, None])
    assert until is not None
    assert 50 < until <= 100
    assert huge == 999_999_999.0


def test_bodies_are_compressed() -> None:
    """The name of the encoding says how."""
    gzipped, packed = compressor("gzip"), compressor("zstd")
    assert gzipped is not None
    assert packed is not None
    assert (gzipped.encoding, packed.encoding) == ("gzip", "zstd")
    assert gzip.decompress(gzipped.compress(b"x" * 1000)) == b"x" * 1000
    library = zstd.implementation()
    assert library is not None
    assert zstd.Reader(io.BytesIO(packed.compress(b"x" * 1000)), library).read() == b"x" * 1000
    assert compressor("none") is None


def test_without_zstd_it_is_gzip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are sent even if the library is missing."""
    monkeypatch.setattr(zstd, "implementation", lambda: None)
    made = compressor("zstd")
    assert made is not None
    assert made.encoding == "gzip"
