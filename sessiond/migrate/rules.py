"""Rewrites go-libaudit's audit rules where auditctl's syntax is stricter. Pure.

go-libaudit accepts options in any order, quotes, tabs and extra words at the end; auditctl, and so
sessiond, requires the list first, the arch before system calls, and the key last.
"""

from __future__ import annotations

import shlex
import stat
from typing import NamedTuple

from sessiond.audit.rules import parser
from sessiond.audit.rules.parser import PathMode
from sessiond.errors import RuleError


class RewrittenRules(NamedTuple):
    """Rules in auditctl's syntax, and the changes: (line, text) each.

    ``skipped`` are rules that this host would refuse because their path or user is missing.
    """

    text: str
    changes: list[tuple[int, str]]
    skipped: list[tuple[int, str]]


def rewrite(text: str, path_mode: PathMode) -> RewrittenRules:
    """Rewrite the rules in ``text``; invalid lines become comments.

    ``path_mode`` returns the st_mode of a path on this host, or raises OSError.
    """

    def anywhere(path: bytes) -> int:
        try:
            return path_mode(path)
        except OSError:
            return stat.S_IFREG

    changes: list[tuple[int, str]] = []
    lines = text.splitlines()
    for index, line in enumerate(lines):
        lines[index], change = _rewritten(line, anywhere)
        if change:
            changes.append((index + 1, change))
    for error in _errors("\n".join(lines), anywhere):
        if not _is_of_this_host(error):
            lines[error.line - 1] = f"# {lines[error.line - 1].strip()}"
            changes.append((error.line, f"left out: {error.reason}"))
    result = "\n".join(lines) + "\n" if lines else ""
    skipped = [(error.line, error.reason) for error in _errors(result, path_mode)]
    return RewrittenRules(result, sorted(changes), skipped)


def _errors(text: str, path_mode: PathMode) -> tuple[RuleError, ...]:
    return parser.parse(text, "rules", keep_going=True, path_mode=path_mode).errors


def _is_of_this_host(error: RuleError) -> bool:
    return error.reason.startswith(("there is no user", "there is no group"))


def _rewritten(line: str, path_mode: PathMode) -> tuple[str, str]:
    """Return the line in auditctl's syntax, and the change: "" for none."""
    stripped = line.strip()
    if not stripped or stripped.startswith("#"):
        return stripped, ""
    errors = _errors(stripped, path_mode)
    if not errors or _is_of_this_host(errors[0]):
        return stripped, ""
    try:
        rebuilt = _in_order(_options(shlex.split(stripped)))
    except ValueError as error:
        return f"# {stripped}", f"left out: {error}"
    errors = _errors(rebuilt, path_mode)
    if errors and not _is_of_this_host(errors[0]):
        return f"# {stripped}", f"left out: {errors[0].reason}"
    return rebuilt, f"written as {rebuilt}"


def _options(words: list[str]) -> list[tuple[str, str]]:
    """Parse options like Go's flag package: -k v, -k=v, --k=v; the first other word ends them."""
    found: list[tuple[str, str]] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word in ("-", "--"):
            break
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if name != "D" and not equals:
            try:
                value = next(rest)
            except StopIteration:
                raise ValueError(f"{word} has no value") from None
        found.append((f"-{name}", value))
    if not found:
        raise ValueError("there is no option in this line")
    return found


def _in_order(options: list[tuple[str, str]]) -> str:
    """Sort options into auditctl's order; keys with commas are several keys."""

    def rank(option: tuple[str, str]) -> int:
        name, value = option
        if name == "-F" and value.replace(" ", "").startswith("arch"):
            return 1
        return {"-a": 0, "-A": 0, "-D": 0, "-w": 0, "-p": 1, "-S": 2, "-F": 3, "-C": 3}.get(name, 4)

    words = []
    for name, value in sorted(options, key=rank):
        if name == "-D":
            words.append(name)
        elif name == "-k":
            for key in value.split(","):
                words += [name, _word(key.strip())]
        elif name in ("-F", "-C", "-S", "-a", "-A"):
            words += [name, _word("".join(value.split()))]
        else:
            words += [name, _word(value)]
    return " ".join(words)


def _word(text: str) -> str:
    return text.replace("\\", "\\\\").replace(" ", "\\ ")
