"""The filter part of ``sessiond check``: warnings, and filters that users can hide behind."""

from __future__ import annotations

from collections.abc import Sequence

from sessiond.cli.terminal import say
from sessiond.config.filters import FilterRule
from sessiond.filters.exposure import exposures
from sessiond.system.ordinary_users import OrdinaryUser


def say_exposures(
    rules: Sequence[FilterRule], users: Sequence[OrdinaryUser], warnings: Sequence[str]
) -> None:
    """Print for each filter that drops or folds whether an ordinary user can hide behind it.

    ``warnings`` are printed first.
    """
    if not rules:
        return
    say("filters:")
    for warning in warnings:
        say(f"  warning: {warning}")
    for each in exposures(rules, users):
        if each.safe:
            say(f"  ok    {each.name}: safe: {each.text}")
        else:
            say(f"  warn  {each.name}: unsafe: {each.text}; {each.advice}")
