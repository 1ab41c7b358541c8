"""The audit part of a document: the records of an event in ECS and ``auditd.*``.

Unknown fields are omitted; unparsable fields too, with a warning.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from sessiond.audit.reassembler import AuditEvent
from sessiond.audit.record import CONFIG_CHANGE, LOGIN, Record, decode, from_user_space
from sessiond.ecs import decoders
from sessiond.ecs.audit_fields import (
    CACHE_LIMIT,
    MAX_SEQUENCE,
    UNSET,
    URINGOP,
    USER_CMD,
    EventFields,
    FieldReader,
    integer,
    text_of,
)
from sessiond.ecs.dates import timestamp
from sessiond.ecs.normalizations import (
    HOW_IS_SYSCALL,
    NAMES,
    PEER,
    RECORD_TYPES,
    SOCKETCALLS,
    SYSCALLS,
    VARIANTS,
    Normalization,
    record_type,
    unknown_record,
    unknown_syscall,
)
from sessiond.ecs.process import NameLookup
from sessiond.ecs.users import Users, selinux
from sessiond.text import display

# Fields of a SYSCALL record that have their own place in the document.
_SYSCALL_PLACED: Final = frozenset(
    "arch syscall success exit a0 a1 a2 a3 items ppid pid auid uid gid euid suid fsuid egid sgid "
    "fsgid tty ses comm exe key container".split()
)
# Object types that are not files, although the event may have paths.
_WITHOUT_FILE: Final = frozenset(("socket", "audit-config", "firewall"))

_RESULTS: Final = {
    "yes": ("success", "success"),
    "success": ("success", "success"),
    "1": ("success", "success"),
    "no": ("fail", "failure"),
    "failed": ("fail", "failure"),
    "fail": ("fail", "failure"),
    "0": ("fail", "failure"),
}
_VERDICTS: Final = {
    "denied": _RESULTS["no"],
    "granted": _RESULTS["yes"],
    "allowed": _RESULTS["yes"],
}
_UNKNOWN: Final = ("unknown", "unknown")
_INTERPRETERS: Final = re.compile(r"(?:python|perl|ruby|node|php|lua|java|bash|dash|sh|zsh)[\d.]*$")


class Tables(Protocol):
    """Names for the kernel's numbers, such as ``sessiond.audit.kernel_names``."""

    def arch_name(self, value: int, /) -> str | None:
        """The machine's name of an AUDIT_ARCH_* value."""

    def syscall_name(self, number: int, value: int, /) -> str | None:
        """A syscall's name by its number and AUDIT_ARCH_* value."""

    def message_type_name(self, number: int, /) -> str | None:
        """A record type's name."""

    def errno_name(self, number: int, /) -> str | None:
        """A positive error number's name."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the configuration, named as in Auditbeat."""

    resolve_ids: bool = True
    include_raw_message: bool = False
    include_warnings: bool = False


class _Call(NamedTuple):
    """The names for arch= and syscall= of a SYSCALL record."""

    arch: str
    name: str
    meaning: Normalization


# These records report actions requested by a write to procfs, audit's socket or an io_uring: the
# system call itself has no meaning.
_BY_ANY_CALL: Final = frozenset((LOGIN, CONFIG_CHANGE, URINGOP))
# These machines have their own numbers of errors, signals, flags and socket types, except for the
# common Unix errors (include/uapi/asm-generic/errno-base.h).
_OWN_NUMBERS: Final = ("alpha", "mips", "parisc", "sparc")
_MAX_COMMON_ERROR: Final = 34
_IDENTITY: Final = ("id", "name")
_SENDER: Final = ("uid",)
_EXEC_FAILED: Final = SYSCALLS["execve"]._replace(action="exec-failed", types=["info"])


class AuditEventEncoder:
    """Converts audit events to the audit part of their documents.

    ``describe`` never raises for the content of a record. Only looked-up names are kept between
    events.
    """

    def __init__(self, names: NameLookup, tables: Tables, options: Options | None = None) -> None:
        """Take the names of users and groups, the tables of kernel numbers, and the options."""
        self._tables = tables
        self._options = options or Options()
        self._accounts = Users(names if self._options.resolve_ids else None)
        self._reader = FieldReader()
        self._calls: dict[tuple[bytes | None, bytes | None], _Call] = {}

    def forget_names(self) -> None:
        """Forget the names of users and groups, because an id has a new name."""
        self._accounts.forget()

    def describe(
        self, event: AuditEvent, *, enriched: bool = False
    ) -> tuple[dict[str, Any], list[str]]:
        """Return an event's records as nested ECS fields, and warnings for unparsable parts.

        ``enriched`` says that the caller has the process: ``process`` then has only ``pid`` and
        ``title``. The caller adds the common fields (``@timestamp``, ``event.id``, ``host``).
        Members may be shared with other documents: replace them, do not modify them.
        """
        self._accounts.at(event.time)
        syscall = event.syscall
        parts, call = self._read(event, enriched=enriched)
        result, outcome = _result(syscall, parts)
        auditd: dict[str, Any] = {}
        document: dict[str, Any] = {"event": None, "auditd": auditd}
        subject = parts.subject
        if subject is not None and "arch" in parts.own and "syscall" in parts.own:
            names = self._call(parts.own, parts)
            parts.data["arch"], parts.data["syscall"] = names.arch, names.name
        if subject is not None and subject.type == URINGOP:
            self._exit(parts.own, outcome, document, parts)
        if syscall:
            self._syscall(syscall, call, outcome, document, parts)
        meaning = self._meaning(call, outcome, parts)
        document["event"] = {
            "kind": "event",
            "action": meaning.action,
            "category": meaning.category,
            "type": meaning.types,
            "outcome": outcome,
        }
        self._head(event, result, auditd, parts)
        actor = self._users(meaning, document, parts)
        tags = _tags(syscall, parts)
        if tags:
            document["tags"] = tags
        process = _process(parts, enriched=enriched)
        if meaning.effective and not enriched:
            # The user of a message's sender has no other place.
            sender = self._accounts.account(parts.main.get("uid"), parts)
            if sender:
                process["real_user"] = sender
        if call.name == "exit_group" and not enriched:
            code = integer(syscall.get("a0"), 16)
            if code is not None:
                process["exit_code"] = code & 0xFF
            process["end"] = timestamp(event.time * 1_000_000)
        if process:
            document["process"] = process
        summary = self._summary(meaning, call, actor, document, parts)
        if summary:
            auditd["summary"] = summary
        if parts.paths:
            auditd["paths"] = [_shown(path) for path in parts.paths]
        if subject is not None:
            _parties(document, parts)
        if parts.data or parts.socket:
            auditd["data"] = parts.all_data()
        self._texts(event, document, parts)
        return document, parts.warnings

    def _texts(self, event: AuditEvent, document: dict[str, Any], parts: EventFields) -> None:
        """Add the raw records and the warnings, under sessiond's names and Auditbeat's."""
        auditd = document["auditd"]
        if self._options.include_raw_message and event.records:
            raw = [self._raw(event, record) for record in event.records]
            auditd["messages"] = document["event"]["original"] = raw
        if self._options.include_warnings and parts.warnings:
            auditd["warnings"] = parts.warnings
            document["error"] = {**document.get("error", {}), "message": parts.warnings}

    def _read(self, event: AuditEvent, *, enriched: bool) -> tuple[EventFields, _Call]:
        """Parse the records, and the system call if there is one."""
        syscall = event.syscall
        arch = syscall.get("arch", b"") if syscall else None
        parts = self._reader.read(event.records, enriched=enriched, arch=arch)
        parts.main = syscall or parts.own
        if not syscall:
            return parts, _Call("", "", self._alone(event))
        call = self._call(syscall, parts)
        if call.meaning.action == "exec":
            # Records of security modules and integrity checks do not change an exec's action.
            parts.subject = None
        return parts, call

    def _head(
        self, event: AuditEvent, result: str, auditd: dict[str, Any], parts: EventFields
    ) -> None:
        """Fill the general members of ``auditd``."""
        subject = parts.subject
        if subject is not None:
            auditd["message_type"] = self._type_name(subject.type).lower()
            auditd["origin"] = "user" if from_user_space(subject.type) else "kernel"
        else:
            auditd["message_type"] = "syscall" if event.syscall else self._first_type(event).lower()
            auditd["origin"] = "kernel"
        auditd["result"] = result
        if event.serial <= MAX_SEQUENCE:
            auditd["sequence"] = event.serial
        session = parts.main.get("ses")
        if session is not None and session not in UNSET:
            auditd["session"] = display(session)

    # The syscall

    def _call(self, syscall: Mapping[str, bytes], parts: EventFields) -> _Call:
        key = syscall.get("arch"), syscall.get("syscall")
        call = self._calls.get(key)
        if call is None:
            arch, number = integer(key[0], 16), integer(key[1])
            if arch is None or number is None:
                parts.warnings.append("SYSCALL: arch and syscall aren't numbers")
                name = display(key[1] or b"") or "unknown"
                return _Call(display(key[0] or b"") or "unknown", name, unknown_syscall("syscall"))
            arch_name = self._tables.arch_name(arch) or display(key[0] or b"")
            name = self._tables.syscall_name(number, arch) or str(number)
            meaning = SYSCALLS.get(name) or unknown_syscall(
                f"syscall-{name}" if name.isdigit() else name
            )
            if len(self._calls) >= CACHE_LIMIT:
                self._calls.clear()
            call = self._calls[key] = _Call(arch_name, name, meaning)
        return call

    def _syscall(
        self,
        syscall: Mapping[str, bytes],
        call: _Call,
        outcome: str,
        document: dict[str, Any],
        parts: EventFields,
    ) -> None:
        data = parts.data
        data["arch"] = call.arch
        data["syscall"] = call.name
        for name in ("a0", "a1", "a2", "a3", "tty"):
            raw = syscall.get(name)
            if raw:
                data[name] = display(raw)
        self._exit(syscall, outcome, document, parts)
        if "container" in syscall:  # only in records of LAUREL
            document["container"] = {"id": display(syscall["container"])}
        if not syscall.keys() <= _SYSCALL_PLACED:
            for name, raw in syscall.items():
                if name not in _SYSCALL_PLACED:
                    parts.add(name, text_of(name, raw))
        named = decoders.ARGUMENTS.get(call.name)
        if named and not call.arch.startswith(_OWN_NUMBERS):
            found = _arguments(syscall, call, named, parts)
            if found:
                document["auditd"]["arguments"] = found

    def _exit(
        self, call: Mapping[str, bytes], outcome: str, document: dict[str, Any], parts: EventFields
    ) -> None:
        """Put exit= in auditd.data, and the name of a failed call's error in error.code."""
        raw = call.get("exit")
        if raw is None:
            return
        name = self._error(raw, parts.data.get("arch", ""))
        if name is None:
            parts.add("exit", display(raw))
            return
        parts.data["exit"] = name
        if outcome == "failure":
            document["error"] = {"code": name}

    def _error(self, raw: bytes, arch: str) -> str | None:
        """Return the name of the error that a call on a machine returned; None without an error."""
        number = integer(raw[1:]) if raw[:1] == b"-" else None
        if number is None or number > 4095:  # MAX_ERRNO of include/linux/err.h
            return None
        if number > _MAX_COMMON_ERROR and arch.startswith(_OWN_NUMBERS):
            return f"-{number}"
        return decoders.KERNEL_ERRORS.get(number) or self._tables.errno_name(number) or f"-{number}"

    def _meaning(self, call: _Call, outcome: str, parts: EventFields) -> Normalization:
        subject = parts.subject
        if subject is not None:
            meaning = self._meaning_of(subject, parts)
            if not call.name or from_user_space(subject.type) or subject.type in _BY_ANY_CALL:
                return meaning
            # A kernel record about a call has the categories of both.
            return meaning._replace(
                category=[*dict.fromkeys(meaning.category + call.meaning.category)],
                types=[*dict.fromkeys(meaning.types + call.meaning.types)],
            )
        meaning = call.meaning
        if meaning.action == "exec":
            return _EXEC_FAILED if outcome == "failure" else meaning
        if call.name == "socketcall":
            return SOCKETCALLS.get(integer(parts.main.get("a0"), 16) or 0, meaning)
        return _created(meaning, parts)

    def _meaning_of(self, subject: Record, parts: EventFields) -> Normalization:
        if subject.type == URINGOP:
            # An io_uring operation counts as the system call of the same name.
            operation = parts.data.get("uring_op", "").removesuffix("_zc")
            return _created(SYSCALLS.get(operation) or RECORD_TYPES[URINGOP], parts)
        for field, value, meaning in VARIANTS.get(subject.type, ()):
            found = parts.data.get(field)
            if found and value in ("", found):
                return meaning
        return RECORD_TYPES.get(subject.type) or unknown_record(self._type_name(subject.type))

    # Users

    def _users(
        self, meaning: Normalization, document: dict[str, Any], parts: EventFields
    ) -> dict[str, str]:
        """Fill user, group and related; return the actor and the user it acts as."""
        user = self._accounts.user(parts)
        if "selinux" in user:
            parts.data.pop("subj", None)
        actor = {
            "primary": user.get("audit") or ({"name": "unset"} if "auid" in parts.main else {}),
            "secondary": user if "id" in user else {},
        }
        if meaning.actor:
            actor["primary"] = self._named(meaning.actor, parts) or {"name": "unset"}
        if meaning.acts_as:
            actor["secondary"] = self._named(meaning.acts_as, parts)
        if meaning.effective:
            user = self._login(meaning, actor["primary"], user, parts)
        target = self._target(meaning.target, parts)
        if target and meaning.target == "group":
            document["group"] = target
        elif target:
            user = {**user, "target": target}
        if user:
            document["user"] = user
        if meaning.effective:
            named = (user, user.get("effective", {}), user.get("target", {}))
            names = sorted({each["name"] for each in named if "name" in each})
            if names:
                document["related"] = {"user": names}
        return {
            side: account.get("name") or account["id"] for side, account in actor.items() if account
        }

    def _named(self, names: Iterable[str], parts: EventFields) -> dict[str, Any]:
        """Return the account in the first of these fields that is present.

        A message about an account may identify it by uid=; otherwise ``uid`` is the sender's.
        """
        for name in names:
            claim = parts.claims.get(name) if names != _SENDER else None
            value = parts.field(name) if claim is None else text_of(name, claim)
            if value and value.encode() not in UNSET:
                number = parts.field("id") if name == "acct" else None
                return self._accounts.named(value, number, parts)
        return {}

    def _login(
        self,
        meaning: Normalization,
        login: Mapping[str, Any],
        user: Mapping[str, Any],
        parts: EventFields,
    ) -> dict[str, Any]:
        """Return ``user`` as the login user, with the account as the effective one."""
        rest = {name: value for name, value in user.items() if name not in _IDENTITY}
        whole = {name: login[name] for name in _IDENTITY if name in login and "id" in login}
        before = {k: v for k, v in user.get("effective", {}).items() if k not in _IDENTITY}
        account = self._named(meaning.effective, parts)
        if account and not any(account.get(name) == whole.get(name, "") for name in _IDENTITY):
            rest["effective"] = before | account
        else:
            rest.pop("effective", None)
        return whole | rest

    def _target(self, kind: str, parts: EventFields) -> dict[str, Any]:
        """Return the account that is the subject of a message."""
        if not kind:
            return {}
        number = parts.data.get("id")
        name = parts.data.get("grp") if kind == "group" else None
        name = name or parts.data.get("acct")
        if number is None and name is None and kind == "user":
            # pam_faillock and old versions of sshd have only the number of the account.
            number = text_of("uid", parts.claims.get("uid", b""))
        account = (
            self._accounts.account(number.encode(), parts, group=kind == "group") if number else {}
        )
        # sshd's "(unknown user)" and "(invalid user)" are not names.
        if name and name[:1] != "(":
            account["name"] = name
        return account

    # Objects

    def _summary(
        self,
        meaning: Normalization,
        call: _Call,
        actor: Mapping[str, str],
        document: dict[str, Any],
        parts: EventFields,
    ) -> dict[str, Any]:
        summary: dict[str, Any] = {"actor": actor} if actor else {}
        thing = {"type": meaning.object} if meaning.object else {}
        primary, secondary = self._object(meaning, call, document, parts)
        if primary:
            thing["primary"] = primary
        if secondary:
            thing["secondary"] = secondary
        if thing:
            summary["object"] = thing
        how = _how(meaning, call, parts)
        if how:
            summary["how"] = how
        return summary

    def _object(
        self, meaning: Normalization, call: _Call, document: dict[str, Any], parts: EventFields
    ) -> tuple[str | None, str | None]:
        """Fill file, source, destination and network; return the names of the objects."""
        name: str | None = None
        other: str | None = None
        if parts.paths and meaning.object not in _WITHOUT_FILE:
            name, other = self._file(meaning, call, document, parts)
        if parts.address is not None:
            name, other = _peer(meaning, document, parts.address)
        if parts.target is not None and meaning.object == "process":
            name, other = parts.target.get("ocomm"), parts.target.get("opid")
        if meaning.primary:
            name, other = parts.first(meaning.primary) or name, parts.first(meaning.secondary)
        return name, other

    def _file(
        self, meaning: Normalization, call: _Call, document: dict[str, Any], parts: EventFields
    ) -> tuple[str | None, str | None]:
        path, second = _choose(meaning.action, parts.paths)
        name = path.get("name")
        other = second.get("name") if second else None
        file = self._accounts.inode(path, parts)
        if name:
            file = {**_names_of(name, call.name, file.get("type"), parts), **file}
        if meaning.action == "symlinked" and other:
            file = {**file, "target_path": other}
        if file:
            document["file"] = file
        return name, other

    # Names and texts

    def _type_name(self, number: int) -> str:
        name = NAMES.get(number) or self._tables.message_type_name(number)
        return name or f"unknown-{number}"

    def _first_type(self, event: AuditEvent) -> str:
        """Return the type of the first record of an event without a subject."""
        if not event.records:
            return "unknown"
        record = event.records[0]
        return self._type_name(record_type(record.type, record.text))

    def _alone(self, event: AuditEvent) -> Normalization:
        """Return the meaning of the first record of an event without a system call."""
        first = event.records[0] if event.records else None
        known = None if first is None else RECORD_TYPES.get(record_type(first.type, first.text))
        return known or unknown_record(self._first_type(event))

    def _raw(self, event: AuditEvent, record: Record) -> str:
        seconds, milliseconds = divmod(event.time, 1000)
        stamp = f"audit({seconds}.{milliseconds:03d}:{event.serial})"
        kind = self._type_name(record_type(record.type, record.text))
        return f"type={kind} msg={stamp}: {display(record.text)}"


def _result(syscall: Mapping[str, bytes], parts: EventFields) -> tuple[str, str]:
    """Return auditd.result and event.outcome: from the subject, the call, or a verdict.

    A denial in permissive mode does not make a call fail.
    """
    if parts.subject is not None:
        for fields_of in (parts.own, parts.claims):
            for name in ("res", "result", "success"):
                raw = fields_of.get(name)
                if raw is not None:
                    return _RESULTS.get(display(raw).strip("'\""), _UNKNOWN)
    raw = syscall.get("success")
    if raw is not None:
        return _RESULTS.get(display(raw), _UNKNOWN)
    verdict = parts.data.get("seresult") or parts.data.get("apparmor", "").lower()
    return _VERDICTS.get(verdict, _UNKNOWN) if parts.subject is not None else _UNKNOWN


def _created(meaning: Normalization, parts: EventFields) -> Normalization:
    """Return the meaning of a call: a creation, if it created the file that it opened."""
    if meaning.action == "opened-file" and any(
        path.get("nametype") == "CREATE" for path in parts.paths
    ):
        return meaning._replace(types=["creation"])
    return meaning


def _tags(syscall: Mapping[str, bytes], parts: EventFields) -> list[str]:
    """Return the rules' keys: of the rule that recorded the event, and of rules it is about."""
    tags: dict[str, None] = {}
    for key in (syscall.get("key"), *parts.keys):
        # (null) is followed by a name if an ENRICHED log has lost its separator.
        if key and not key.startswith(b"(null)"):
            for tag in (decode(key) or b"").split(b"\x01"):
                # Some versions of auditctl included the field's name in the key.
                tags[display(tag.removeprefix(b"key="))] = None
    tags.pop("", None)
    return list(tags)


def _arguments(
    syscall: Mapping[str, bytes],
    call: _Call,
    named: Iterable[decoders.Argument],
    parts: EventFields,
) -> dict[str, str]:
    found: dict[str, str] = {}
    for position, argument, decoder in named:
        raw = syscall.get(f"a{position}")
        if raw is None:
            continue
        number = integer(raw, 16)
        if number is None:
            parts.warnings.append(f"SYSCALL: a{position} is no hex number")
        elif decoder is decoders.open_flags:
            found[argument] = decoders.open_flags(number, call.arch)
        elif (
            argument != "mode"
            or not call.name.startswith("open")
            or "O_CREAT" in found.get("flags", "")
        ):
            found[argument] = decoder(number)
    return found


def _process(parts: EventFields, *, enriched: bool) -> dict[str, Any]:
    process: dict[str, Any] = {}
    main = parts.main
    pid = integer(main.get("pid"))
    if pid and not pid >> 32:
        process["pid"] = pid
    if parts.title:
        process["title"] = parts.title
    directory = parts.cwd if not enriched else None
    if parts.subject is not None and parts.subject.type == USER_CMD:
        directory = parts.data.get("cwd")
    if directory:
        process["working_directory"] = directory
    if enriched:
        return process
    parent = integer(main.get("ppid"))
    if parent and not parent >> 32:
        process["parent"] = {"pid": parent}
    for field, name in (("comm", "name"), ("exe", "executable")):
        raw = main.get(field) or parts.claims.get(field)
        value = None if raw is None else text_of(field, raw)
        if value:
            process[name] = value
    if parts.args:
        process["args"] = [display(argument) for argument in parts.args]
        process["args_count"] = len(parts.args)
    return process


def _how(meaning: Normalization, call: _Call, parts: EventFields) -> str | None:
    if meaning.action in HOW_IS_SYSCALL:
        return call.name
    if meaning.how:
        return parts.first(meaning.how)
    # Not parts.data, where a record beside the call can have the program of another process.
    program, name = parts.acting("exe"), parts.acting("comm")
    if program and name and _INTERPRETERS.match(program.rpartition("/")[2]):
        return name
    return program or name


def _choose(
    action: str, paths: list[dict[str, str]]
) -> tuple[dict[str, str], dict[str, str] | None]:
    """Choose the main path of an event, and its second path.

    Parent directories are context. For a rename these are the old and the new name; for a link its
    target and its own name; for a symbolic link its own name and its target.
    """
    named = [path for path in paths if path.get("nametype") != "PARENT"]
    own = [path for path in named if path.get("nametype") != "UNKNOWN"] or named or paths
    first = own[0]
    others = own[1:]
    if action == "symlinked":
        made = [path for path in own if path.get("nametype") == "CREATE"]
        first = made[0] if made else first
        # The target may not exist, so that its type is unknown.
        others = [path for path in named if path is not first]
    if action in ("renamed", "linked", "symlinked"):
        return first, others[-1] if others else None
    return first, None


def _shown(path: dict[str, str]) -> dict[str, str]:
    """Return a PATH record for auditd.paths, with the parts of the SELinux label."""
    label = selinux(path["obj"].encode()) if "obj" in path else {}
    if not label:
        return path
    rest = {name: value for name, value in path.items() if name != "obj"}
    return rest | {f"obj_{name}": value for name, value in label.items()}


def _names_of(name: str, syscall: str, kind: str | None, parts: EventFields) -> dict[str, str]:
    """Return path, name and extension of a file; no path if its base directory is unknown."""
    file: dict[str, str] = {}
    whole = _absolute(name, syscall, parts)
    if whole:
        file["path"] = whole.rstrip("/") or "/"
    last = posixpath.basename(name.rstrip("/"))
    if last:
        file["name"] = last
    stem, _, extension = last.rpartition(".")
    if stem and extension and kind != "dir":
        file["extension"] = extension
    return file


def _absolute(name: str, syscall: str, parts: EventFields) -> str | None:
    """Make a relative path absolute; None if the records lack the base directory."""
    if name[:1] == "/":
        return name
    for position in decoders.DIRECTORY_ARGUMENTS.get(syscall, ()):
        number = integer(parts.main.get(f"a{position}"), 16)
        if number is None or decoders.signed(number) != decoders.AT_FDCWD:
            return None
    return posixpath.join(parts.cwd, name.removeprefix("./")) if parts.cwd else None


def _peer(
    meaning: Normalization, document: dict[str, Any], address: decoders.Address
) -> tuple[str | None, str | None]:
    name = address.ip or address.path
    port = None if address.port is None else str(address.port)
    if meaning.action in PEER:
        side, direction = PEER[meaning.action]
        document["network"] = {"direction": direction}
        if address.ip:
            document[side] = {"address": name, "ip": address.ip, "port": address.port}
            document["network"]["type"] = "ipv6" if ":" in address.ip else "ipv4"
        elif name:
            document[side] = {"address": name, "path": name}
    return name, port


def _parties(document: dict[str, Any], parts: EventFields) -> None:
    """Fill the ends of the connection in a message, which came from ``addr``."""
    data = parts.data
    peer, here = data.get("addr"), data.get("laddr")
    source = (
        _endpoint(peer, data.get("rport"))
        if peer
        else _endpoint(data.get("saddr"), data.get("sport") or data.get("src"))
    )
    if source:
        document["source"] = source
    destination = (
        _endpoint(here, data.get("lport"))
        if here
        else _endpoint(data.get("daddr"), data.get("dport") or data.get("dest"))
    )
    if destination:
        document["destination"] = destination
    if peer:
        document["network"] = {"direction": "ingress"}


def _endpoint(address: str | None, port: str | None) -> dict[str, Any]:
    """Build source or destination from a user-space address."""
    if not address:
        return {}
    end: dict[str, Any] = {"address": address}
    with contextlib.suppress(ValueError):
        # The ECS type ip does not allow a zone ("fe80::1%eth0").
        end["ip"] = decoders.address_text(address.partition("%")[0])
    number = integer(port.encode("utf-8", "replace")) if port else None
    if number is not None and not number >> 16:
        end["port"] = number
    return end
