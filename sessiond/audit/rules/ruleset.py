r"""Audit rules in auditctl's language: from text to the kernel's bytes, and what to load of them.

The language is that of auditctl(8) and audit.rules(7), read as ``auditctl -R`` reads a file: a
rule a line, words separated by blanks, ``\ `` for a blank within a word, no quotes, no line
continuation, comments on lines of their own. libaudit compiles each field. A rule that auditctl or
the kernel would refuse raises RuleError, with a reason that names the way out.

It differs from auditctl where that guards the host: ``-d``, ``-W`` and ``-D`` work on what this
text adds, never on rules that other programs loaded; and options that ask auditctl for something to
be done at once (``-m``, ``--signal``) are refused.
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
        """The rule as the kernel will list it."""
        return binary.canonical(self.data)

    @property
    def prepend(self) -> bool:
        """Whether it goes before the rules that are there (-A)."""
        return bool(binary.unpack(self.data).flags & binary.PREPEND)

    def describe(self) -> str:
        """Return the rule as ``auditctl -l`` prints it."""
        return binary.describe(self.data)


class LoadedRule(NamedTuple):
    """A rule of the kernel's, in its canonical form."""

    data: bytes

    def describe(self) -> str:
        """Return the rule as ``auditctl -l`` prints it."""
        return binary.describe(self.data)


class Control(NamedTuple):
    """A line that sets something of the audit subsystem.

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
    """Something that is accepted and probably not meant."""

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        """Return it as errors are shown."""
        return f"{self.source}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class RuleSet:
    """What rule texts ask for. ``rules`` in the order to load, after -d, -W and -D; no rule twice.

    ``errors`` are those that were passed over: by ``keep_going``, or by -i or -c in the text.
    """

    rules: tuple[Rule, ...] = ()
    controls: tuple[Control, ...] = ()
    errors: tuple[RuleError, ...] = ()
    warnings: tuple[RuleWarning, ...] = ()

    def __iter__(self) -> Iterator[Rule]:
        """Give the rules."""
        return iter(self.rules)

    def __len__(self) -> int:
        """Return the number of rules."""
        return len(self.rules)


# --- the rules to load and their owner ------------------------------------------------


NO_RULES: Final = (
    "no rule is configured, so audit tells only what others' rules bring: see auditd.audit_rules "
    "and auditd.audit_rule_files; without either the built-in rules are used"
)


# --- the parser -----------------------------------------------------------------------------------
