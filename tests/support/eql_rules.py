"""Evaluates Elastic's rules with Elastic's evaluators: eql from PyPI, and the rules' own kql.

It follows Elasticsearch where that differs from eql: a field with several values matches if one
does; a missing field matches no comparison, and so every negation of one. The letter case of
wildcards is ignored.
"""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import eql
from eql import ast
from eql.engine import PythonEngine

Document = dict[str, Any]
Ask = Callable[[Any], Any]


Fires = Callable[[list[Document]], bool]


def rules(checkout: Path) -> dict[str, Fires]:
    """Return the rules for Linux of a checkout of detection-rules, by their ids.

    Each is a function that returns whether it fires on documents in the order of time. For a
    rule about new terms or thresholds that means that its query matches any document.
    """
    sys.path.append(str(checkout / "lib" / "kql"))
    kql = importlib.import_module("kql")
    found: dict[str, Fires] = {}
    for folder in ("linux", "cross-platform"):
        for path in sorted((checkout / "rules" / folder).glob("*.toml")):
            rule = tomllib.loads(path.read_text("utf-8"))["rule"]
            if rule.get("language") == "eql":
                found[rule["rule_id"]] = partial(_eql_fires, rule["query"])
            elif rule.get("language") == "kuery":
                found[rule["rule_id"]] = partial(_kql_fires, kql, rule["query"])
    return found


def _kql_fires(kql: Any, query: str, documents: Iterable[Document]) -> bool:
    fits = kql.get_evaluator(kql.parse(query))
    return any(fits(document) for document in documents)


def _eql_fires(query: str, documents: Iterable[Document]) -> bool:
    engine = _Engine()
    found: list[object] = []
    engine.add_output_hook(found.append)
    engine.add_query(_parse(query))
    for document in documents:
        date = datetime.fromisoformat(document["@timestamp"])
        for category in document["event"].get("category", ["any"]):
            engine.stream_event(eql.Event(category, int(date.timestamp() * 10**7), document))
    engine.finalize()
    return bool(found)


def _parse(query: str) -> Any:
    parser = eql.parser
    with (
        parser.elasticsearch_syntax,
        parser.elastic_endpoint_syntax,
        parser.skip_optimizations,
        parser.ignore_missing_functions,
        parser.ignore_missing_fields,
        parser.allow_sample,
        parser.allow_negation,
        parser.allow_runs,
    ):
        return parser.parse_query(query)


def _values(value: object) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


# The rules write names of functions in any case.
_NAMES = {name.lower(): name for name in eql.functions.list_functions()}


class _Engine(PythonEngine):  # type: ignore[misc] # its package has no types
    """The evaluator, with the behaviour of Elasticsearch."""

    def _convert_not(self, node: Any) -> Ask:
        term = self.convert(node.term)
        return lambda scope: not term(scope)

    def _convert_and(self, node: Any) -> Ask:
        terms = [self.convert(term) for term in node.terms]
        return lambda scope: all(term(scope) for term in terms)

    def _convert_or(self, node: Any) -> Ask:
        terms = [self.convert(term) for term in node.terms]
        return lambda scope: any(term(scope) for term in terms)

    def _convert_in_set(self, node: Any) -> Ask:
        return self.convert(node.synonym)  # type: ignore[no-any-return]

    def _convert_comparison(self, node: Any) -> Ask:
        left, right = self.convert(node.left), self.convert(node.right)
        compare = self.check_types(node.function)
        if node.comparator == "!=":
            return lambda scope: all(compare(each, right(scope)) for each in _values(left(scope)))
        return lambda scope: any(compare(each, right(scope)) for each in _values(left(scope)))

    def _convert_function_call(self, node: Any) -> Ask:
        first, *others = node.arguments
        if not isinstance(first, ast.Field):
            return super()._convert_function_call(node)  # type: ignore[no-any-return]
        field = self.convert(first)
        if node.name == "wildcard" and all(isinstance(each, ast.Literal) for each in others):
            return self._wildcard(field, [each.value for each in others])
        name = _NAMES.get(node.name.lower(), node.name)
        function = ast.FunctionCall(name, node.arguments).signature.get_callback(*node.arguments)
        rest = self._convert_tuple(others)
        return lambda scope: next(
            filter(None, (function(each, *rest(scope)) for each in _values(field(scope)))), None
        )

    @staticmethod
    def _wildcard(field: Ask, patterns: list[str]) -> Ask:
        """Compare with patterns in which * is any text and ? any character."""
        any_text = {"*": ".*", "?": "."}
        texts = ("".join(any_text.get(c, re.escape(c)) for c in each) for each in patterns)
        fits = re.compile("|".join(texts), re.IGNORECASE | re.DOTALL).fullmatch
        return lambda scope: any(
            isinstance(each, str) and fits(each) for each in _values(field(scope))
        )
