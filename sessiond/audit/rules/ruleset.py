r"""Audit rules in auditctl's syntax, compiled to the kernel's format.

The syntax is that of auditctl(8) and audit.rules(7), as read by ``auditctl -R``: one rule per line,
words separated by blanks, ``\ `` for a blank within a word, no quotes, no line continuation,
comments on separate lines. libaudit compiles each field. A rule that auditctl or the kernel would
refuse raises RuleError, with a reason that names the remedy.

It differs from auditctl to protect the host: ``-d``, ``-W`` and ``-D`` affect only rules that this
text adds, never those of other programs; and options for immediate actions of auditctl (``-m``,
``--signal``) are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sessiond.audit.rules import binary
from sessiond.errors import RuleError


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule to load: its text, its source and line, and the bytes to send with AUDIT_ADD_RULE."""

    text: str
    source: str
    line: int
    data: bytes = field(repr=False)

    @property
    def canonical(self) -> bytes:
        """The rule in the form in which the kernel lists it."""
        return binary.canonical(self.data)

    @property
    def prepend(self) -> bool:
        """Whether it goes before the loaded rules (-A)."""
        return bool(binary.unpack(self.data).flags & binary.PREPEND)

    def describe(self) -> str:
        """Return the rule as ``auditctl -l`` prints it."""
        return binary.describe(self.data)


class LoadedRule(NamedTuple):
    """A loaded rule, in its canonical form."""

    data: bytes

    def describe(self) -> str:
        """Return the rule as ``auditctl -l`` prints it."""
        return binary.describe(self.data)


class Control(NamedTuple):
    """A line that changes a setting of the audit subsystem.

    ``name`` is backlog_limit (records), failure (0 to 2), rate_limit (records a second), enabled
    (0 to 2), backlog_wait_time (kernel ticks), loginuid_immutable (1), or to be done once:
    reset_lost, reset_backlog_wait_time_actual, trim_subtrees (all 1), and make_equivalent with
    "MOUNT,SUBTREE".
    """

    source: str
    line: int
    name: str
    value: int | str


class RuleWarning(NamedTuple):
    """A warning about a valid rule that is probably a mistake."""

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        """Return it as errors are shown."""
        return f"{self.source}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The result of rule texts. ``rules`` in loading order, after -d, -W and -D; no duplicates.

    ``errors`` are those skipped by ``keep_going``, or by -i or -c in the text.
    """

    rules: tuple[Rule, ...] = ()
    controls: tuple[Control, ...] = ()
    errors: tuple[RuleError, ...] = ()
    warnings: tuple[RuleWarning, ...] = ()

    def __iter__(self) -> Iterator[Rule]:
        """Iterate over the rules."""
        return iter(self.rules)

    def __len__(self) -> int:
        """Return the number of rules."""
        return len(self.rules)


NO_RULES: Final = (
    "no rule is configured, so audit reports only what others' rules select: see "
    "auditd.audit_rules and auditd.audit_rule_files; without either the built-in rules are used"
)
