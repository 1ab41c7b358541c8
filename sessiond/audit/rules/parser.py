r"""Parses one line of a rule file: its words, its options, and the resulting rule.

It follows setopt() of auditctl, option by option, because the order matters: a list before fields,
an arch before system calls, and the key last. Lines are text with one character per byte, so that
lengths match the kernel's limits.
"""

from __future__ import annotations

import difflib
import errno
import getopt
import os
import re
import stat
from collections.abc import Callable, Iterable
from typing import Final

from sessiond.audit.rules import binary, libaudit
from sessiond.audit.rules.binary import KEY_SEPARATOR, MAX_KEY
from sessiond.audit.rules.ruleset import Control, Rule, RuleSet, RuleWarning
from sessiond.errors import RuleError

PathMode = Callable[[bytes], int]

_SHORT: Final = "hicslDvtC:e:f:r:b:a:A:d:S:F:m:R:w:W:k:p:q:"
_LONG: Final = [
    "loginuid-immutable",
    "backlog_wait_time=",
    "reset-lost",
    "reset_backlog_wait_time_actual",
    "signal=",
]
_MAX_LINE: Final = 6143  # bytes; auditctl takes the rest for the next line
_PATH_MAX: Final = 4096  # limits.h: PATH_MAX
_NAME_MAX: Final = 255  # likewise: NAME_MAX

# As in auditctl, "\ " and "\\" are one character; any other backslash stands for itself.
_WORD: Final = re.compile(r"(?:\\[ \\]?|[^ \\])+")
_ESCAPE: Final = re.compile(r"\\([ \\])")
# The beginning of a word that strtoul(3) with base 0 parses as a number.
_NUMBER: Final = re.compile(r"0[xX](?P<hex>[0-9a-fA-F]+)|(?P<octal>0[0-7]*)|(?P<decimal>[0-9]+)")

_PERMISSIONS: Final = {
    "r": binary.PERM_READ,
    "w": binary.PERM_WRITE,
    "x": binary.PERM_EXEC,
    "a": binary.PERM_ATTR,
}


class RefusedError(Exception):
    """The line is invalid; the message says why."""


class IgnoredError(Exception):
    """The line has no effect; the message says why."""


class Command:
    """A line that adds or deletes a rule; its options are applied in order."""

    def __init__(self, compiler: libaudit.RuleCompiler, path_mode: PathMode) -> None:
        self.controls: list[tuple[str, int]] = []
        self.warnings: list[str] = []
        self._compiler = compiler
        self._path_mode = path_mode
        self._add: int | None = None
        self._delete: int | None = None
        self._prepend = 0
        self._action: int | None = None
        self._named = False  # the list and the action were given, by -a, -A or -d
        self._exclude = False
        self._key = ""

    def apply(self, option: str, value: str) -> None:
        """Apply an option of the line; raises RefusedError if it is not allowed here."""
        if option not in _OPTIONS:
            raise RefusedError(f"{option} must stand alone on its line")
        _OPTIONS[option](self, value)

    @property
    def adds(self) -> bool:
        """Whether the rule is to be added, not deleted."""
        return self._add is not None

    @property
    def _list(self) -> int | None:
        return self._delete if self._add is None else self._add

    def finish(self) -> bytes | None:
        """Return the rule's bytes, or None when the line has no rule."""
        if self._key:
            self._checked(self._compiler.field, "key=" + self._key)
        if self._list is None or self._action is None:
            if self._compiler.has_syscall:
                raise RefusedError("-S needs a list and an action before it: -a always,exit")
            return None
        if self._list != binary.TASK and not self._compiler.has_syscall:
            self._compiler.syscall(b"all")
        prepend = self._prepend if self.adds else 0
        return self._compiler.finish(self._list | prepend, self._action)

    # --- lists and actions

    def _append_rule(self, value: str) -> None:
        self._add = self._name_list("-a", value, self._add)

    def _insert_rule(self, value: str) -> None:
        self._add = self._name_list("-A", value, self._add)
        self._prepend = binary.PREPEND

    def _delete_rule(self, value: str) -> None:
        self._delete = self._name_list("-d", value, self._delete)

    def _name_list(self, option: str, value: str, given: int | None) -> int:
        if option != "-d" and "task" in value and self._compiler.has_syscall:
            raise RefusedError("the task list has no system calls: remove -S")
        if self._named:
            raise RefusedError("-a, -A and -d can be given once in a line")
        self._named = True
        first, _, second = value.partition(",")
        # Both orders are allowed, but after -w auditctl accepts only list,action.
        if libaudit.list_number(second) is not None and given is None:
            first, second = second, first
        list_, action = libaudit.list_number(first), libaudit.action_number(second)
        if list_ is None or action is None:
            raise RefusedError(_list_reason(option, value))
        if second == "possible":
            if value.startswith("possible"):
                raise RefusedError(_list_reason(option, value))
            raise IgnoredError("the action possible is deprecated: the line has no effect")
        self._exclude = self._exclude or list_ == binary.EXCLUDE
        self._action = action
        return list_

    # --- conditions

    def _add_syscalls(self, value: str) -> None:
        for list_ in (self._add, self._delete):
            if list_ in (binary.TASK, binary.USER, binary.FILESYSTEM):
                name = libaudit.list_name(list_)
                raise RefusedError(f"the {name} list has no system calls: remove -S")
        if self._exclude:
            raise RefusedError("the exclude list has no system calls: remove -S")
        assumed = not self._compiler.arch
        if assumed:
            self._compiler.arch = libaudit.native_arch()
        names = [name for name in value.split(",") if name]
        for name in names:
            self._add_syscall(name)
        self._compiler.has_syscall = True
        if assumed and self._add is not None and _differs_in_b32(names, self._compiler.arch):
            self.warnings.append(
                "32 and 64 bit processes have different numbers for this: say -F arch=b64 or "
                "-F arch=b32 before -S"
            )

    def _add_syscall(self, name: str) -> None:
        if self._list == binary.IO_URING:
            number = libaudit.uring_operation(name.encode("latin-1"))
            if number is not None and self._compiler.syscall_bit(number) == 0:
                return
            raise RefusedError(f"unknown io_uring operation {quote(name)}")
        if self._compiler.syscall(name.encode("latin-1")) != 0:
            raise RefusedError(_syscall_reason(name, self._compiler.arch))
        beyond = memoryview(self._compiler.mask()).cast("I")[-1] >> 16
        if beyond and name != "all" and beyond != 0xFFFF:
            raise RefusedError(f"no system call has the number {quote(name)}")

    def _add_field(self, value: str) -> None:
        if self._list is None:
            raise RefusedError("-F needs a list and an action before it: -a always,exit")
        if value.startswith("key="):
            self._append_key(value.removeprefix("key="))
            return
        self._checked(self._compiler.field, value)
        if self._list == binary.EXCLUDE and self._compiler.last_field not in binary.OF_MESSAGES:
            name = libaudit.field_name(self._compiler.last_field)
            self.warnings.append(
                f"the kernel has no {name} in the exclude list: this never matches"
            )
        if self._compiler.last_field == binary.PERM:
            self._compiler.note_permission()
        if self._compiler.last_field == binary.EXE:
            self._compiler.note_executable()

    def _add_comparison(self, value: str) -> None:
        self._checked(self._compiler.comparison, value, "-C")

    def _checked(
        self, function: Callable[[bytes, int], int], pair: str, option: str = "-F"
    ) -> None:
        # Without a list libaudit refuses with "exit list only".
        list_ = 0x80 if self._list is None else self._list
        code = -function(pair.encode("latin-1"), list_)
        if code == _EXIT_LIST_ONLY and self._list == binary.EXCLUDE and option == "-F":
            code = _NOT_OF_MESSAGES
        if code != 0:
            raise RefusedError(_field_reason(code, option, pair))

    # --- watches and keys

    def _add_watch(self, value: str) -> None:
        if self._list is not None:
            raise RefusedError("-w makes a rule of its own: it can't follow -a, -A, -d, -w or -W")
        self._add = self._watch(value)

    def _delete_watch(self, value: str) -> None:
        self._delete = self._watch(value)

    def _watch(self, value: str) -> int:
        self._action = binary.ALWAYS
        self._compiler.has_syscall = True
        if len(value) >= _PATH_MAX:
            raise RefusedError(f"the path is longer than {_PATH_MAX - 1} bytes")
        if not value.startswith("/"):
            raise RefusedError(f"the path to watch must start with /, this is {quote(value)}")
        if len(value.rstrip("/").rpartition("/")[2]) > _NAME_MAX:
            raise RefusedError(f"the path's last part is longer than {_NAME_MAX} bytes")
        if ".." in value:
            self.warnings.append("the kernel takes .. in a watched path as it is: write it out")
        if "*" in value or "?" in value:
            self.warnings.append("* and ? in a watched path stand for themselves, not for others")
        if len(value) > len("//"):
            value = value.rstrip("/") or "/"
        path = value.encode("latin-1")
        try:
            directory = stat.S_ISDIR(self._path_mode(path))
        except OSError:
            directory = False
        if self._compiler.watch(path, directory=directory) != 0:
            raise RefusedError("-W and -w make a rule of their own: they can't follow -F, -C or -w")
        return binary.EXIT

    def _set_permissions(self, value: str) -> None:
        if self._list is None:
            raise RefusedError("-p needs a watch before it: -w PATH -p rwxa")
        letters = value.lower()
        if len(value) > len(_PERMISSIONS) or set(letters) - _PERMISSIONS.keys():
            raise RefusedError(f"-p takes letters of rwxa, this is {quote(value)}")
        bits = sum(_PERMISSIONS[letter] for letter in set(letters))
        if self._compiler.permissions(bits) != 0:
            raise RefusedError("-p needs a path before it, and a rule has at most 63 fields")
        self._compiler.note_permission()

    def _add_key(self, value: str) -> None:
        if self._list is None or not self._compiler.may_have_key:
            raise RefusedError("-k needs a watch, a system call or a path before it: put it last")
        self._append_key(value)

    def _append_key(self, value: str) -> None:
        keys = self._key + KEY_SEPARATOR + value if self._key else value
        if len(keys) > MAX_KEY:
            raise RefusedError(f"keys can have {MAX_KEY} bytes together, this has {len(keys)}")
        self._key = keys

    # --- controls

    def _set_enabled(self, value: str) -> None:
        self._choice("enabled", "-e", value)

    def _set_failure(self, value: str) -> None:
        self._choice("failure", "-f", value)

    def _choice(self, name: str, option: str, value: str) -> None:
        if value not in ("0", "1", "2"):
            raise RefusedError(f"{option} takes 0, 1 or 2, this is {quote(value)}")
        self.controls.append((name, int(value)))

    def _set_rate_limit(self, value: str) -> None:
        self.controls.append(("rate_limit", _number("-r", value)))

    def _set_backlog_limit(self, value: str) -> None:
        self.controls.append(("backlog_limit", _number("-b", value)))

    def _set_backlog_wait_time(self, value: str) -> None:
        self.controls.append(("backlog_wait_time", _number("--backlog_wait_time", value)))


_OPTIONS: Final[dict[str, Callable[[Command, str], None]]] = {
    "-a": Command._append_rule,
    "-A": Command._insert_rule,
    "-d": Command._delete_rule,
    "-S": Command._add_syscalls,
    "-F": Command._add_field,
    "-C": Command._add_comparison,
    "-w": Command._add_watch,
    "-W": Command._delete_watch,
    "-p": Command._set_permissions,
    "-k": Command._add_key,
    "-e": Command._set_enabled,
    "-f": Command._set_failure,
    "-r": Command._set_rate_limit,
    "-b": Command._set_backlog_limit,
    "--backlog_wait_time": Command._set_backlog_wait_time,
}


# --- words ----------------------------------------------------------------------------------------


def encode(text: str) -> bytes:
    """Return the bytes of a text."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def show(word: str) -> str:
    r"""Return a word as text, with bytes that are not UTF-8 as \xNN."""
    return word.encode("latin-1").decode("utf-8", "backslashreplace")


def quote(word: str) -> str:
    """Return a word as text, in quotes."""
    return repr(show(word))


def split(line: str) -> list[str]:
    """Return the words of a line, none for a blank line or a comment; raises RefusedError."""
    if line.strip(" ").startswith("#") or not line.strip(" "):
        return []
    if len(line) > _MAX_LINE:
        raise RefusedError(f"auditctl reads {_MAX_LINE} bytes of a line, this has {len(line)}")
    if line.endswith("\r"):
        raise RefusedError("the line ends with a carriage return: save it with Unix line ends")
    if re.search("[\0\4\7]", line):
        raise RefusedError("the line has a control character: remove it")
    words = _WORD.findall(line)
    if _ESCAPE.search(words[0]):
        raise RefusedError("auditctl doesn't read \\ in a line's first word: put a blank after -w")
    # auditctl has space for one word per three bytes, and silently drops further words.
    if len(words) > len(line) // 3 + 1:
        raise RefusedError("auditctl drops the end of so many short words: write -S with commas")
    return [_ESCAPE.sub(r"\1", word) for word in words]


def options(words: list[str]) -> list[tuple[str, str]]:
    """Return the options and their values, in order; raises RefusedError."""
    try:
        found, rest = getopt.gnu_getopt(words, _SHORT, _LONG)
    except getopt.GetoptError as error:
        dashes = "-" if len(error.opt) == 1 else "--"
        problem = "needs a value" if "requires argument" in error.msg else "is no auditctl option"
        if not error.opt:
            raise RefusedError(f"an option {problem}") from None
        given = dashes + error.opt
        shown = given if given.isascii() and given.isprintable() else quote(given)
        raise RefusedError(f"{shown} {problem}") from None
    if rest:
        raise RefusedError(_stray_reason(rest[0], words))
    if not found:
        raise RefusedError("there is no option in this line")
    return found


def _stray_reason(word: str, words: list[str]) -> str:
    reason = f"{quote(word)} belongs to no option: "
    if any("\t" in word for word in words):
        return reason + "words are separated by blanks, not by tabs"
    if word.startswith("#"):
        return reason + "a comment must stand on a line of its own"
    if word.endswith("\\"):
        return reason + "a rule can't go on in the next line, write it in one"
    if any(quote in "".join(words) for quote in "'\""):
        return reason + "quotes mean nothing here, write \\ before a blank within a word"
    return reason + "remove it, or write \\ before a blank within a word"


def _number(option: str, value: str) -> int:
    match = _NUMBER.match(value)
    if match is None:
        raise RefusedError(f"{option} takes a number, this is {quote(value)}")
    kind = match.lastgroup or "decimal"
    number = int(match[kind], {"hex": 16, "octal": 8, "decimal": 10}[kind])
    if number > 0xFFFFFFFF:
        raise RefusedError(f"{option} takes a number of 32 bits, {quote(value)} is larger")
    return number


# --- reasons --------------------------------------------------------------------------------------


def _near(name: str, names: Iterable[str | None]) -> str:
    """Return a hint at the names most similar to ``name``, "" without any."""
    known = [each for each in names if each]
    # show() first: the capital letter of a byte's character may exceed a byte.
    shown = show(name).upper() if known and known[0].isupper() else show(name)
    near = difflib.get_close_matches(shown, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _list_reason(option: str, value: str) -> str:
    parts = value.split(",")
    lists = "exit, task, user, exclude, filesystem"
    if "entry" in parts:
        return "the entry list is gone from the kernel: use exit"
    if len(parts) != 2:
        return f"{option} takes a list and an action, such as always,exit; this is {quote(value)}"
    return f"{option} takes always or never and one of {lists}; this is {quote(value)}"


def _differs_in_b32(names: list[str], native: int) -> bool:
    narrow = libaudit.arch("b32")
    if narrow is None or narrow == native:
        return False
    return any(
        libaudit.syscall_number(name, native) != libaudit.syscall_number(name, narrow)
        for name in names
    )


def _syscall_reason(name: str, arch: int) -> str:
    machine = libaudit.arch_name(arch) or f"0x{arch:X}"
    shown = show(name)
    for other in ("b64", "b32"):
        value = libaudit.arch(other)
        if value is not None and libaudit.syscall_number(shown, value) is not None:
            return f"{machine} has no system call {shown!r}; arch={other} has"
    if name.isdigit():
        return f"no system call has the number {shown}"
    known = (libaudit.syscall_name(number, arch) for number in range(binary.SYSCALLS))
    return f"unknown system call {shown!r} for {machine}{_near(name, known)}"


_OPERATOR: Final = [re.compile(op) for op in ("!=", ">=", "<=", "&=", "=", ">", "<", "&")]

# Errors of libaudit for a field that an exclude rule can't have: the second one is that of version
# 3.0, the first one that of later versions, some of which accept the field.
_EXIT_LIST_ONLY: Final = 7
_NOT_OF_MESSAGES: Final = 12

# By libaudit's error numbers (lib/errormsg.h); {name} and {value} are those of the field.
_REASONS: Final = {
    1: "{pair} has no operator: write name=value, with one of = != < <= > >= & &=",
    3: "arch must come before -S (and -w can't have one)",
    4: "{value} is no architecture here: use b64 or b32",
    5: "{value} is no architecture here: use b64 or b32",
    6: "this machine has no such architecture: {value}",
    7: "{name} works in the exit list only: -a always,exit",
    9: "msgtype works in the exclude and user lists only",
    11: "the value of {name} is too long",
    12: "the exclude list takes pid, uid, gid, auid, msgtype, subj_* and exe only, not {name}",
    13: "{name} takes only = and !=",
    14: "perm takes letters of rwxa, this is {value}",
    16: "{value} is no file type: use file, dir, link, socket, character, block or fifo",
    19: "a key needs a watch, a system call or a path before it: put it last",
    20: "{name} has no value",
    21: "{name} takes a number, this is {value}",
    22: "the name before the operator is missing in {pair}",
    24: "the name before the operator is missing in {pair}",
    25: "the name after the operator is missing in {pair}",
    28: "a rule has at most 63 fields",
    29: "{name} takes only =",
    30: "the running kernel doesn't support {name}, or doesn't show it without CAP_AUDIT_CONTROL",
    31: "{name} works in the exclude, user and exit lists only",
    32: "-F needs name=value",
    33: "{name} and {value} can't be compared: both must be of users, or both of groups",
    34: "{name} works in the filesystem list only: -a always,filesystem",
    35: "the running kernel has no filesystem list, or doesn't show it without CAP_AUDIT_CONTROL",
    36: "{value} is no file system type here: use its magic number, tracefs or debugfs",
    37: "{value} is too large for {name}",
}


def _field_reason(code: int, option: str, pair: str) -> str:
    name, value = pair, ""
    for operator in _OPERATOR:
        found = operator.search(pair)
        if found is not None:
            name, value = pair[: found.start()], pair[found.end() :]
            break
    if option == "-C" and code == 13:
        return f"-C compares two fields by = or !=, this is {quote(pair)}"
    names: Iterable[str | None]
    match code:
        case 2 | 26 | 27:
            unknown = value if code == 27 else name
            names = map(libaudit.field_name, range(binary.FILTERKEY + 1))
            return f"unknown field {quote(unknown)}{_near(unknown, names)}"
        case 8:
            names = map(libaudit.message_type_name, range(1000, 3000))
            return f"unknown record type {quote(value)}{_near(value, names)}"
        case 15:
            names = map(libaudit.errno_name, range(1, 200))
            return f"unknown error {quote(value)}{_near(value.lstrip('-'), names)}"
        case 38:
            who = "group" if name.endswith("gid") else "user"
            return f"there is no {who} {quote(value)} on this host"
    reason = _REASONS.get(code, "libaudit refuses {pair}")
    shown = show(name)
    named = shown if shown.isprintable() else repr(shown)
    return reason.format(name=named, value=quote(value), pair=quote(pair))


# Controls that take no value: option -> name of the Control.
_SWITCHES: Final = {
    "--loginuid-immutable": "loginuid_immutable",
    "--reset-lost": "reset_lost",
    "--reset_backlog_wait_time_actual": "reset_backlog_wait_time_actual",
    "-t": "trim_subtrees",
}


def parse(
    text: str | bytes,
    source: str,
    *,
    keep_going: bool = False,
    path_mode: PathMode = libaudit.path_mode,
) -> RuleSet:
    """Compile the rules in ``text``; ``source`` names it in errors.

    Raises the first RuleError, unless -i or -c precedes it or ``keep_going`` is set: then errors
    are collected. ``path_mode`` returns the st_mode of a path or raises OSError: the rule of a
    watch depends on its path's type.
    """
    return parse_all([(source, text)], keep_going=keep_going, path_mode=path_mode)


def parse_all(
    texts: Iterable[tuple[str, str | bytes]],
    *,
    keep_going: bool = False,
    path_mode: PathMode = libaudit.path_mode,
) -> RuleSet:
    """Compile several rule texts, given as (source, text), into one set; see ``parse``.

    A rule that an earlier text contains is left out with a warning.
    """
    rules_parser = _Parser(keep_going, path_mode)
    for source, text in texts:
        rules_parser.read(source, text)
    return RuleSet(
        tuple(rules_parser.rules.values()),
        tuple(rules_parser.controls),
        tuple(rules_parser.errors),
        tuple(rules_parser.warnings),
    )


class _Parser:
    """The parser's state, which lasts over lines and texts."""

    def __init__(self, keep_going: bool, path_mode: PathMode) -> None:
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
        data = encode(text) if isinstance(text, str) else text
        self._source, self._tolerant = source, False
        for self._number, line in enumerate(data.decode("latin-1").split("\n"), 1):
            try:
                self._read_line(line)
            except IgnoredError as ignored:
                self._warn(str(ignored))
            except RefusedError as reason:
                error = RuleError(source, self._number, str(reason))
                if not (self._keep_going or self._tolerant):
                    raise error from None
                self.errors.append(error)

    def _warn(self, reason: str) -> None:
        self.warnings.append(RuleWarning(self._source, self._number, reason))

    def _read_line(self, line: str) -> None:
        words = split(line)
        if not words:
            return
        if words[0] in ("-i", "-c"):
            self._tolerant = True
        if self._locked is not None:
            raise RefusedError(
                f"-e 2 in line {self._locked.line} of {self._locked.source} locks the rules until "
                "reboot, so nothing after it can work: move it to the end"
            )
        given = options(words)
        if len(given) == 1 and self._stands_alone(*given[0]):
            return
        if words[0] == "-D":
            self._delete_all(words[1:])
            return
        with libaudit.RuleCompiler() as compiler:
            command = Command(compiler, self._path_mode)
            for option, value in given:
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
        data_ = binary.unpack(data)
        reason = binary.objection(data_) or self._path_objection(data_)
        if reason is not None:
            raise RefusedError(reason)
        rule = Rule(show(line.strip(" ")), self._source, self._number, data)
        other = self.rules.get(rule.canonical)
        if other is None:
            self.rules[rule.canonical] = rule
        elif other.source == rule.source and not rule.prepend:
            raise RefusedError(f"line {other.line} has the same rule: remove one")
        else:
            self._warn(f"left out: line {other.line} of {other.source} has the same rule")

    def _delete(self, data: bytes) -> None:
        if self.rules.pop(binary.canonical(data), None) is None:
            raise RefusedError(
                "no line before this adds the rule that it deletes (a rule that someone else "
                "loaded stays; delete that with auditctl)"
            )

    def _delete_all(self, words: list[str]) -> None:
        match words:
            case []:
                key = ""
            case ["-k", value]:
                key = show(value)
            case _:
                raise RefusedError("-D takes no option but -k and a key")
        for canonical, rule in list(self.rules.items()):
            if key in binary.unpack(rule.data).key:
                del self.rules[canonical]

    def _control(self, name: str, value: int | str) -> None:
        control = Control(self._source, self._number, name, value)
        self.controls.append(control)
        if name == "enabled" and value == 2:
            self._locked = control

    def _stands_alone(self, option: str, value: str) -> bool:
        """Apply an option that makes no rule; return False for any other option."""
        if option in ("-l", "-s", "-v"):
            raise IgnoredError(f"{option} prints something in auditctl, here it does not")
        if option in ("-h", "-m", "-R", "--signal"):
            raise RefusedError(
                f"{option} asks auditctl for something to be done now and is no part of a rule "
                "set: remove the line"
            )
        if option == "-q":
            mount, _, subtree = value.partition(",")
            if not mount or not subtree or "," in subtree:
                raise RefusedError(f"-q takes MOUNT,SUBTREE, not {quote(value)}")
            self._control("make_equivalent", show(value))
        elif option in _SWITCHES:
            self._control(_SWITCHES[option], 1)
        return option in ("-i", "-c", "-q", *_SWITCHES)

    def _path_objection(self, data: binary.RuleData) -> str | None:
        for part in data.fields:
            if part.type in (binary.WATCH, binary.DIR, binary.EXE):
                reason = _missing(part, self._path_mode)
                if reason is not None:
                    return reason
        return None


def _missing(part: binary.Field, path_mode: PathMode) -> str | None:
    """Return the reason why the kernel could not resolve a rule's path, None if it can.

    A directory must exist; for another path its parent directory must exist.
    """
    path = part.string
    try:
        path_mode(path)
    except FileNotFoundError:
        if part.type == binary.DIR:
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
        return f"{part.text} leads through something that is not a directory"
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) and part.type == binary.DIR:
            return f"{part.text} can't be resolved: {error.strerror}"
        if error.errno == errno.ENAMETOOLONG:
            return f"{part.text[:40]}... is too long for a path"
    except ValueError:
        return "a path can't hold a NUL"
    return None
