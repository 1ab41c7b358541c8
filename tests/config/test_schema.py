"""The options themselves: each is declared once, with all that a person needs to set it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sessiond.audit.rules import parser, plan
from sessiond.config.load import loads
from sessiond.config.reference import options
from sessiond.config.schema import DEFAULT_RULES, Config, SocketSettings
from sessiond.errors import ConfigError


def test_each_option_has_a_help_that_is_a_sentence() -> None:
    """Which --settings and the shipped file show."""
    assert len(options()) > 40
    for option in options().values():
        assert option.help.rstrip().endswith("."), option.path


def test_the_defaults_are_what_the_default_file_says() -> None:
    """An empty file is the default configuration."""
    assert loads("# nothing", "empty.yml") == Config()


def test_the_default_rules_are_the_four_system_calls() -> None:
    """Nothing more is recorded unasked."""
    audited = {
        name
        for name in ("execve", "execveat", "exit_group", "setsid", "open", "connect")
        if plan.audits(parser.parse(DEFAULT_RULES, "default").rules, name)
    }
    assert audited == {"execve", "execveat", "exit_group", "setsid"}


def test_paths_follow_their_directories() -> None:
    """A changed state or runtime directory moves what is in it."""
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
    """IPv6 in brackets, as in URLs."""
    assert SocketSettings(type="tcp", address=address).host_and_port() == (host, port)


@pytest.mark.parametrize("address", ["192.0.2.1", ":5044", "h:0", "h:65536", "h:x", "::1:80"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """With the setting's name and an example."""
    with pytest.raises(ConfigError, match=r"output\.socket\.address"):
        loads(f'output: {{socket: {{type: tcp, address: "{address}"}}}}', "f.yml")


def test_a_configuration_does_not_change() -> None:
    """A reload makes another one."""
    with pytest.raises(AttributeError):
        Config().event = None  # type: ignore[misc, assignment]
    assert msgspec.structs.replace(Config()) == Config()
