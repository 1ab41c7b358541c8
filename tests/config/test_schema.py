"""The declared options: help, defaults and checks between settings."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sessiond.audit.rules import parser, plan
from sessiond.config.load import loads
from sessiond.config.reference import options
from sessiond.config.schema import DEFAULT_RULES, Config, HttpSettings, SocketSettings
from sessiond.errors import ConfigError


def test_each_option_has_a_help_that_is_a_sentence() -> None:
    """`check --settings` and the shipped file show the help."""
    assert len(options()) > 40
    for option in options().values():
        assert option.help.rstrip().endswith("."), option.path


def test_the_defaults_are_what_the_default_file_says() -> None:
    """An empty file is the default configuration."""
    assert loads("# nothing", "empty.yml") == Config()


def test_the_default_rules_are_the_four_system_calls() -> None:
    """The built-in rules record no other system calls."""
    audited = {
        name
        for name in ("execve", "execveat", "exit_group", "setsid", "open", "connect")
        if plan.audits(parser.parse(DEFAULT_RULES, "default").rules, name)
    }
    assert audited == {"execve", "execveat", "exit_group", "setsid"}


def test_paths_follow_their_directories() -> None:
    """Changing the state or runtime directory moves the default paths below it."""
    config = loads("{state_directory: /srv/s, runtime_directory: /srv/r}", "f.yml")
    assert config.spool_path == Path("/srv/s/spool")
    assert config.status_socket_path == Path("/srv/r/status.sock")


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("192.0.2.1:5044", "192.0.2.1", 5044),
        ("[::1]:80", "::1", 80),
        ("logs.example:1", "logs.example", 1),
    ],
)
def test_a_tcp_address_has_host_and_port(address: str, host: str, port: int) -> None:
    """A TCP address is split into host and port; IPv6 is in brackets, as in URLs."""
    assert SocketSettings(type="tcp", address=address).host_and_port() == (host, port)


@pytest.mark.parametrize(
    "address", ["192.0.2.1", ":5044", "h:0", "h:65536", "h:x", "::1:80", "a..b:1", f"{'x' * 64}:1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    """The message has the setting's name and an example."""
    with pytest.raises(ConfigError, match=r"output\.socket\.address"):
        loads(f'output: {{socket: {{type: tcp, address: "{address}"}}}}', "f.yml")


def test_a_configuration_does_not_change() -> None:
    """A reload creates a new configuration instead of changing the old one."""
    with pytest.raises(AttributeError):
        Config().event = None  # type: ignore[misc, assignment]
    assert msgspec.structs.replace(Config()) == Config()


@pytest.mark.parametrize(
    "url",
    [
        "https://es.example.org:9200",
        "http://[::1]:8123/?query=INSERT%20INTO%20t%20FORMAT%20JSONEachRow",
        "https://vector.example.org/in",
    ],
)
def test_a_url_of_a_server(url: str) -> None:
    """parts() splits a valid URL."""
    assert HttpSettings(url=url).parts().geturl() == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "es:9200", "ftp://es", "https://", "https://es:x", "https://es/#a", "https://e s/"),
        *("https://es..example.org", "https://.example.org", f"https://{'x' * 64}.example.org"),
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    """The message has the setting's name and the allowed form."""
    with pytest.raises(ConfigError, match=r"output\.http\.url: .*allowed: https://host"):
        loads(f'output: {{http: {{url: "{url}"}}}}', "f.yml")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("url: https://user:geheim@es", "output.http.url: it contains a user or password"),
        (
            "url: https://es, proxy: 'http://u:geheim@proxy:1'",
            "output.http.proxy: it contains a user",
        ),
        ("url: https://es, proxy: https://proxy:1", "output.http.proxy: 'https://proxy:1' is not"),
        (
            "url: https://es, proxy: http://proxy",
            "output.http.proxy: 'http://proxy' is not the address",
        ),
        ("url: https://es, index: Logs", "output.http.index: 'Logs' is not a valid index name"),
        (
            "url: https://es, headers: {authorization: geheim}",
            "output.http.headers: authorization is a secret, but this file is not",
        ),
        ("url: https://es, headers: {Host: x}", "output.http.headers: sessiond sets Host itself"),
        ("url: https://es, headers: {a b: x}", "output.http.headers: a section is not valid"),
        ('url: https://es, headers: {a: "x\\ny"}', "output.http.headers: a section is not valid"),
        (
            "url: https://es, secret_headers: {Authorization: ApiKey geheim}",
            "output.http.secret_headers: the value of Authorization is neither",
        ),
    ],
)
def test_what_http_can_not_be_set_to(settings: str, said: str) -> None:
    """The message names the mistake and shows no secret."""
    with pytest.raises(ConfigError) as raised:
        loads(f"output: {{http: {{{settings}}}}}", "f.yml")
    assert str(raised.value).startswith(f"f.yml:1: {said}")
    assert "geheim" not in str(raised.value)
