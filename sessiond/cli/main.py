"""The command line: arguments, one-line errors, exit codes. Only this module exits the process.

Each command imports its modules when it runs, so that ``--help`` and ``--version`` are fast.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sessiond import __version__, errors
from sessiond.cli import declare, detect, migrate, record, replay, setup, traffic, verify, viewer
from sessiond.cli.terminal import complain, give_up_output, say, telling

if TYPE_CHECKING:
    from sessiond.audit.rules.ruleset import RuleSet
    from sessiond.config.schema import Config


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run a command and return its exit code; every failure is one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = False
    try:
        arguments = declare.parse(command_line(), argv)
        debug = arguments.debug
        command: Callable[[argparse.Namespace], int] = arguments.command
        code = command(arguments)
        with telling():
            sys.stdout.flush()
    except errors.SessiondError as error:
        complain(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        code = declare.INTERRUPTED
    except BrokenPipeError:
        give_up_output()
        code = errors.READER_GONE
    except ModuleNotFoundError as error:
        code = _missing(error, debug=debug)
    except Exception as error:  # noqa: BLE001 - users get a message, not a traceback
        if isinstance(error, OSError) and error.errno in errors.SHORTAGES:
            complain(f"{(error.strerror or '').lower()}; {errors.SHORTAGES[error.errno]}")
            return errors.SourceUnavailableError.exit_code
        code = _bug(error, debug=debug)
    return code


def _missing(error: ModuleNotFoundError, *, debug: bool) -> int:
    """Name the package of a library that this host lacks."""
    library = (error.name or "").partition(".")[0]
    if library not in errors.LIBRARIES:
        return _bug(error, debug=debug)
    complain(f"{sys.executable} can't import {library}; install {errors.LIBRARIES[library]}")
    return errors.SessiondError.exit_code


def _bug(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    hint = "please report it" if debug else "please report it with the output of --debug"
    complain(f"a bug in sessiond: {type(error).__name__}: {error}; {hint}")
    return declare.INTERNAL_ERROR


# --- the arguments -----------------------------------------------------------------------------


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = declare.Parser(
        prog="sessiond",
        description="Records every process on this host, who started it, and in which session: "
        "audit records in, enriched ECS events out, one line of JSON each.",
        epilog=declare.epilog(
            "sessiond check                 check the configuration and this host\n"
            "sessiond run --output -        show events on the terminal, until Ctrl-C\n"
            "sessiond COMMAND --help        show help for a command",
            declare.EXIT_CODES,
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sessiond {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_run, _add_check, replay.add, _add_rules, _add_status, _add_ps):
        add(commands)
    viewer.add(commands)
    detect.add(commands)
    traffic.add(commands)
    verify.add(commands)
    record.add(commands)
    migrate.add(commands)
    setup.add(commands)
    return parser


def _host_troubles() -> str:
    from sessiond.cli import check

    return check.exit_codes_help() + "\n"


def _add_run(commands: declare.Commands) -> None:
    parser = declare.command(
        commands,
        "run",
        _run,
        "run the daemon in the foreground",
        "Loads the audit rules, follows all processes and writes an event for each exec, each end "
        "and everything else that the rules record. Needs root, or CAP_AUDIT_CONTROL and "
        "CAP_AUDIT_READ, and for eBPF CAP_BPF, CAP_PERFMON and CAP_DAC_READ_SEARCH. On exit "
        "(SIGTERM, Ctrl-C) it restores the host's audit state. SIGHUP reloads the configuration "
        "and reopens the output files.",
        "sessiond run --output -                    built-in defaults, events on the terminal\n"
        "sessiond run -c my.yml                     another configuration\n"
        "sessiond run --output - | jq .process.args",
        (0, 2, 3, 4, 5, 6, 70),
    )
    declare.add_config(parser)
    parser.add_argument(
        "--output",
        metavar="-|PATH",
        help="write events only to standard output (-) or to this file, whatever the "
        "configuration says; on a terminal - shows a line for each event",
    )
    parser.add_argument(
        "--json", action="store_true", help="with --output -: write JSON to a terminal as well"
    )


def _add_check(commands: declare.Commands) -> None:
    parser = declare.command(
        commands,
        "check",
        _check,
        "validate the configuration and the rules, check the host, change nothing",
        "Reads the configuration, compiles all rules, prints the rules to be loaded, and reports "
        "what sessiond lacks on this host and how to fix it: each kind of problem has a line and "
        "an exit code. The first failure determines the exit code; a warning is not a failure.",
        "sessiond check -c new.yml && cp new.yml /etc/sessiond.yml\n"
        "sessiond check --settings > sessiond.yml   a commented file with all settings",
        (0, 2, 3, declare.HOST_PROBLEM),
    )
    parser.more_help = _host_troubles
    declare.add_config(parser)
    parser.add_argument("--strict", action="store_true", help="treat warnings as failures")
    parser.add_argument(
        "--settings",
        action="store_true",
        help="print a commented configuration with all settings and defaults, and exit",
    )


def _add_rules(commands: declare.Commands) -> None:
    parser = declare.command(
        commands,
        "rules",
        _rules,
        "compare the configured rules with the loaded ones",
        "Compares the rules of the configuration with those in the kernel; needs "
        "CAP_AUDIT_CONTROL. Each line is a rule as auditctl -l prints it, after a sign: = "
        "configured and loaded, + configured but not loaded, ~ loaded but not configured.",
        "sessiond rules\nsessiond rules -c new.yml",
        (0, 1, 2, 3, 4),
    )
    declare.add_config(parser)


def _add_status(commands: declare.Commands) -> None:
    parser = declare.command(
        commands,
        "status",
        _status,
        "ask the running daemon for its health and counters",
        "Connects to the daemon's status socket; root, the daemon's user and the members of "
        "status_socket.group may do so.",
        "sessiond status\n"
        "sessiond status --json | jq .health\n"
        "sessiond status --prometheus -o /var/lib/prometheus/node-exporter/sessiond.prom\n"
        "sessiond status > /dev/null || echo 'sessiond is not healthy'",
        (0, 1, 2, 6, 7),
    )
    declare.add_config(parser)
    parser.add_argument("--socket", type=Path, metavar="PATH", help="the daemon's status socket")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the answer as JSON")
    form.add_argument(
        "--prometheus",
        action="store_true",
        help="print metrics in the Prometheus text format; sessiond_up is 0 if no daemon answers",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="write atomically to this file instead, readable by everyone",
    )


def _add_ps(commands: declare.Commands) -> None:
    parser = declare.command(
        commands,
        "ps",
        _ps,
        "show the processes that the running daemon knows",
        "Reads the process table from the daemon's status socket: pid, user, login user, entry, "
        "start time, command. Root, the daemon's user and users who can read the output file may "
        "do so. On a terminal, lines fit its width and identical processes share a line.",
        "sessiond ps --tree\n"
        "sessiond ps --entry sshd                   also an address, a container, a program\n"
        "sessiond ps --pid 4711                     with ancestors and the source of each fact\n"
        "sessiond ps --json | jq -r .executable",
        (0, 1, 2, 7),
    )
    declare.add_config(parser)
    parser.add_argument("--socket", type=Path, metavar="PATH", help="the daemon's status socket")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--tree", action="store_true", help="show a tree of forks")
    form.add_argument(
        "--json", action="store_true", help="print process objects as in events, one per line"
    )
    parser.add_argument(
        "--session", metavar="ID", help="show the session of this leader (pid or entity id)"
    )
    parser.add_argument(
        "--user", metavar="USER", help="show processes of this user or login user (name or id)"
    )
    parser.add_argument(
        "--entry", metavar="ENTRY", help="show an entry type, address, container or name of entries"
    )
    parser.add_argument(
        "--pid",
        type=declare.pid,
        metavar="N",
        help="show this process and its ancestors, also ended ones",
    )
    parser.add_argument(
        "--ended", action="store_true", help="show ended processes that others still refer to"
    )


# --- the commands --------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> int:
    from sessiond.system import lean

    lean.import_lean()
    from sessiond import sources
    from sessiond.config import load
    from sessiond.system import log

    def read() -> Config:
        """Read the configuration, at the start and at each reload."""
        return with_output(load.load(arguments.config), arguments.output)

    gc.disable()  # the daemon enables it: what is imported and read now lives to the end
    log.configure("debug" if arguments.debug else "info")
    try:
        loaded = read()
    except errors.ConfigError:
        # For the service manager, which does not restart the service after this error.
        if (directory := os.environ.get("RUNTIME_DIRECTORY")) is not None:
            from sessiond.daemon import daemon

            daemon.clean_up_after_crash(Path(directory))
        raise
    log.configure("debug" if arguments.debug else loaded.logging.level, loaded.logging.format)
    source, kept = loaded.session_metadata, "LISTEN_FDS" in os.environ
    # The compiler takes longest: it works while the rest of the daemon is loaded. What the service
    # manager has kept needs none.
    helper = (
        None
        if kept
        else sources.prepare(
            source.backend, ring_bytes=source.ring_buffer, args_limit=source.args_limit
        )
    )
    from sessiond.daemon import (
        daemon,  # imported late: a configuration error is reported without loading it
    )

    if arguments.output == "-" and sys.stdout.isatty() and not arguments.json:
        from sessiond.cli import live

        with live.Shown():
            return daemon.run(loaded, read, helper)
    return daemon.run(loaded, read, helper)


def with_output(loaded: Config, output: str | None) -> Config:
    """Replace the configured outputs with that of ``--output``; other settings stay."""
    import msgspec

    from sessiond.config.schema import ConsoleSettings, FileSettings, OutputSettings, Section

    if output is None:
        return loaded
    only: dict[str, Section | None] = dict.fromkeys(OutputSettings.kinds)
    if output == "-":
        only["console"] = ConsoleSettings()
    else:
        configured = loaded.output.file or FileSettings()
        only["file"] = msgspec.structs.replace(configured, path=Path(output).absolute())
    return msgspec.structs.replace(loaded, output=msgspec.structs.replace(loaded.output, **only))


def _check(arguments: argparse.Namespace) -> int:
    from sessiond.config import load, reference

    if arguments.settings:
        say(reference.commented())
        return 0
    from sessiond.audit.rules import ruleset
    from sessiond.cli import check
    from sessiond.daemon import factory

    _quiet(arguments)
    loaded = load.load(arguments.config)
    _say_settings(loaded, arguments.config or load.DEFAULT_PATH)
    factory.line_chain(loaded.event)
    for problem in factory.unchecked_secrets(loaded.output):
        say(f"  {problem}")
    wanted = ruleset.RuleSet()
    if check.Host().loadable("libaudit.so.1"):
        wanted = _wanted(loaded)
        _say_rules(wanted, loaded)
    else:
        say("rules: not checked, because libaudit is missing")
    file = loaded.output.file
    audit = loaded.auditd.enabled
    doubtful = _say_filters(loaded, arguments.config or load.DEFAULT_PATH, wanted)
    findings = check.report(
        output=None if file is None else file.path,
        compress="none" if file is None else file.rotate.compress,
        audit=audit,
        own_rules=[rule.canonical for rule in wanted],
        doubtful_filters=doubtful,
        directories={
            "runtime_directory": loaded.runtime_directory,
            "state_directory": loaded.state_directory,
        },
    )
    say("host:\n" + textwrap.indent(check.render(findings), "  "))
    return check.exit_code(findings, strict=arguments.strict)


def _say_filters(loaded: Config, path: Path, wanted: RuleSet) -> bool:
    """Print what is to be said of the filters; return whether something is wrong with one."""
    if not loaded.filters:
        return False
    from sessiond.cli.filters import lines_dropped, say_exposures, say_never_rules
    from sessiond.config import load
    from sessiond.filters import never
    from sessiond.system.files import read_trusted
    from sessiond.system.ordinary_users import ordinary_users

    warnings = load.filter_warnings(read_trusted(path), str(path))
    users = ordinary_users()
    doubtful = say_exposures(loaded.filters, users, warnings)
    if not wanted.rules or loaded.session_metadata.backend == "procfs":
        return doubtful  # without a tracer, audit must tell of each exec
    offers = never.offers(loaded.filters, users, load.rule_arches())
    say_never_rules(
        offers,
        never.loaded_for(offers, wanted),
        lines_dropped(loaded.status_socket_path) if offers else {},
        built_in=loaded.auditd.audit_rules is None and loaded.auditd.audit_rule_files is None,
    )
    return doubtful


def _say_settings(loaded: Config, path: Path) -> None:
    from sessiond.config import load, reference
    from sessiond.config.quantities import show
    from sessiond.config.schema import Config

    for setting in ("output.file.owner", "status_socket.owner"):
        load.user_id(setting, reference.get(loaded, setting))
    for setting in ("output.file.group", "status_socket.group"):
        load.group_id(setting, reference.get(loaded, setting))
    say(f"configuration: {path if path.exists() else 'built-in defaults'}")
    for setting in reference.diff(Config(), loaded):
        say(f"  {setting}: {show(reference.get(loaded, setting))}")


def _say_rules(wanted: RuleSet, loaded: Config) -> None:
    from sessiond.audit.rules import ruleset
    from sessiond.config import load

    say(f"rules: {len(wanted)} would be loaded")
    for rule in wanted:
        say(f"  {rule.describe()}")
    for control in wanted.controls:
        say(f"  {control.name} = {control.value}")
    for error in wanted.errors:
        say(f"  skipped: {error}")
    for warning in wanted.warnings:
        say(f"  warning: {warning}")
    for pattern in load.empty_patterns(loaded):
        say(f"  warning: auditd.audit_rule_files: no file matches {pattern}")
    if not loaded.auditd.enabled:
        say("  audit is not used (auditd.enabled: false)")
    elif not wanted.rules and loaded.auditd.socket_type != "multicast":
        say(f"  warning: {ruleset.NO_RULES}")


def _rules(arguments: argparse.Namespace) -> int:
    from sessiond.audit.kernel.client import AuditClient
    from sessiond.audit.rules.plan import plan
    from sessiond.config import load

    _quiet(arguments)
    wanted = _wanted(load.load(arguments.config))
    with AuditClient.open() as client:
        changes = plan(wanted, client.list_rules())
    missing = {rule.canonical for rule in changes.add}
    for rule in wanted:
        say(f"{'+' if rule.canonical in missing else '='} {rule.describe()}")
    known = {rule.canonical for rule in wanted}
    for other in changes.foreign:
        if other.data not in known:
            say(f"~ {other.describe()}")
    return declare.DIFFERENT if missing else 0


def _status(arguments: argparse.Namespace) -> int:
    import orjson

    from sessiond.cli import metrics, status
    from sessiond.config import load

    _quiet(arguments)
    path = arguments.socket or load.load(arguments.config).status_socket_path
    try:
        document = status.query(path)
    except errors.StatusError:
        if arguments.prometheus:
            _answer(metrics.render(None), arguments.output)
        raise
    if arguments.json:
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"
    elif arguments.prometheus:
        text = metrics.render(document)
    else:
        text = status.render(document)
    _answer(text, arguments.output)
    return 0 if status.healthy(document) else declare.DIFFERENT


def _answer(text: str, path: Path | None) -> None:
    """Print a text, or replace a file atomically."""
    from sessiond.system import files

    if path is None:
        say(text)
        return
    try:
        files.publish_file(path, text.encode())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if not path.parent.exists():
            reason = f"{path.parent} does not exist; create it, or name a file in another directory"
        raise errors.OutputError(f"{path}: can't be written: {reason}") from None


def _ps(arguments: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from sessiond.cli import ps
    from sessiond.config import load
    from sessiond.pipeline.listing import ListRequest

    _quiet(arguments)
    path = arguments.socket or load.load(arguments.config).status_socket_path
    facts = arguments.pid is not None and not (arguments.json or arguments.tree)
    request = ListRequest(
        form="facts" if facts else "objects" if arguments.json else "rows",
        session=arguments.session,
        user=arguments.user,
        entry=arguments.entry,
        pid=arguments.pid,
        ended=arguments.ended,
    )
    lines = ps.listed(path, request)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if arguments.json:
        found = False
        for line in lines:
            found = True
            say(line.decode("utf-8"))
    elif facts:
        text = list(ps.family(lines, width))
        found = bool(text)
        if found:
            say("\n".join(text))
    else:
        rows = ps.rows(lines)
        found = bool(rows)
        now = datetime.now(UTC).astimezone()
        for row in ps.table(rows, width=width, now=now, tree=arguments.tree):
            say(row)
    if arguments.pid is not None and not found:
        raise errors.StatusError(f"process {arguments.pid} is not known")
    return 0


def _wanted(loaded: Config) -> RuleSet:
    from sessiond.audit.rules import parser
    from sessiond.config import load

    texts = load.read_rules(loaded)
    return parser.parse_all(texts, keep_going=loaded.auditd.ignore_errors)


def _quiet(arguments: argparse.Namespace) -> None:
    from sessiond.system import log

    log.configure_command(debug=arguments.debug)
