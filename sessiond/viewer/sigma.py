"""Reads Sigma rules and compiles each to a predicate over the fields of one event.

pySigma parses the rules. Those for processes, network connections and files on Linux, and for
auditd's records, are supported. Comparisons follow Sigma: they ignore case unless a rule says
otherwise, ``*`` and ``?`` are wildcards, and one matching value of a field is enough.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from sessiond.errors import ConfigError
from sessiond.viewer.detect import LEVELS, LOSS_IN_SESSION, Fields, Predicate, Rule, Ruleset

# sessiond's own rules, which are part of the package.
OWN_RULES: Final = Path(__file__).with_name("rules")
# Fields with few distinct values: results for them are cached.
_REPEATED: Final = frozenset({"Image", "ParentImage", "User", "CurrentDirectory"})


def load(paths: Sequence[Path], level: str = "informational") -> Ruleset:
    """Load the rules in files and directories, of this level or higher.

    Raises ConfigError if pySigma or a path is missing.
    """
    try:
        from sigma.collection import SigmaCollection
    except ImportError:
        raise ConfigError(
            "rules are read by pySigma, which is not installed; run pip install 'sessiond[sigma]'"
        ) from None
    ruleset = Ruleset()
    for path in _files(paths):
        # A problem of one file does not affect the rules of others.
        try:
            collection = SigmaCollection.from_yaml(path.read_text("utf-8"), collect_errors=True)
            for error in collection.errors:
                ruleset.problems.append(f"{path}: {error}")
            for rule in collection.rules:
                _add(ruleset, rule, level)
        except Exception as error:  # noqa: BLE001 -- pySigma and its YAML have many of their own
            reason = " ".join(str(error).split()) or type(error).__name__
            ruleset.problems.append(f"{path}: {reason}")
    return ruleset


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        try:
            path.stat()
            inside = [*path.rglob("*.yml"), *path.rglob("*.yaml")] if path.is_dir() else [path]
        except OSError as error:
            raise ConfigError(f"--rules {path}: {(error.strerror or '').lower()}") from None
        yield from sorted(inside)


def _add(ruleset: Ruleset, rule: Any, level: str) -> None:  # noqa: ANN401 -- a type of pySigma's
    """Compile a rule. Raises pySigma's exceptions for an invalid one."""
    from sigma.rule import SigmaRule

    if not isinstance(rule, SigmaRule):
        raise ValueError(f"{rule.title}: correlations are not supported")  # noqa: TRY004
    about = _about(rule.logsource)
    if about is None:
        ruleset.others += 1
        return
    name = rule.level.name.lower() if rule.level else "medium"
    if LEVELS.index(name) < LEVELS.index(level):
        return
    asks = [_predicate(each.parsed) for each in rule.detection.parsed_condition]
    attack = [each.name for each in rule.tags if each.namespace == "attack"]
    ruleset.rules.append(
        Rule(
            rule.title,
            str(rule.id or ""),
            name,
            about,
            _any(asks),
            rule.description or "",
            rule.author or "",
            tuple(each.upper() for each in attack if re.fullmatch(r"t\d{4}(\.\d{3})?", each)),
            tuple(each for each in attack if re.fullmatch(r"[a-z][a-z_-]+", each)),
        )
    )


def _about(source: Any) -> str | None:  # noqa: ANN401 -- a type of pySigma's
    if source.product not in (None, "linux"):
        return None
    if source.category in ("process_creation", "network_connection", "file_event"):
        return str(source.category)
    if source.category == LOSS_IN_SESSION and source.service == "sessiond":
        return LOSS_IN_SESSION
    if source.category is None and source.service in ("auditd", "sessiond"):
        return "auditd" if source.service == "auditd" else "any"
    return None


def _any(predicates: Sequence[Predicate]) -> Predicate:
    if len(predicates) == 1:
        return predicates[0]

    def ask(fields: Fields) -> bool:
        for each in predicates:  # noqa: SIM110 -- this runs millions of times
            if each(fields):
                return True
        return False

    return ask


def _all(predicates: Sequence[Predicate]) -> Predicate:
    def ask(fields: Fields) -> bool:
        for each in predicates:  # noqa: SIM110 -- this runs millions of times
            if not each(fields):
                return False
        return True

    return ask


def _repeats(node: Any) -> bool:  # noqa: ANN401 -- a type of pySigma's
    """Return whether a condition only uses fields with few distinct values."""
    args = getattr(node, "args", None)
    if args is None:
        return getattr(node, "field", None) in _REPEATED
    return all(_repeats(each) for each in args)


def _alternatives(nodes: Iterable[Any]) -> Iterator[Predicate]:
    """Make the predicates of an OR; texts for the same field share a test."""
    from sigma.conditions import ConditionFieldEqualsValueExpression
    from sigma.types import SigmaCasedString, SigmaString

    texts: dict[str, list[Sequence[Any]]] = {}
    for node in nodes:
        if (
            isinstance(node, ConditionFieldEqualsValueExpression)
            and isinstance(node.value, SigmaString)
            and not isinstance(node.value, SigmaCasedString)
        ):
            texts.setdefault(node.field, []).append(node.value.s)
        else:
            yield _predicate(node)
    for name, values in texts.items():
        yield _one_of(name, values)


def _one_of(name: str, values: Iterable[Sequence[Any]]) -> Predicate:
    """Test whether a field has one of several texts, with the cheapest test for each kind."""
    whole: set[str] = set()
    begins: list[str] = []
    ends: list[str] = []
    inner: list[str] = []
    others: list[Callable[[str], bool]] = []
    for value in values:
        kind, text = _shape(value)
        lower = text.lower()
        if kind == "whole":
            whole.add(lower)
        elif kind == "other":
            others.append(_text(value, cased=False))
        else:
            {"begin": begins, "end": ends, "inner": inner}[kind].append(lower)
    heads, tails = tuple(begins), tuple(ends)

    def fits(text: str) -> bool:
        if text in whole or text.endswith(tails) or text.startswith(heads):
            return True
        for each in inner:
            if each in text:
                return True
        for test in others:  # noqa: SIM110 -- this runs millions of times
            if test(text):
                return True
        return False

    if name in _REPEATED:
        fits = lru_cache(maxsize=4096)(fits)

    def ask(fields: Fields) -> bool:
        for text in fields.lower(name):  # noqa: SIM110 -- this runs millions of times
            if fits(text):
                return True
        return False

    return ask


def _shape(parts: Sequence[Any]) -> tuple[str, str]:
    """Return the kind of a text with wildcards, and its literal text if there is only one."""
    from sigma.types import SpecialChars

    many = SpecialChars.WILDCARD_MULTI
    match list(parts):
        case []:
            return "whole", ""
        case [str() as text]:
            return "whole", text
        case [str() as text, last] if last is many:
            return "begin", text
        case [first, str() as text] if first is many:
            return "end", text
        case [first, str() as text, last] if first is many and last is many:
            return "inner", text
    return "other", ""


def _predicate(node: Any) -> Predicate:  # noqa: ANN401 -- a type of pySigma's
    from sigma.conditions import (
        ConditionAND,
        ConditionFieldEqualsValueExpression,
        ConditionNOT,
        ConditionOR,
    )

    if isinstance(node, ConditionFieldEqualsValueExpression):
        return _field(node.field, node.value)
    if isinstance(node, ConditionNOT):
        inner = _predicate(node.args[0])
        return lambda fields: not inner(fields)
    if isinstance(node, ConditionAND):
        # Cached conditions come first, because they exclude most events.
        ordered = sorted(node.args, key=lambda each: not _repeats(each))
        return _all([_predicate(each) for each in ordered])
    if isinstance(node, ConditionOR):
        return _any(list(_alternatives(node.args)))
    return _keyword(node.value)


def _keyword(value: Any) -> Predicate:  # noqa: ANN401 -- a type of pySigma's
    """Return the predicate for a value without a field: it is anywhere in the event."""
    from sigma import types

    if isinstance(value, types.SigmaExpansion):
        return _any([_keyword(each) for each in value.values])
    if isinstance(value, types.SigmaString):
        cased = isinstance(value, types.SigmaCasedString)
        kind, text = _shape(value.s)
        if kind != "other" and not cased:  # wildcards around it change nothing
            lower = text.lower()
            return lambda fields: lower in fields.whole_lower()
        pattern = re.compile(_pattern(value.s), re.DOTALL if cased else re.DOTALL | re.IGNORECASE)
        return lambda fields: pattern.search(fields.whole()) is not None
    test = _test(value)
    return lambda fields: test(fields.whole())


def _field(name: str, value: Any) -> Predicate:  # noqa: ANN401 -- a type of pySigma's
    """Return the predicate for one field."""
    from sigma import types

    if isinstance(value, types.SigmaExpansion):
        return _any([_field(name, each) for each in value.values])
    if isinstance(value, types.SigmaNull):
        return lambda fields: not fields.raw(name)
    if isinstance(value, types.SigmaExists):
        wanted = bool(value)
        return lambda fields: bool(fields.raw(name)) is wanted
    if isinstance(value, types.SigmaFieldReference):
        other = value.field
        return lambda fields: bool({*fields.lower(name)} & {*fields.lower(other)})
    if isinstance(value, types.SigmaCasedString):
        cased = _text(value.s, cased=True)
        return lambda fields: any(cased(each) for each in fields.raw(name))
    if isinstance(value, types.SigmaString):
        return _one_of(name, [value.s])
    test = _test(value)
    return lambda fields: any(test(each) for each in fields.raw(name))


def _test(value: Any) -> Callable[[str], bool]:  # noqa: ANN401 -- a type of pySigma's
    """Return the test for one value that is not a text."""
    from sigma import types

    if isinstance(value, types.SigmaNumber | types.SigmaBool):
        number = str(value).lower()
        return lambda text: text.lower() == number
    if isinstance(value, types.SigmaRegularExpression):
        flags = re.NOFLAG
        for flag in value.flags:
            flags |= getattr(re, flag.name)
        pattern = re.compile(str(value.regexp), flags)
        return lambda text: pattern.search(text) is not None
    if isinstance(value, types.SigmaCIDRExpression):
        network = ipaddress.ip_network(str(value.cidr), strict=False)
        return lambda text: _is_in(text, network)
    if isinstance(value, types.SigmaCompareExpression):
        return _comparison(value.op.name, float(value.number.number))
    raise ValueError(f"{type(value).__name__} is not supported")


def _comparison(name: str, number: float) -> Callable[[str], bool]:
    def compare(text: str) -> bool:
        try:
            own = float(text)
        except ValueError:
            return False
        return {
            "LT": own < number, "LTE": own <= number, "GT": own > number, "GTE": own >= number
        }.get(name, False)  # fmt: skip

    return compare


def _is_in(text: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(text) in network
    except ValueError:
        return False


def _text(parts: Iterable[Any], *, cased: bool) -> Callable[[str], bool]:
    """Make the test for a text with wildcards."""
    compiled = re.compile(_pattern(parts), re.DOTALL if cased else re.DOTALL | re.IGNORECASE)
    return lambda text: compiled.fullmatch(text) is not None


def _pattern(parts: Iterable[Any]) -> str:
    """Write a text with wildcards as a regular expression."""
    from sigma.types import SpecialChars

    pieces = [each if isinstance(each, SpecialChars) else str(each) for each in parts]
    return "".join(
        re.escape(each)
        if isinstance(each, str)
        else ".*"
        if each is SpecialChars.WILDCARD_MULTI
        else "."
        for each in pieces
    )
