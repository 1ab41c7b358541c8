"""The page is served only with its token, and only over loopback or TLS."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.descriptors import none_left_open

from sessiond.errors import ConfigError, OutputError
from sessiond.viewer.server import PageServer

DATA = b'{"events":1}'


@pytest.fixture
def server() -> Iterator[PageServer]:
    """One that serves on the loopback interface."""
    found = PageServer(lambda: (7, DATA))
    found.start()
    yield found
    found.stop()


def get(
    server: PageServer, path: str, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    url = urlsplit(server.address)
    assert url.port is not None
    connection = http.client.HTTPConnection("127.0.0.1", url.port, timeout=10)
    connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def test_the_page_and_its_data(server: PageServer) -> None:
    """The data once, as long as it is the same."""
    path = f"?token={server.token}"
    status, headers, body = get(server, f"/{path}")
    assert status == 200
    assert b"connect-src 'self'" in body
    assert headers["Cache-Control"] == "no-store"
    status, headers, body = get(server, f"/data{path}")
    assert (status, json.loads(body), headers["ETag"]) == (200, {"events": 1}, '"7"')
    assert get(server, f"/data{path}", If_None_Match='"7"')[0] == 304
    status, headers, body = get(server, f"/{path}", Accept_Encoding="deflate, gzip")
    assert b"<!doctype html>" in (zlib.decompress(body) if headers["Content-Encoding"] else body)


@pytest.mark.parametrize(
    "path", ["/", "/data", "/?token=", "/?token=x", "/data?token=%C3%A9", "/x"]
)
def test_without_the_token_there_is_nothing(server: PageServer, path: str) -> None:
    """Not even which pages there are."""
    status, _, body = get(server, path)
    assert status == 403
    assert b"events" not in body


def test_another_name_of_the_address_is_refused(server: PageServer) -> None:
    """A site that has its name point here does not get the data through a visitor's browser."""
    assert get(server, f"/data?token={server.token}", Host="evil.example")[0] == 421
    assert get(server, f"/data?token={server.token}", Host="localhost:1")[0] == 200


def test_other_addresses_want_tls(tmp_path: Path) -> None:
    """The message has the setting and the remedy; nothing listens then."""
    with pytest.raises(ConfigError, match="--certificate"):
        PageServer(lambda: (1, DATA), host="0.0.0.0")
    with none_left_open(), pytest.raises(ConfigError, match="no such file"):
        PageServer(lambda: (1, DATA), host="0.0.0.0", certificate=tmp_path / "none.pem")


def test_a_taken_port_is_told(server: PageServer) -> None:
    """The error is one line."""
    port = urlsplit(server.address).port
    assert port is not None
    with pytest.raises(OutputError, match="address already in use"):
        PageServer(lambda: (1, DATA), port=port)


def test_with_a_certificate_it_is_https(tmp_path: Path) -> None:
    """TLS is used on any address, also on loopback."""
    pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", pem, "-days", "1"),
        ],
        check=True,
        capture_output=True,
    )
    server = PageServer(lambda: (1, DATA), host="0.0.0.0", certificate=pem, key=key)
    server.start()
    url = urlsplit(server.address)
    assert (url.scheme, url.port is not None) == ("https", True)
    context = ssl.create_default_context(cafile=pem)
    connection = http.client.HTTPSConnection("127.0.0.1", url.port, context=context, timeout=10)
    connection.request("GET", f"/data?token={server.token}")
    assert connection.getresponse().read() == DATA
    connection.close()
    server.stop()
