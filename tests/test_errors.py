"""Errors: one line for people, and exit codes for scripts."""

from __future__ import annotations

from sessiond import errors
from sessiond.errors import RuleError, SessiondError, SourceUnavailableError


def test_a_rule_error_says_where() -> None:
    """File and line come first, as in compilers."""
    error = RuleError("audit.rules", 7, "unknown field: pidd")
    assert str(error) == "audit.rules:7: unknown field: pidd"
    assert (error.source, error.line, error.reason) == ("audit.rules", 7, "unknown field: pidd")


def test_a_missing_source_says_what_would_help() -> None:
    """The line has the reason and the remedy."""
    error = SourceUnavailableError("ebpf", "no BTF", "use backend: procfs")
    assert str(error) == "ebpf: no BTF; use backend: procfs"


def test_each_kind_of_trouble_has_a_code_of_its_own() -> None:
    """Scripts distinguish an invalid rule from a missing privilege."""
    kinds = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, SessiondError) and each is not SessiondError
    ]
    codes = [kind.exit_code for kind in kinds if kind.exit_code != SessiondError.exit_code]
    assert len(codes) == len(set(codes))
    assert set(codes) >= {2, 3, 4, 5, 6, 7}
