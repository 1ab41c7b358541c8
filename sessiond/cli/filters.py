"""The filter part of ``sessiond check``: warnings, exposure, and rules that save audit's work."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from sessiond.cli import status
from sessiond.cli.terminal import say
from sessiond.config.filters import FilterRule
from sessiond.errors import StatusError
from sessiond.filters.exposure import exposures
from sessiond.filters.never import RECORDS_SAVED, NeverRules
from sessiond.system.ordinary_users import OrdinaryUser


def say_exposures(
    rules: Sequence[FilterRule], users: Sequence[OrdinaryUser], warnings: Sequence[str]
) -> bool:
    """Print for each filter that drops or folds whether an ordinary user can hide behind it.

    ``warnings`` are printed first. Returns whether there are any, or an unsafe filter.
    """
    say("filters:")
    for warning in warnings:
        say(f"  warning: {warning}")
    found = exposures(rules, users)
    for each in found:
        if each.safe:
            say(f"  ok    {each.name}: safe: {each.text}")
        else:
            say(f"  warn  {each.name}: unsafe: {each.text}; {each.advice}")
    return bool(warnings) or not all(each.safe for each in found)


def say_never_rules(
    offers: Sequence[NeverRules],
    in_use: Collection[str],
    dropped: Mapping[str, int],
    *,
    built_in: bool,
) -> None:
    """Print the audit rules with which the kernel leaves out what filters drop.

    ``in_use`` are the filters whose rules are configured, ``dropped`` the lines that filters have
    dropped in the running daemon; ``built_in`` says that only the built-in rules are configured.
    """
    for filter_, rules in offers:
        if filter_ in in_use:
            say(f"  ok    {filter_}: the kernel leaves out what it drops, too (a never rule)")
            continue
        saving = _saving(dropped.get(filter_))
        say(f"  rule  {filter_}: audit can leave out what it drops; {saving}")
        say("          put first in auditd.audit_rules:")
        for rule in rules:
            say(f"            {rule}")
    if built_in and any(each.filter not in in_use for each in offers):
        say("        auditd.audit_rules replaces the built-in rules: repeat those listed above")


def lines_dropped(socket: Path) -> dict[str, int]:
    """Return the lines that each filter has dropped in the running daemon; none without one."""
    try:
        document = status.query(socket, timeout=1)
    except StatusError:
        return {}
    filters = document.get("pipeline", {}).get("filters", {}).get("by_filter", {})
    return {name: account["lines"] for name, account in filters.items()}


def _saving(lines: int | None) -> str:
    text = f"that saves {RECORDS_SAVED} records of audit for each process"
    if not lines:
        return text
    # A process has two lines: exec and end.
    return f"{text}, so far {lines // 2 * RECORDS_SAVED:,} in the running daemon"
