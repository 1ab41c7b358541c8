r"""Audit rules in auditctl's language: from text to the kernel's bytes, and what to load of them.

The language is that of auditctl(8) and audit.rules(7), read as ``auditctl -R`` reads a file: a
rule a line, words separated by blanks, ``\ `` for a blank within a word, no quotes, no line
continuation, comments on lines of their own. libaudit compiles each field. A rule that auditctl or
the kernel would refuse raises RuleError, with a reason that names the way out.

It differs from auditctl where that guards the host: ``-d``, ``-W`` and ``-D`` work on what this
text adds, never on rules that someone else loaded; and options that ask auditctl for something to
be done at once (``-m``, ``--signal``) are refused.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sessiond.audit import libaudit, ruledata, ruletext
from sessiond.errors import RuleError

# Controls that take no value: option -> name of the Control.
_SWITCHES: Final = {
    "--loginuid-immutable": "loginuid_immutable",
    "--reset-lost": "reset_lost",
    "--reset_backlog_wait_time_actual": "reset_backlog_wait_time_actual",
    "-t": "trim_subtrees",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule to load: its line, where that stands, and the bytes to send with AUDIT_ADD_RULE.

    ``tolerant``: -i or -c stands before it, so that the kernel may refuse it and the rest goes on.
    """

    text: str
    source: str
    line: int
    data: bytes = field(repr=False)
    tolerant: bool = False

    @property
    def canonical(self) -> bytes:
        """The rule as the kernel will list it."""
        return ruledata.canonical(self.data)

    @property
    def prepend(self) -> bool:
        """Whether it goes before the rules that are there (-A)."""
        return bool(ruledata.unpack(self.data).flags & ruledata.PREPEND)

    def describe(self) -> str:
        """Return the rule as ``auditctl -l`` prints it."""
        return ruledata.describe(self.data)


class LoadedRule(NamedTuple):
    """A rule of the kernel's, in its canonical form."""

    data: bytes

    def describe(self) -> str:
        """Return the rule as ``auditctl -l`` prints it."""
        return ruledata.describe(self.data)


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


def parse(
    text: str | bytes,
    source: str,
    *,
    keep_going: bool = False,
    path_mode: ruletext.PathMode = libaudit.path_mode,
) -> RuleSet:
    """Compile the rules in ``text``; ``source`` names it in errors.

    Raises the first RuleError, unless -i or -c stands before it or ``keep_going`` is set: then
    errors are collected. ``path_mode`` gives the st_mode of a path or raises OSError: a watch
    depends on what its path is.
    """
    return parse_all([(source, text)], keep_going=keep_going, path_mode=path_mode)


def parse_all(
    texts: Iterable[tuple[str, str | bytes]],
    *,
    keep_going: bool = False,
    path_mode: ruletext.PathMode = libaudit.path_mode,
) -> RuleSet:
    """Compile several rule texts, given as (source, text), into one set; see ``parse``.

    A rule that an earlier text has already is left out with a warning.
    """
    parser = _Parser(keep_going, path_mode)
    for source, text in texts:
        parser.read(source, text)
    return RuleSet(
        tuple(parser.rules.values()),
        tuple(parser.controls),
        tuple(parser.errors),
        tuple(parser.warnings),
    )


# --- what to load, what to remove, whose a rule is ------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """How the wanted rules come into the kernel, and which of the kernel's are ours.

    ``remove`` comes first (a rule that is in the wrong place is in both), as canonical bytes for
    AUDIT_DEL_RULE; then ``add``, in order. ``ours`` are our rules that stay, ``already_there`` the
    wanted ones that someone else loaded before us, ``foreign`` all rules of others.
    """

    remove: tuple[bytes, ...] = ()
    add: tuple[Rule, ...] = ()
    ours: tuple[bytes, ...] = ()
    already_there: tuple[Rule, ...] = ()
    foreign: tuple[LoadedRule, ...] = ()


NO_RULES: Final = (
    "no rule is configured, so audit tells only what others' rules bring: see auditd.audit_rules "
    "and auditd.audit_rule_files; without either the built-in rules are used"
)


def plan(wanted: Iterable[Rule], loaded: Iterable[bytes], ours: Collection[bytes] = ()) -> Plan:
    """Compare what is wanted with what is loaded.

    ``loaded`` are the kernel's rules in its order; ``ours`` those that we added, this run or one
    that did not end well, as sent or as listed. Nothing of others is ever removed; a rule of ours
    that is no longer wanted is, so no ``wanted`` at all gives what to remove at the end. Before
    adding, write down ``ours`` and ``add``; a rule that the kernel then refuses with EEXIST is not
    ours. Raises ValueError when the bytes of ``loaded`` or ``ours`` are no rules.
    """
    owned = {ruledata.canonical(data) for data in ours}
    there = [ruledata.canonical(data) for data in loaded]
    foreign = [data for data in there if data not in owned]
    others = frozenset(foreign)
    mine = [rule for rule in wanted if rule.canonical not in others]
    already = [rule for rule in wanted if rule.canonical in others]
    remove: list[bytes] = []
    keep: list[bytes] = []
    add: list[Rule] = []
    for number in range(ruledata.LIST_MASK + 1):
        have = [data for data in there if data in owned and _list_of(data) == number]
        want = [rule for rule in mine if _list_of(rule.data) == number]
        kept = _common_start(have, want)
        keep += have[:kept]
        remove += have[kept:]
        add += want if kept == 0 else _loading_order(want)[kept:]
    return Plan(
        tuple(remove),
        tuple(add),
        tuple(keep),
        tuple(already),
        tuple(LoadedRule(data) for data in foreign),
    )


def _list_of(data: bytes) -> int:
    return ruledata.unpack(data).list


def _loading_order(rules: Sequence[Rule]) -> list[Rule]:
    """Order rules as the kernel has them: the last -A is the first of all."""
    first = [rule for rule in rules if rule.prepend]
    return [*reversed(first), *(rule for rule in rules if not rule.prepend)]


def _common_start(have: Sequence[bytes], want: Sequence[Rule]) -> int:
    """Return how many rules can stay: the first fitting rule decides, so order matters."""
    order = _loading_order(want)
    same = 0
    while same < min(len(have), len(order)) and have[same] == order[same].canonical:
        same += 1
    # A rule that goes first can only be put before rules that are kept by loading those again.
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


def audits(rules: Iterable[Rule | LoadedRule], syscall: str, arch: str = "b64") -> bool:
    """Return whether the rules can bring events of ``syscall`` at all.

    ``rules`` in loading order, or as the kernel lists them. A rule with conditions counts; one
    about files counts for exec alone.
    """
    value = libaudit.arch(arch)
    number = None if value is None else libaudit.syscall_number(syscall, value)
    if value is None or number is None:
        return False
    unpacked = [ruledata.unpack(rule.data) for rule in rules]
    if any(
        r.list == ruledata.TASK and r.action == ruledata.NEVER and not r.fields for r in unpacked
    ):
        return False
    first = [rule for rule in unpacked if rule.flags & ruledata.PREPEND]
    for rule in [*reversed(first), *(r for r in unpacked if not r.flags & ruledata.PREPEND)]:
        if rule.list != ruledata.EXIT or not rule.has_syscall(number) or not rule.fits_arch(value):
            continue
        if rule.is_about_files and not syscall.startswith("exec"):
            continue
        if rule.action == ruledata.ALWAYS:
            return True
        if rule.is_unconditional:
            return False
    return False


# --- the parser -----------------------------------------------------------------------------------


class _Parser:
    """The state that goes from line to line, and from text to text."""

    def __init__(self, keep_going: bool, path_mode: ruletext.PathMode) -> None:
        self.rules: dict[bytes, Rule] = {}  # by their canonical form
        self.controls: list[Control] = []
        self.errors: list[RuleError] = []
        self.warnings: list[RuleWarning] = []
        self._keep_going = keep_going
        self._path_mode = path_mode
        self._source = ""
        self._number = 0
        self._tolerant = False
        self._locked: Control | None = None

    def read(self, source: str, text: str | bytes) -> None:
        # One character for each byte from here on: lengths are counted in bytes.
        data = ruletext.encode(text) if isinstance(text, str) else text
        self._source, self._tolerant = source, False
        for self._number, line in enumerate(data.decode("latin-1").split("\n"), 1):
            try:
                self._read_line(line)
            except ruletext.IgnoredError as ignored:
                self._warn(str(ignored))
            except ruletext.RefusedError as reason:
                error = RuleError(source, self._number, str(reason))
                if not (self._keep_going or self._tolerant):
                    raise error from None
                self.errors.append(error)

    def _warn(self, reason: str) -> None:
        self.warnings.append(RuleWarning(self._source, self._number, reason))

    def _read_line(self, line: str) -> None:
        words = ruletext.split(line)
        if not words:
            return
        if words[0] in ("-i", "-c"):
            self._tolerant = True
        if self._locked is not None:
            raise ruletext.RefusedError(
                f"-e 2 in line {self._locked.line} of {self._locked.source} locks the rules until "
                "reboot, so nothing after it can work: move it to the end"
            )
        options = ruletext.options(words)
        if len(options) == 1 and self._stands_alone(*options[0]):
            return
        if words[0] == "-D":
            self._delete_all(words[1:])
            return
        with libaudit.RuleCompiler() as compiler:
            command = ruletext.Command(compiler, self._path_mode)
            for option, value in options:
                command.apply(option, value)
            data = command.finish()
            for name, number in command.controls:
                self._control(name, number)
            if data is not None and command.adds:
                self._add(line, data)
            elif data is not None:
                self._delete(data)
            for reason in command.warnings:
                self._warn(reason)

    def _add(self, line: str, data: bytes) -> None:
        data_ = ruledata.unpack(data)
        reason = ruledata.objection(data_) or self._path_objection(data_)
        if reason is not None:
            raise ruletext.RefusedError(reason)
        rule = Rule(
            ruletext.show(line.strip(" ")), self._source, self._number, data, self._tolerant
        )
        other = self.rules.get(rule.canonical)
        if other is None:
            self.rules[rule.canonical] = rule
        elif other.source == rule.source and not rule.prepend:
            raise ruletext.RefusedError(f"line {other.line} has the same rule: remove one")
        else:
            self._warn(f"left out: line {other.line} of {other.source} has the same rule")

    def _delete(self, data: bytes) -> None:
        if self.rules.pop(ruledata.canonical(data), None) is None:
            raise ruletext.RefusedError(
                "no line before this adds the rule that it deletes (a rule that someone else "
                "loaded stays; delete that with auditctl)"
            )

    def _delete_all(self, words: list[str]) -> None:
        match words:
            case []:
                key = ""
            case ["-k", value]:
                key = ruletext.show(value)
            case _:
                raise ruletext.RefusedError("-D takes no option but -k and a key")
        for canonical, rule in list(self.rules.items()):
            if key in ruledata.unpack(rule.data).key:
                del self.rules[canonical]

    def _control(self, name: str, value: int | str) -> None:
        control = Control(self._source, self._number, name, value)
        self.controls.append(control)
        if name == "enabled" and value == 2:
            self._locked = control

    def _stands_alone(self, option: str, value: str) -> bool:
        """Carry out an option that makes no rule; return False when it is none of those."""
        if option in ("-l", "-s", "-v"):
            raise ruletext.IgnoredError(f"{option} prints something in auditctl, here it does not")
        if option in ("-h", "-m", "-R", "--signal"):
            raise ruletext.RefusedError(
                f"{option} asks auditctl for something to be done now and is no part of a rule "
                "set: remove the line"
            )
        if option == "-q":
            mount, _, subtree = value.partition(",")
            if not mount or not subtree or "," in subtree:
                raise ruletext.RefusedError(f"-q takes MOUNT,SUBTREE, not {ruletext.quote(value)}")
            self._control("make_equivalent", ruletext.show(value))
        elif option in _SWITCHES:
            self._control(_SWITCHES[option], 1)
        return option in ("-i", "-c", "-q", *_SWITCHES)

    def _path_objection(self, data: ruledata.RuleData) -> str | None:
        for part in data.fields:
            if part.type in (ruledata.WATCH, ruledata.DIR, ruledata.EXE):
                reason = _missing(part, self._path_mode)
                if reason is not None:
                    return reason
        return None


def _missing(part: ruledata.Field, path_mode: ruletext.PathMode) -> str | None:
    """Return why the kernel could not resolve a rule's path, or None when it could.

    A directory must be there; of another path, the directory that it is in.
    """
    path = part.string
    try:
        path_mode(path)
    except FileNotFoundError:
        if part.type == ruledata.DIR:
            return f"there is no directory {part.text}: create it or remove the rule"
        parent = os.path.dirname(path)  # noqa: PTH120 - a path of bytes
        try:
            mode = path_mode(parent)
        except OSError:
            mode = 0
        if not stat.S_ISDIR(mode):
            return (
                f"there is no directory that {part.text} could be in: create it or remove the rule"
            )
    except NotADirectoryError:
        return f"{part.text} leads through something that is no directory"
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) and part.type == ruledata.DIR:
            return f"{part.text} can't be resolved: {error.strerror}"
        if error.errno == errno.ENAMETOOLONG:
            return f"{part.text[:40]}... is too long for a path"
    except ValueError:
        return "a path can't hold a NUL"
    return None
