"""The plan that loads the wanted rules: which to add to the kernel and which to delete."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sessiond.audit.record import EXECVE, SYSCALL
from sessiond.audit.rules import binary, libaudit
from sessiond.audit.rules.ruleset import LoadedRule, Rule
from sessiond.errors import RuleError

_AnyRule = TypeVar("_AnyRule", bound=Rule | LoadedRule)


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps that load the wanted rules, and the owners of the kernel's rules.

    ``remove`` comes first (a misplaced rule is in both), as canonical bytes for AUDIT_DEL_RULE;
    then ``add``, in order. ``ours`` are sessiond's rules that stay, ``foreign`` all rules of other
    programs, including wanted ones, which are never in ``add``.
    """

    remove: tuple[bytes, ...] = ()
    add: tuple[Rule, ...] = ()
    ours: tuple[bytes, ...] = ()
    foreign: tuple[LoadedRule, ...] = ()


def plan(wanted: Iterable[Rule], loaded: Iterable[bytes], ours: Collection[bytes] = ()) -> Plan:
    """Compare the wanted rules with the loaded ones.

    ``loaded`` are the kernel's rules in its order; ``ours`` those that sessiond added, in this run
    or a crashed one, as sent or as listed. Rules of other programs are never removed; sessiond's
    unwanted ones are, so an empty ``wanted`` gives the removals for the end. Before adding, save
    ``ours`` and ``add``; a rule that the kernel then refuses with EEXIST is not sessiond's. Raises
    ValueError for invalid bytes in ``loaded`` or ``ours``.
    """
    owned = {binary.canonical(data) for data in ours}
    there = [binary.canonical(data) for data in loaded]
    foreign = [data for data in there if data not in owned]
    others = frozenset(foreign)
    mine = [rule for rule in wanted if rule.canonical not in others]
    remove: list[bytes] = []
    keep: list[bytes] = []
    add: list[Rule] = []
    for number in range(binary.LIST_MASK + 1):
        have = [data for data in there if data in owned and _list_of(data) == number]
        want = [rule for rule in mine if _list_of(rule.data) == number]
        kept = _common_start(have, want)
        keep += have[:kept]
        remove += have[kept:]
        add += want if kept == 0 else _in_kernel_order(want)[kept:]
    return Plan(
        tuple(remove),
        tuple(add),
        tuple(keep),
        tuple(LoadedRule(data) for data in foreign),
    )


def _list_of(data: bytes) -> int:
    return binary.unpack(data).list


def _common_start(have: Sequence[bytes], want: Sequence[Rule]) -> int:
    """Return how many rules can stay: the first matching rule decides, so order matters."""
    order = _in_kernel_order(want)
    same = 0
    while same < min(len(have), len(order)) and have[same] == order[same].canonical:
        same += 1
    # A prepended rule can precede kept rules only if these are reloaded.
    return 0 if any(rule.prepend for rule in order[same:]) else same


def refused(rule: Rule, code: int) -> RuleError:
    """Return the error for a rule that the kernel refused with error number ``code``."""
    name = errno.errorcode.get(code, str(code))
    reasons = {
        errno.EINVAL: "it holds the rule for invalid, so this kernel lacks something in it",
        errno.EPERM: "CAP_AUDIT_CONTROL is missing, or the rules are locked (-e 2)",
        errno.ENOENT: "a path in it doesn't exist: create it or remove the rule",
        errno.EEXIST: "the same rule is loaded already",
        errno.ENOMEM: "it has no memory for it",
    }
    reason = reasons.get(code, os.strerror(code))
    return RuleError(rule.source, rule.line, f"the kernel refuses the rule ({name}): {reason}")


def silencers(
    rules: Iterable[Rule | LoadedRule], syscall: str, ours: Collection[bytes] = ()
) -> list[str]:
    """Return other programs' rules that may suppress the events of ``syscall``, and how.

    ``rules`` as for ``audits``; ``ours`` are those loaded by sessiond. Rules that suppress events
    are the task list's ``never`` (kernel/auditsc.c, audit_filter_task), the exclude list, and a
    ``never`` on exit before the first rule that records the events of every process.
    """
    found = []
    ahead = True
    own = {binary.canonical(data) for data in ours}
    for rule in _in_kernel_order(rules):
        unpacked = binary.unpack(rule.data)
        text = binary.describe(rule.data)
        if unpacked.list == binary.TASK and unpacked.action == binary.NEVER:
            found.append(f"processes that a rule on the task list leaves out ({text})")
        elif any(binary.hides(rule.data, kind) for kind in (SYSCALL, EXECVE)):
            found.append(f"records that a rule excludes ({text})")
        elif ahead and _decides(unpacked, syscall, "b64"):
            is_ours = binary.canonical(rule.data) in own
            if unpacked.action == binary.NEVER and not unpacked.is_about_failure and not is_ours:
                found.append(f"a rule ahead that leaves events out ({text})")
            elif unpacked.action == binary.ALWAYS and unpacked.is_unconditional:
                ahead = False
    return found


def withholding(
    listing: Sequence[bytes], ours: Collection[bytes], known: Collection[bytes] = ()
) -> list[str]:
    """Return other programs' rules that withhold records from sessiond, as auditctl prints them.

    ``listing`` are the kernel's rules in its order, ``ours`` those loaded by sessiond; rules among
    ``known``, of an earlier listing, are left out. A rule withholds records if it is a ``never`` of
    the lists task and user, excludes records, or is a ``never`` for system calls that a rule of
    ours behind it records. Raises ValueError for invalid bytes.
    """
    own = {binary.canonical(data) for data in ours}
    old = {binary.canonical(data) for data in known}
    found: list[str] = []
    behind: list[binary.RuleData] = []
    for data in reversed(listing):
        rule, canonical = binary.unpack(data), binary.canonical(data)
        if canonical in own:
            if rule.list == binary.EXIT and rule.action == binary.ALWAYS:
                behind.append(rule)
            continue
        if canonical in old:
            continue
        if rule.list == binary.EXCLUDE:
            withholds = rule.action != binary.NEVER
        elif rule.list == binary.EXIT:
            withholds = rule.action == binary.NEVER and any(map(rule.meets, behind))
        else:
            withholds = rule.action == binary.NEVER and rule.list in (binary.TASK, binary.USER)
        if withholds:
            found.append(binary.describe(data))
    return found[::-1]


def _in_kernel_order(rules: Iterable[_AnyRule]) -> list[_AnyRule]:
    """Order rules as the kernel tries them: the last one with -A is the first of all."""
    first: list[_AnyRule] = []
    rest: list[_AnyRule] = []
    for rule in rules:
        (first if binary.unpack(rule.data).flags & binary.PREPEND else rest).append(rule)
    return [*reversed(first), *rest]


def _decides(rule: binary.RuleData, syscall: str, arch: str) -> bool:
    """Return whether a rule on the exit list covers a system call."""
    value = libaudit.arch(arch)
    number = None if value is None else libaudit.syscall_number(syscall, value)
    if value is None or number is None or rule.list != binary.EXIT:
        return False
    return rule.has_syscall(number) and rule.fits_arch(value)


def always_audits(rules: Iterable[Rule | LoadedRule], syscall: str, arch: str = "b64") -> bool:
    """Return whether the rules record every successful ``syscall`` of every process.

    ``rules`` as for ``audits``. A rule with conditions does not count, nor one after a rule that
    may suppress the event, unless that is about a single process, such as sessiond's own.
    """
    unpacked = [binary.unpack(rule.data) for rule in _in_kernel_order(rules)]
    if any(rule.list == binary.TASK and rule.action == binary.NEVER for rule in unpacked):
        return False
    for rule in unpacked:
        if not _decides(rule, syscall, arch):
            continue
        about_few = rule.is_about_failure or rule.is_about_one_process
        if rule.action == binary.NEVER and not about_few:
            return False
        if rule.action == binary.ALWAYS and rule.is_unconditional:
            return True
    return False


def audits(rules: Iterable[Rule | LoadedRule], syscall: str) -> bool:
    """Return whether the rules can record ``syscall`` of the host's own architecture at all.

    ``rules`` in loading order, or as the kernel lists them. A rule with conditions counts; one
    about files counts only for exec.
    """
    unpacked = [binary.unpack(rule.data) for rule in _in_kernel_order(rules)]
    if any(r.list == binary.TASK and r.action == binary.NEVER and not r.fields for r in unpacked):
        return False
    for rule in unpacked:
        if not _decides(rule, syscall, "b64"):
            continue
        if rule.is_about_files and not syscall.startswith("exec"):
            continue
        if rule.action == binary.ALWAYS:
            return True
        if rule.is_unconditional:
            return False
    return False
