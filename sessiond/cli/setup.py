"""``sessiond setup``: prepares a search engine for the events, and reports each step."""

from __future__ import annotations

import argparse
from pathlib import Path

from sessiond import errors
from sessiond.cli import declare, terminal


def add(commands: declare.Commands) -> None:
    """Declare the command."""
    parser = declare.command(
        commands,
        "setup",
        _setup,
        "install templates and a data stream in Elasticsearch or OpenSearch",
        "Prepares Elasticsearch 8.7 or later, or OpenSearch 2.15 or later: installs component and "
        "index templates with every field, a lifecycle policy, the data stream "
        "logs-sessiond.process-default, and the aliases that Elastic's prebuilt rules and Session "
        "View read. Reports each step. A repeated run updates only what has changed, and never the "
        "component template sessiond@custom, which is yours. Sends no events.",
        "sessiond setup elasticsearch --url https://es:9200 --api-key-file key --dry-run\n"
        "sessiond setup elasticsearch --url https://es:9200 --api-key-file key --ca ca.pem",
        (0, 2, 6),
    )
    parser.add_argument("engine", choices=["elasticsearch"], help="elasticsearch (or OpenSearch)")
    parser.add_argument("--url", required=True, metavar="URL", help="such as https://es:9200")
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="a file with an API key, encoded or as id:key",
    )
    parser.add_argument("--user", metavar="NAME", help="a user, instead of an API key")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="the user's password")
    parser.add_argument("--ca", metavar="FILE", help="CA certificates, instead of the system's")
    parser.add_argument(
        "--keep-days",
        type=_days,
        default=90,
        metavar="N",
        help="delete events after this many days (default: 90); an existing policy is kept",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the steps without changing anything",
    )


def _setup(arguments: argparse.Namespace) -> int:
    from sessiond.engines import elasticsearch

    engine = elasticsearch.Engine(arguments.url, _authorization(arguments), arguments.ca)
    for line in elasticsearch.install(
        engine, keep_days=arguments.keep_days, dry_run=arguments.dry_run
    ):
        terminal.say(line)
    return 0


def _authorization(arguments: argparse.Namespace) -> str | None:
    from sessiond.engines import elasticsearch

    if arguments.api_key_file and arguments.user:
        raise errors.ConfigError("--api-key-file and --user: give only one of them")
    if (arguments.user is None) != (arguments.password_file is None):
        raise errors.ConfigError("--user and --password-file: give both or neither")
    if arguments.api_key_file:
        return elasticsearch.api_key(_secret("--api-key-file", arguments.api_key_file))
    if arguments.user is not None:
        return elasticsearch.basic(
            arguments.user, _secret("--password-file", arguments.password_file)
        )
    return None


def _secret(option: str, path: Path) -> str:
    from sessiond.system.secret import read_key

    if not path.exists():
        raise errors.ConfigError(f"{option}: {path}: no such file")
    text = read_key(option, path, least=1).decode("utf-8", "replace").strip()
    if not text or not text.isprintable():
        raise errors.ConfigError(f"{option}: {path}: not a single line of text")
    return text


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 36500:
        raise argparse.ArgumentTypeError("a number of days, from 1 to 36500")
    return int(text)
