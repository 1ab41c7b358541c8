"""A replay to an output of the configuration delivers every line, or says that it did not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.web import Web, ndjson, status

from sessiond.config.load import load
from sessiond.config.schema import Config
from sessiond.errors import OutputError
from sessiond.replay.delivered import ConfiguredOutput, configured


@pytest.fixture
def web() -> Iterator[Web]:
    """A server that stores lines."""
    server = Web(ndjson)
    yield server
    server.close()


@pytest.fixture
def config(web: Web, tmp_path: Path) -> Config:
    """Lines go to the server, in small requests."""
    path = tmp_path / "sessiond.yml"
    path.write_text(
        f"state_directory: {tmp_path}/none\n"
        f"output: {{http: {{url: 'http://127.0.0.1:{web.port}', "
        "preset: ndjson, backoff: {init: 1s, max: 1s}, batch: {max_size: 64KiB}}}\n"
    )
    return load(path)


def lines(number: int) -> list[bytes]:
    text = b'{"event":{"kind":"event","id":"e-%d","sequence":%d},"x":"%b"}\n'
    return [text % (index, index, b"x" * 500) for index in range(number)]


def test_every_line_arrives(web: Web, config: Config) -> None:
    """The queue is smaller than the log: the replay waits, and drops nothing."""
    wanted = lines(40_000)
    with configured(config, "output.http", print) as output:
        for start in range(0, len(wanted), 512):
            output.writelines(wanted[start : start + 512])
        output.flush()
    assert sum(map(len, wanted)) > 20_000_000
    assert web.kept == {f"e-{index}": 1 for index in range(len(wanted))}
    assert not config.spool_path.exists()


def test_a_server_that_is_away_for_a_moment_does_not_matter(web: Web, config: Config) -> None:
    """Lines are sent again."""
    web.script.extend([status(503)] * 3)
    with configured(config, "output.http", print) as output:
        output.writelines(lines(10))
        output.flush()
    assert len(web.kept) == 10


def test_a_server_that_does_not_answer_is_an_error(web: Web, config: Config) -> None:
    """It says soon that lines wait, then how many were not delivered, and why."""
    web.close()
    said: list[str] = []
    with configured(config, "output.http", print) as output:
        hurried = ConfiguredOutput(output._output, complain=said.append, silence=0.1, patience=1.5)
        hurried.writelines(lines(10))
        with pytest.raises(OutputError, match=r"127\.0\.0\.1.*10 lines were not delivered: \w"):
            hurried.flush()
    [waits] = said
    assert re.search(r"127\.0\.0\.1.*10 lines wait for at most 2 s: \w", waits)


def test_lines_that_a_server_refuses_are_an_error(web: Web, config: Config) -> None:
    """They will never arrive."""
    web.take = status(400)
    with configured(config, "output.http", print) as output:
        output.writelines(lines(1))
        with pytest.raises(OutputError, match="1 lines: refused by the output"):
            output.flush()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("output.socket", "the configuration has no output.socket"),
        ("output.file", r"not output.http or output.socket.*\./output.file"),
        ("output.kafka", "not output.http or output.socket"),
    ],
)
def test_other_names_say_what_is_possible(config: Config, name: str, problem: str) -> None:
    """The file belongs to the daemon, which numbers and seals its lines."""
    with pytest.raises(OutputError, match=problem):
        configured(config, name, print)
