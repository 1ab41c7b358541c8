"""Loads the configuration: YAML text to one frozen, validated value.

:mod:`sessiond.config.schema` declares the settings. :func:`loads` parses and validates a text and
is pure; only the last part, :func:`load` and its helpers, reads files.
"""

from __future__ import annotations

import contextlib
import difflib
import glob
import grp
import platform
import pwd
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
import yaml
from msgspec import inspect as types

from sessiond.config.filters import FilterError, Filters
from sessiond.config.quantities import Duration, Labels, Mode, OctalInt, Size, show
from sessiond.config.reference import fields_of, get, options
from sessiond.config.schema import DEFAULT_RULES, Config, InvalidError
from sessiond.errors import ConfigError
from sessiond.system.files import read_trusted
from sessiond.text import printable

DEFAULT_PATH = Path("/etc/sessiond.yml")

_log = structlog.get_logger(__name__)


# --- reading -------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Safe YAML that rejects duplicate keys instead of using the last one.

    The pure Python loader, not libyaml's: deep nesting raises RecursionError instead of crashing.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a dict; raises ConstructorError for a duplicate key."""
        seen = set()
        for key_node, _ in node.value:
            key = (key_node.tag, key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                problem = f"{show(key_node.value)} is a duplicate key"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Make an int that remembers whether it was written in octal."""
        value: int = super().construct_yaml_int(node)
        return OctalInt(value) if re.fullmatch("0[0-7]+", node.value) else value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
# No setting is a date: a date stays text.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _absolute_path(value: object) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError("no absolute path")
    return Path(value)


def _from_yaml(kind: type, value: object) -> object:
    """Convert to the types that msgspec does not know (its ``dec_hook``)."""
    if kind is Path:
        return _absolute_path(value)
    if issubclass(kind, Size | Duration | Mode | Labels | Filters):
        return kind.parse(value)
    raise NotImplementedError(kind)


def loads(text: str, source: str) -> Config:
    """Parse YAML text into a Config; ``source`` names it in messages. A file of comments is valid.

    Raises ConfigError: one line with source, line, setting, the mistake and what is allowed.
    """
    if not text.strip():
        raise ConfigError(f"{source}: the file is empty; allowed: at least a comment")
    node, data = _parse_yaml(text, source)
    data = {} if data is None else data
    try:
        data = _prepare(Config, data, "")
        config = msgspec.convert(data, Config, dec_hook=_from_yaml)
        _check_bounds(config)
    except InvalidError as error:
        raise _config_error(source, node, error.setting, error.wrong, error.allowed) from None
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, FilterError):
            raise _filter_error(source, node, error.__cause__) from None
        raise _config_error(source, node, *_explain(error, data)) from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply; allowed: sections of settings") from None
    return config


def _parse_yaml(text: str, source: str) -> tuple[yaml.Node | None, Any]:
    with yaml_errors(source):
        loader = _Loader(text)
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)


@contextlib.contextmanager
def yaml_errors(source: str) -> Iterator[None]:
    """Turn every exception of PyYAML into a ConfigError of one line; ``source`` names the text."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{source}{where}: not valid YAML: {_one_line(error.problem)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {_one_line(str(error))}") from None
    except RecursionError:
        raise ConfigError(f"{source}: not valid YAML: nested too deeply") from None
    # PyYAML's constructors raise all of these for mismatched explicit tags, such as !!int "".
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML: {_one_line(str(error))}") from None


def _one_line(text: str | None) -> str:
    cut = " ".join((text or "unknown").split())[:200]
    return printable(cut)


def _prepare(section: type[msgspec.Struct], data: object, path: str) -> dict[str, Any]:
    """Check a section's names, turn an empty section into {}, and replace aliases of values."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        known = [name for name, _, _ in fields_of(section)]
        wrong = f"{show(data)} is not a section"
        raise InvalidError(path, wrong, "a section with " + ", ".join(known))
    fields = {name: kind for name, kind, _ in fields_of(section)}
    prefix = f"{path}." if path else ""
    prepared: dict[str, Any] = {}
    for name, value in data.items():
        kind = fields.get(name) if isinstance(name, str) else None
        if kind is None:
            raise _no_such(f"{prefix}{name}", str(name), list(fields))
        if isinstance(kind, types.StructType):
            prepared[name] = _prepare(kind.cls, value, prefix + name)
        else:
            aliases = options()[prefix + name].aliases
            prepared[name] = aliases.get(value, value) if isinstance(value, str | bool) else value
    return prepared


def _no_such(path: str, name: str, known: list[str]) -> InvalidError:
    """Suggest an existing setting for one that doesn't exist."""
    wrong = "no such setting"
    if path in options():
        nested = f"{path.replace('.', ': {')}: ...{'}' * path.count('.')}"
        return InvalidError(path, f"{wrong} in dotted form; write {nested}", "")
    section = path.removesuffix(name)
    same_name = [other for other in options() if other.rpartition(".")[2] == name]
    close = [section + other for other in difflib.get_close_matches(name, known, n=1)]
    for meant in close + same_name:
        return InvalidError(path, f"{wrong}; did you mean {meant}?", "")
    return InvalidError(path, wrong, ", ".join(known))


def _explain(error: msgspec.ValidationError, data: object) -> tuple[str, str, str]:
    """Return (setting, mistake, what is allowed) for an error of msgspec."""
    message, _, where = str(error).rpartition(" - at `$")
    path = where.rstrip("`").lstrip(".") if message else ""
    if isinstance(error.__cause__, InvalidError):
        cause = error.__cause__
        return ".".join(filter(None, (path, cause.setting))), cause.wrong, cause.allowed
    missing = re.search(r"missing required field `(\w+)`", str(error))
    if missing:
        path = f"{path}.{missing[1]}"
        return path, "is missing", options()[path].allowed
    value: Any = data
    for name, index in re.findall(r"(\w+)|\[(\d+)\]", path):
        value = value[name] if name else value[int(index)]
    return path, f"{show(value)} is not valid", options()[re.sub(r"\[.*", "", path)].allowed


def _check_bounds(config: Config) -> None:
    for option in options().values():
        value = get(config, option.path)
        if not isinstance(value, Size | Duration):
            continue
        low, high = option.least, option.most
        if (low is not None and value < low) or (high is not None and value > high):
            raise InvalidError(option.path, f"{show(value)} is out of bounds", option.allowed)


def _config_error(
    source: str, node: yaml.Node | None, setting: str, wrong: str, allowed: str
) -> ConfigError:
    """Make the one-line error, with the setting's line number in the file."""
    for name in re.findall(r"[^.\[\]]+", setting):
        if isinstance(node, yaml.MappingNode):
            below = [value for key, value in node.value if key.value == name]
            node = below[0] if below else node
    line = f":{node.start_mark.line + 1}" if node is not None else ""
    return ConfigError(_one_line_of(source + line, setting, wrong, allowed))


def _filter_error(source: str, node: yaml.Node | None, error: FilterError) -> ConfigError:
    where = f"{source}{_place(node, ('filters', *error.path))}"
    return ConfigError(_one_line_of(where, "filters", error.wrong, error.allowed))


def filter_warnings(text: str, source: str) -> list[str]:
    """Return warnings about the filters of a valid configuration, with file, line and column."""
    node, _ = _parse_yaml(text, source)
    config = loads(text, source)
    found = config.filters.warnings()
    if not config.auditd.resolve_ids:
        found += config.filters.names_of_users()
    return [
        f"{source}{_place(node, ('filters', *path))}: filters: {printable(what)}"
        for path, what in found
    ]


def _place(node: yaml.Node | None, path: tuple[str | int, ...]) -> str:
    """Return line and column of the node at a path, or of its closest parent: ":7:5"."""
    mark = None if node is None else node.start_mark
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(step)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            found = [(each, each) for each in node.value[step : step + 1]]
        else:
            found = []
        if not found:
            break
        key, node = found[0]
        mark = key.start_mark
    return "" if mark is None else f":{mark.line + 1}:{mark.column + 1}"


def _one_line_of(where: str, setting: str, wrong: str, allowed: str) -> str:
    name = printable(setting[:100])
    message = ": ".join(filter(None, (where, name, wrong)))
    return f"{message}; allowed: {allowed}" if allowed else message


# --- the edge: files -----------------------------------------------------------------------------


def load(path: Path | None) -> Config:
    """Read the configuration file; None: the default path, or built-in defaults if it is absent.

    Raises ConfigError when the file can't be read, is invalid, or is writable by other users.
    """
    if path is None and not DEFAULT_PATH.exists():
        _log.info("configuration_built_in", missing=str(DEFAULT_PATH))
        return Config()
    path = path or DEFAULT_PATH
    return loads(read_trusted(path), str(path))


def _never(condition: str) -> str:
    """Return rules that keep the kernel from recording execs that meet a condition."""
    return "".join(
        f"-a never,exit -F arch={arch} -S execve,execveat -F {condition}\n"
        for arch in ("b64", "b32")
    )


# Rules that precede the built-in ones, by event.exec_failures.
_UNWANTED_FAILURES: Final = {
    "all": "",
    "no_enoent": _never("exit=-ENOENT"),
    "none": _never("success=0"),
}
# The machines (uname -m) whose kernels run 32-bit programs, as libaudit knows them.
_HAS_32_BIT: Final = ("x86_64", "aarch64", "s390x", "ppc64")


def read_rules(config: Config) -> list[tuple[str, str]]:
    """Return the wanted rules as (source, text), in the order in which they are to be loaded.

    The built-in rules keep the kernel from recording execs that event.exec_failures excludes.

    Raises ConfigError when a rule file can't be read or is writable by other users, and when a
    file named without wildcards does not exist.
    """
    auditd = config.auditd
    if not auditd.enabled:
        return []
    if auditd.audit_rules is None and auditd.audit_rule_files is None:
        if auditd.socket_type == "multicast":
            return []
        rules = _UNWANTED_FAILURES[config.event.exec_failures] + DEFAULT_RULES
        if "b32" not in rule_arches():
            rules = "".join(line for line in rules.splitlines(True) if "arch=b32" not in line)
        return [("built-in rules", rules)]
    texts = [] if auditd.audit_rules is None else [("auditd.audit_rules", auditd.audit_rules)]
    files = expand("auditd.audit_rule_files", auditd.audit_rule_files or ())
    return texts + [(str(file), read_trusted(file)) for file in files]


def rule_arches() -> tuple[str, ...]:
    """Return the arches of audit rules that this machine's programs can have."""
    return ("b64", "b32") if platform.machine() in _HAS_32_BIT else ("b64",)


def empty_patterns(config: Config) -> list[str]:
    """Return the patterns of auditd.audit_rule_files that no file matches."""
    setting = "auditd.audit_rule_files"
    patterns = config.auditd.audit_rule_files or ()
    return [pattern for pattern in patterns if not expand(setting, [pattern])]


def expand(setting: str, patterns: Sequence[str]) -> list[Path]:
    """Return the files that match the globs of a setting, each once, sorted within a glob.

    Raises ConfigError for a relative path, and for one without wildcards that does not exist.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        if not pattern.startswith("/"):
            raise ConfigError(f"{setting}: {show(pattern)} is relative; allowed: absolute paths")
        names = sorted(glob.glob(pattern)) if "\0" not in pattern else []  # noqa: PTH207 - absolute
        if not names and not glob.has_magic(pattern):
            raise ConfigError(f"{setting}: {_one_line(pattern)}: no such file")
        found |= dict.fromkeys(names)
    return [Path(name) for name in found]


def user_id(setting: str, user: str | int | None) -> int | None:
    """Return the uid of a setting that names a user; raises ConfigError for an unknown user."""
    if user is None or isinstance(user, int):
        return user
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        raise ConfigError(f"{setting}: this host has no user {show(user)}") from None


def group_id(setting: str, group: str | int | None) -> int | None:
    """Return the gid of a setting that names a group; raises ConfigError for an unknown group."""
    if group is None or isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise ConfigError(f"{setting}: this host has no group {show(group)}") from None
