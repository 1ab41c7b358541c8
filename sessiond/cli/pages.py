"""Manual pages and shell completions, generated from the command line and the settings.

``python -m sessiond.cli.pages sessiond.8|sessiond.yml.5|bash|zsh`` prints one of them; the package
build runs it. SOURCE_DATE_EPOCH (seconds) dates the manual pages. Sources: man-pages(7),
groff_man(7), bash(1) "Programmable Completion", zshcompsys(1).
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator

import msgspec
from msgspec import inspect as types

from sessiond import __version__
from sessiond.cli import declare
from sessiond.cli.main import command_line
from sessiond.config.quantities import show
from sessiond.config.reference import fields_of, options
from sessiond.config.schema import Config

_FILES = {
    "/etc/sessiond.yml": "The configuration, see sessiond.yml(5). Without it, defaults apply.",
    "/var/log/sessiond/events.ndjson": "The events, one JSON object per line.",
    "/var/lib/sessiond": "Lines that an output has not accepted yet.",
    "/var/cache/sessiond": "The compiled eBPF programs; may be deleted at any time.",
    "/run/sessiond": "The status socket, and the state that a restart needs.",
}


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command by its name."""
    for action in parser._actions:  # argparse has no other way to list them
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def arguments_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the options and arguments in a command's help."""
    return [
        action
        for action in parser._actions
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)
    ]


# --- manual pages --------------------------------------------------------------------------------


def manual() -> str:
    """Return sessiond(8): every command with its options, examples and exit codes."""
    parser = command_line()
    lines = [
        *_head("sessiond", 8, "session and process auditing"),
        ".SH SYNOPSIS",
        ".B sessiond",
        ".I COMMAND",
        "[\\,\\fIOPTION\\fR\\/ ...]",
        ".SH DESCRIPTION",
        _roff(parser.description or ""),
        ".SH COMMANDS",
    ]
    for name, command in commands_of(parser).items():
        lines += _command(name, command)
    lines.append(".SH EXIT STATUS")
    for code, meaning in declare.EXIT_CODES.items():
        lines += [".TP", f".B {code}", _roff(meaning)]
    lines.append(".SH FILES")
    for path, meaning in _FILES.items():
        lines += [".TP", f".I {_roff(path)}", _roff(meaning)]
    lines += [".SH SEE ALSO"]
    lines += [".BR sessiond.yml (5),", ".BR auditctl (8),", ".BR audit.rules (7),"]
    lines += [".BR systemd.service (5)"]
    return "\n".join(lines) + "\n"


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f".SS sessiond {_roff(name)}"
    yield _roff(" ".join((parser.description or "").split()))
    for action in arguments_of(parser):
        if isinstance(action, argparse._HelpAction):
            continue
        yield ".TP"
        yield _option(action)
        yield _roff((action.help or "").replace("%%", "%"))
    text = parser.epilog or ""
    examples = re.search(r"examples:\n(.*?)(?:\n\n|\Z)", text, re.DOTALL)
    if examples:
        yield ".PP"
        yield "Examples:"
        yield ".PP"
        yield from (".nf", ".RS 2")
        yield from (_roff(line.removeprefix("  ")) for line in examples[1].splitlines())
        yield from (".RE", ".fi")


def _option(action: argparse.Action) -> str:
    value = ""
    if action.nargs != 0:
        metavar = action.metavar or action.dest.upper()
        value = _roff(metavar if isinstance(metavar, str) else " ".join(metavar))
    if not action.option_strings:
        return f"\\fI{value}\\fR"
    names = ", ".join(f"\\fB{_roff(name)}\\fR" for name in action.option_strings)
    return f"{names} \\fI{value}\\fR" if value else names


def settings_manual() -> str:
    """Return sessiond.yml(5): every setting with its meaning, allowed values and default."""
    lines = [
        *_head("sessiond.yml", 5, "configuration of sessiond"),
        ".SH DESCRIPTION",
        _roff(
            "The configuration is YAML. Every setting is optional. Dots separate sections: "
            "auditd.backlog_limit is backlog_limit in the section auditd. sessiond check "
            "validates the file. A reload (systemctl reload sessiond) applies the settings that "
            "say so; the others require a restart."
        ),
        ".SH SETTINGS",
    ]
    section = None
    for path, option in options().items():
        at = path.rpartition(".")[0]
        if at != section:
            section = at
            lines += [f".SS {_roff(at or 'Directories')}", _roff(_help_of(at))] if at else []
        lines += [".TP", f"\\fB{_roff(path)}\\fR", _roff(option.help)]
        facts = f"Allowed: {option.allowed}."
        if option.default is not None and option.default is not msgspec.NODEFAULT:
            facts += f" Default: {show(option.default)}."
        facts += " A reload applies it." if option.live else ""
        lines += [".br", _roff(facts)]
    lines += [".SH FILES", ".TP", ".I /etc/sessiond.yml", "The configuration of the service."]
    lines += [".SH SEE ALSO", ".BR sessiond (8)"]
    return "\n".join(lines) + "\n"


def _help_of(section: str) -> str:
    """Return the purpose of a section: the first paragraph of its class's docstring."""
    at: type[msgspec.Struct] = Config
    for name in filter(None, section.split(".")):
        kind = {each: kind for each, kind, _ in fields_of(at)}[name]
        assert isinstance(kind, types.StructType)  # noqa: S101 - for the type checker
        at = kind.cls
    return " ".join((at.__doc__ or "").split("\n\n")[0].split())


def _head(name: str, section: int, purpose: str) -> list[str]:
    now = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = time.strftime("%Y-%m-%d", time.gmtime(now))
    title = f'.TH {name.upper()} {section} "{date}" "sessiond {__version__}"'
    return [title, ".SH NAME", f"{_roff(name)} \\- {purpose}"]


def _roff(text: str) -> str:
    """Escape characters that are special in roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("^", "\\(ha").replace("~", "\\(ti")
    return "\\&" + text if text.startswith(".") else text


# --- completions ---------------------------------------------------------------------------------

_BASH = """\
# bash completion for sessiond
_sessiond() {
    local current=${COMP_WORDS[COMP_CWORD]}
    local command=${COMP_WORDS[1]} words=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "@COMMANDS@ --help --version" -- "$current"))
        return
    fi
    case "$command" in
@OPTIONS@
    esac
    if [ "${current#-}" != "$current" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$current"))
    else
        COMPREPLY=($(compgen -f -- "$current"))
    fi
}
complete -o filenames -F _sessiond sessiond
"""


def bash() -> str:
    """Return the completion for bash: commands, options and files."""
    commands = commands_of(command_line())
    words = []
    for name, command in commands.items():
        known = [option for action in arguments_of(command) for option in action.option_strings]
        words.append(f'        {name}) words="{" ".join(known)}" ;;')
    text = _BASH.replace("@COMMANDS@", " ".join(commands))
    return text.replace("@OPTIONS@", "\n".join(words))


def zsh() -> str:
    """Return the completion for zsh: commands and options with descriptions."""
    commands = commands_of(command_line())
    summaries = {}
    for action in command_line()._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {each.dest: each.help or "" for each in action._choices_actions}
    lines = ["#compdef sessiond", "", "local -a commands=("]
    lines += [f"    {_quoted(f'{name}:{summaries[name]}')}" for name in commands]
    lines += [
        ")",
        "",
        "if (( CURRENT == 2 )); then",
        "    _describe command commands",
        "    return",
    ]
    lines += ["fi", "shift words", "(( CURRENT-- ))", "case $words[1] in"]
    for name, command in commands.items():
        lines.append(f"    {name})")
        lines.append("        _arguments \\")
        lines += [f"            {spec} \\" for spec in _zsh_arguments(command)]
        lines.append("            '*: :_files'")
        lines.append("        ;;")
    lines.append("esac")
    return "\n".join(lines) + "\n"


def _zsh_arguments(command: argparse.ArgumentParser) -> Iterator[str]:
    for action in arguments_of(command):
        text = re.sub(r"([\[\]:])", r"\\\1", (action.help or "").replace("%%", "%"))
        value = ""
        if action.nargs != 0:
            value = (
                f":value:({' '.join(map(str, action.choices))})" if action.choices else ":value:"
            )
            value = value if action.choices else ":value:_files"
        for option in action.option_strings:
            yield _quoted(f"{option}[{text}]{value}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


PAGES = {"sessiond.8": manual, "sessiond.yml.5": settings_manual, "bash": bash, "zsh": zsh}

if __name__ == "__main__":
    sys.stdout.write(PAGES[sys.argv[1]]())
