"""Exposure of filters: whether an ordinary user can fulfil a filter's conditions.

A user controls arguments, names, directories and the programs that run: with LD_PRELOAD even a
program of root does what the user wants. A user does not control another user's id, the login user,
a system unit, or an entry established by a program of root. A filter is safe if it has a condition
of the second kind that the values of ordinary users do not fulfil. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sessiond.config.conditions import All, AnyOf, Condition, Leaf, Not
from sessiond.config.filters import FilterRule
from sessiond.ecs.normalizations import RECORD_TYPES, SYSCALLS
from sessiond.filters.stage import LIFE
from sessiond.process.entry import SESSION_TYPES
from sessiond.system.ordinary_users import OrdinaryUser

# Units in which programs of ordinary users run: sessions, the user's own manager, and services that
# run jobs of users or accept logins.
_UNITS_OF_USERS: Final = (
    "session-1.scope", "session-c1.scope", "user@{uid}.service", "cron.service", "crond.service",
    "cronie.service", "atd.service", "ssh.service", "sshd.service", "dropbear.service",
    "getty@tty1.service", "serial-getty@ttyS0.service", "gdm.service", "sddm.service",
    "lightdm.service", "display-manager.service", "exim4.service", "postfix@-.service",
    "postfix.service", "sendmail.service", "slurmd.service",
)  # fmt: skip
_SLICES_OF_USERS: Final = ("user.slice", "user-{uid}.slice", "system.slice", "system-getty.slice")
# A container's or kubelet's entry counts only if a runtime of root established it.
_ENTRIES_OF_USERS: Final = (*sorted(SESSION_TYPES), "init", "unknown")
_IDS: Final = ("user", "real_user", "saved_user", "group", "real_group", "saved_group")

_PROTECTED: Final = frozenset(
    {each.action for each in RECORD_TYPES.values()} - {each.action for each in SYSCALLS.values()}
)


# Represents unknown users: those of a directory service, and future ones. login.defs(5) has the
# default range of subordinate ids.
UNKNOWN_USER: Final = OrdinaryUser(
    54_321, "an ordinary user", ((54_321, "ordinary users"),), ((100_000, 600_000_000),)
)


@dataclass(frozen=True)
class Exposure:
    """The result for a filter; ``safe``: no ordinary user fulfils its conditions."""

    name: str
    safe: bool
    text: str
    advice: str = ""


def exposures(rules: Sequence[FilterRule], users: Sequence[OrdinaryUser]) -> list[Exposure]:
    """Check each filter that drops or folds; ``users`` are the host's ordinary users."""
    found: list[Exposure] = []
    for rule in rules:
        if not rule.withholds:
            continue
        found.append(_exposure(rule, (*users, UNKNOWN_USER)))
        for action in _named_actions(rule.when):
            if action not in LIFE and (action in _PROTECTED or action.startswith("sessiond-")):
                text = f"it leaves out {action} events, which tell who came in, or what was lost"
                found.append(Exposure(rule.name, False, text, "leave that action out"))
    return found


def _exposure(rule: FilterRule, users: Sequence[OrdinaryUser]) -> Exposure:
    who = next((user for user in users if _can_fulfil(rule.when, user)), None)
    if who is None:
        parts = rule.when.parts if isinstance(rule.when, All) else (rule.when,)
        kept = [part for part in parts if not any(_can_fulfil(part, user) for user in users)]
        shown = _shown(kept[0]) if kept else "all of its conditions together"
        return Exposure(rule.name, True, f"no ordinary user fulfils {shown}")
    chosen = sorted({leaf.name for leaf in rule.when.leaves() if _values(leaf, who) is None})
    met = sorted({leaf.name for leaf in rule.when.leaves()} - set(chosen))
    texts = []
    if chosen:
        texts.append("chooses " + ", ".join(chosen))
    if met:
        texts.append("has " + ", ".join(met))
    advice = (
        "add a condition that users can't fulfil: process.user.name of a service's account, "
        "or systemd.unit of its service"
    )
    return Exposure(
        rule.name, False, f"{who.name} can hide behind it: he {' and '.join(texts)}", advice
    )


def _shown(condition: Condition) -> str:
    leaves = list(condition.leaves())
    first = leaves[0]
    wanted = ", ".join(map(str, first.tests))
    more = "" if len(leaves) == 1 else " and what goes with it"
    return f"{first.name}: {wanted}{more}"


def _named_actions(condition: Condition) -> list[str]:
    return [
        str(test.wanted)
        for leaf in condition.leaves()
        if leaf.name == "event.action"
        for test in leaf.tests
        if test.kind == "equal"
    ]


def _can_fulfil(condition: Condition, user: OrdinaryUser) -> bool:
    if isinstance(condition, All):
        return all(_can_fulfil(part, user) for part in condition.parts)
    if isinstance(condition, AnyOf):
        return any(_can_fulfil(part, user) for part in condition.parts)
    if isinstance(condition, Not):
        return _can_fail(condition.part, user)
    if isinstance(condition, Leaf):
        values = _values(condition, user)
        if values is None:
            return True
        return any(test.holds(each) for each in values for test in condition.tests)
    return _can_fulfil(condition.part, user)


def _can_fail(condition: Condition, user: OrdinaryUser) -> bool:
    if isinstance(condition, All):
        return any(_can_fail(part, user) for part in condition.parts)
    if isinstance(condition, AnyOf):
        return all(_can_fail(part, user) for part in condition.parts)
    if isinstance(condition, Not):
        return _can_fulfil(condition.part, user)
    if isinstance(condition, Leaf):
        values = _values(condition, user)
        if values is None:
            return True
        return any(not any(test.holds(each) for test in condition.tests) for each in values)
    return True  # users have few ancestors, and can avoid most


def _values(leaf: Leaf, user: OrdinaryUser) -> list[list[object]] | None:
    """Return the possible values of a field for a user's processes, each a list; None: any.

    Of many possible ids, they include those that the leaf's tests could match. Set-user-id programs
    are ignored: processes that gain privileges are written despite filters.
    """
    field = leaf.name
    own, _, rest = field.removeprefix("process.").partition(".")
    if field.startswith(("user.audit.", "ancestor.user.audit.")):
        return [*_ids(leaf, user, ()), []]
    if field in ("user.id", "user.name") or (field.startswith("process.") and own in _IDS):
        return _ids(leaf, user, user.subordinate)
    if own in ("parent", "group_leader", "session_leader", "entry_leader", "ancestor"):
        if rest.startswith("entry_meta.type"):
            return _one_by_one(_ENTRIES_OF_USERS, user)
        if rest.partition(".")[0] in _IDS:
            # pid 1 and the login servers belong to root.
            return [*_ids(leaf, user, user.subordinate), *_one_by_one(("0", "root"), user)]
    if field == "systemd.unit":
        return [*_one_by_one(_UNITS_OF_USERS, user), []]
    if field == "systemd.slice":
        return [*_one_by_one(_SLICES_OF_USERS, user), []]
    if field == "systemd.owner_uid":
        return [[user.uid], []]
    return None


def _one_by_one(values: Sequence[str], user: OrdinaryUser) -> list[list[object]]:
    return [[each.format(uid=user.uid)] for each in values]


def _ids(leaf: Leaf, user: OrdinaryUser, ranges: Sequence[tuple[int, int]]) -> list[list[object]]:
    """Return the ids or names of a user, or of the user's groups; ``ranges`` are further ids."""
    is_id = leaf.name.endswith(".id")
    more: list[list[object]] = []
    for first, number in ranges if is_id else ():
        wanted = [str(test.wanted) for test in leaf.tests if test.kind == "equal"]
        inside = [each for each in wanted if each.isdigit() and 0 <= int(each) - first < number]
        more += [[each] for each in (str(first), str(first + number - 1), *inside)]
    own: list[list[object]] = [[str(user.uid) if is_id else user.name]]
    if "group." in leaf.name:
        own = [[str(gid) if is_id else name] for gid, name in user.groups]
    return own + more
