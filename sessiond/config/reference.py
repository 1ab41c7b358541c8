"""The list of settings: their documentation, the commented file, differences of configurations."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import inspect as types

from sessiond.config.filters import Filters
from sessiond.config.quantities import Duration, Headers, Labels, Mode, Size, show
from sessiond.config.schema import Config


class Option(NamedTuple):
    """One declared setting. ``path`` is dotted; ``allowed`` and ``help`` are text for people."""

    path: str
    allowed: str
    default: object  # msgspec.NODEFAULT: required
    help: str
    live: bool
    least: float | None
    most: float | None
    aliases: dict[str | bool, str]
    example: str | None


@functools.cache
def options() -> dict[str, Option]:
    """Return every setting by its dotted path, in the order of their declaration."""
    return {option.path: option for option in _walk(Config, "")}


def _walk(section: type[msgspec.Struct], prefix: str) -> Iterator[Option]:
    for name, kind, field in fields_of(section):
        if isinstance(kind, types.StructType):
            yield from _walk(kind.cls, f"{prefix}{name}.")
            continue
        assert isinstance(kind, types.Metadata), name  # noqa: S101 - every option is declared like that
        declared = kind.extra or {}
        yield Option(
            path=prefix + name,
            allowed=declared["allowed"] or _allowed(kind.type, declared["min"], declared["max"]),
            default=field.default,
            help=(kind.extra_json_schema or {})["description"],
            live=declared["live"],
            least=declared["min"],
            most=declared["max"],
            aliases=declared["aliases"],
            example=declared["example"],
        )


@functools.cache
def fields_of(section: type[msgspec.Struct]) -> list[tuple[str, types.Type, types.Field]]:
    """Return a section's settings and subsections; an optional subsection as if it were set."""
    info = types.type_info(section)
    assert isinstance(info, types.StructType)  # noqa: S101 - for the type checker
    found = []
    for field in info.fields:
        kind = field.type
        if isinstance(kind, types.UnionType):
            kind = next(member for member in kind.types if isinstance(member, types.StructType))
        found.append((field.name, kind, field))
    return found


_CUSTOM: Final[dict[type, str]] = {
    Mode: "octal permission bits such as 0640",
    Labels: "names without dots, each with a text, such as {env: prod}",
    Headers: "names of headers, each with a text, such as {X-Scope-OrgID: hosts}",
    Filters: "a list of filters, each with name, when and then",
    Path: "an absolute path",
}


def _allowed(kind: types.Type, least: float | None, most: float | None) -> str:
    """Describe the values that a setting accepts."""
    match kind:
        case types.BoolType():
            return "true or false"
        case types.LiteralType(values=values):
            return _any_of([str(value) for value in values])
        case types.IntType(ge=ge, le=le) if ge is not None:
            return f"a whole number from {ge} to {le}"
        case types.VarTupleType(item_type=types.LiteralType(values=values)):
            return "a list, such as [a, b], of " + _any_of([str(value) for value in values])
        case types.VarTupleType():
            return "a list of texts, such as [a, b]"
        case types.UnionType(types=members) if any(
            isinstance(member, types.IntType) for member in members
        ):
            return "a name or a numeric id"
        case types.UnionType(types=members):
            given = (member for member in members if not isinstance(member, types.NoneType))
            return _allowed(next(given), least, most)
        case types.CustomType(cls=cls) if cls in _CUSTOM:
            return _CUSTOM[cls]
        case types.CustomType(cls=cls) if cls is Size:
            text = "a size such as 500KB or 64MiB"
        case types.CustomType():
            text = "a duration such as 500ms, 2s or 1h30m"
        case _:
            return "text"
    kind_of = Size if "size" in text else Duration
    if least:
        text += f", at least {show(kind_of(least))}"
    return text if most is None else f"{text}, at most {show(kind_of(most))}"


def _any_of(values: Sequence[str]) -> str:
    return " or ".join([", ".join(values[:-1]), values[-1]]) if len(values) > 1 else values[0]


def get(config: Config, path: str) -> Any:  # noqa: ANN401 - as declared
    """Return the value of a setting by its dotted path; None in a section that is not set."""
    value: Any = config
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value


def diff(old: Config, new: Config) -> list[str]:
    """Return the paths of the settings that differ, in the order of their declaration."""
    return [path for path in options() if get(old, path) != get(new, path)]


def needs_restart(paths: Sequence[str]) -> list[str]:
    """Return the changed settings that a reload can't apply."""
    return [path for path in paths if not options()[path].live]


def commented() -> str:
    """Return a configuration file that shows every setting, commented out, with its help.

    ``sessiond check --settings`` prints it, and ``etc/sessiond.yml`` is a copy of it.
    """
    lines = [
        "# The configuration of sessiond. All settings are optional. A commented line shows the",
        "# default, or an example if it says so. `sessiond check` validates this file. A reload",
        "# (SIGHUP) applies settings marked [reload]; the others require a restart.",
    ]
    return "\n".join(lines + list(_commented(Config, "", optional=False))) + "\n"


def _commented(section: type[msgspec.Struct], prefix: str, *, optional: bool) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for index, (name, kind, field) in enumerate(fields_of(section)):
        if isinstance(kind, types.StructType):
            below = optional or isinstance(field.type, types.UnionType)
            yield ""
            yield from _comment(inspect.getdoc(kind.cls) or "", indent)
            yield f"{indent}{'#' if below else ''}{name}:"
            yield from _commented(kind.cls, f"{prefix}{name}.", optional=below)
            continue
        option = options()[prefix + name]
        if index or not prefix:
            yield ""
        text = option.help
        if not isinstance(option.default, bool):
            text += f" Allowed: {option.allowed}."
        text += " [reload]" if option.live else ""
        value = _as_yaml(option.default)
        if option.example is not None:
            unset = "Required, for" if option.default is msgspec.NODEFAULT else "For"
            text, value = f"{text} {unset} example:", option.example
        yield from _comment(text, indent)
        first, *rest = f"{name}:{'' if value.startswith(chr(10)) else ' '}{value}".split("\n")
        yield f"{indent}#{first}"
        yield from (f"{indent}#{line}" for line in rest)


def _as_yaml(value: object) -> str:
    return value if isinstance(value, str) else show(value)


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
