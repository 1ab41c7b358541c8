"""The types of the parts of an event that the viewer reads; pure.

docs/output.md describes the fields. Absent fields have empty values.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec


class Named(msgspec.Struct, gc=False):
    """A user or group: id and name."""

    id: str = ""
    name: str = ""

    @property
    def shown(self) -> str:
        """The name, else the id."""
        return self.name or self.id


class Device(msgspec.Struct, gc=False):
    """A terminal's numbers."""

    major: int = 0
    minor: int = 0


class Tty(msgspec.Struct, gc=False):
    """The terminal of a process."""

    char_device: Device = msgspec.field(default_factory=Device)


class Address(msgspec.Struct, gc=False):
    """An end of a connection: address, or the path of a socket."""

    ip: str = ""
    port: int = 0
    address: str = ""


class EntryMeta(msgspec.Struct, gc=False):
    """How an entry leader came into the host."""

    type: str = ""
    source: Address | None = None


class Reference(msgspec.Struct, gc=False):
    """A relative of a relative."""

    entity_id: str = ""
    pid: int = 0
    start: str = ""


class Relative(msgspec.Struct, gc=False):
    """A process in its own events and in those of its relatives."""

    entity_id: str = ""
    pid: int = 0
    start: str = ""
    end: str = ""
    exit_code: int | None = None
    name: str = ""
    executable: str = ""
    args: list[str] = []
    args_count: int = 0
    working_directory: str = ""
    interactive: bool | None = None
    tty: Tty | None = None
    user: Named | None = None
    group: Named | None = None
    real_user: Named | None = None
    entry_meta: EntryMeta | None = None
    parent: Reference | None = None


class Capabilities(msgspec.Struct, gc=False):
    """Names of capabilities as raw JSON: most processes have the same."""

    effective: msgspec.Raw = msgspec.Raw()


class Thread(msgspec.Struct, gc=False):
    """The object ``process.thread``."""

    capabilities: Capabilities | None = None


class Own(msgspec.Struct, gc=False):
    """The process of an event, with its relatives.

    The relatives stay raw JSON, because most of them are known already. See ``relative``.
    """

    entity_id: str = ""
    pid: int = 0
    vpid: int = 0
    start: str = ""
    end: str = ""
    exit_code: int | None = None
    name: str = ""
    executable: str = ""
    args: list[str] = []
    args_count: int = 0
    title: str = ""
    working_directory: str = ""
    interactive: bool | None = None
    tty: Tty | None = None
    user: Named | None = None
    group: Named | None = None
    real_user: Named | None = None
    real_group: Named | None = None
    saved_user: Named | None = None
    saved_group: Named | None = None
    supplemental_groups: msgspec.Raw = msgspec.Raw()
    thread: Thread | None = None
    parent: msgspec.Raw = msgspec.Raw()
    group_leader: msgspec.Raw = msgspec.Raw()
    session_leader: msgspec.Raw = msgspec.Raw()
    entry_leader: msgspec.Raw = msgspec.Raw()


class Head(msgspec.Struct, gc=False):
    """The object ``event``."""

    kind: str = ""
    action: str = ""
    outcome: str = ""
    id: str = ""
    sequence: int = 0
    start: str = ""
    end: str = ""
    provider: list[str] = []


class Boot(msgspec.Struct, gc=False):
    """A boot of a host."""

    id: str = ""


class HostBlock(msgspec.Struct, gc=False):
    """The object ``host``."""

    name: str = ""
    hostname: str = ""
    id: str = ""
    ip: list[str] = []
    boot: Boot = msgspec.field(default_factory=Boot)


class UserBlock(msgspec.Struct, gc=False):
    """The object ``user``, of which the viewer uses the login user."""

    audit: Named | None = None


class File(msgspec.Struct, gc=False):
    """The file that an event is about."""

    path: str = ""
    name: str = ""


class Object(msgspec.Struct, gc=False):
    """The object of an action."""

    primary: str = ""


class Summary(msgspec.Struct, gc=False):
    """Audit's summary of an event."""

    object: Object | None = None


class Audit(msgspec.Struct, gc=False):
    """The object ``auditd``."""

    session: str = ""
    summary: Summary | None = None


class Container(msgspec.Struct, gc=False):
    """The container around a process."""

    id: str = ""
    runtime: str = ""


class Unit(msgspec.Struct, gc=False):
    """The systemd unit around a process."""

    unit: str = ""
    user_unit: str = ""


class Resource(msgspec.Struct, gc=False):
    """A resource of an orchestrator, such as a pod."""

    type: str = ""
    id: str = ""


class Orchestrator(msgspec.Struct, gc=False):
    """The orchestrator around a container."""

    type: str = ""
    resource: Resource = msgspec.field(default_factory=Resource)


class Error(msgspec.Struct, gc=False):
    """Why a system call failed."""

    code: str = ""


class Loss(msgspec.Struct, gc=False):
    """A loss: hop, count, unit and reason."""

    hop: str = ""
    count: int = 0
    unit: str = ""
    reason: str = ""


class Signal(msgspec.Struct, gc=False):
    """The signal that ended a process."""

    name: str = ""
    number: int = 0
    core_dumped: bool = False


class Remarks(msgspec.Struct, gc=False):
    """The object ``sessiond``."""

    incomplete: list[str] = []
    truncated: list[str] = []
    signal: Signal | None = None
    reparented_to: Reference | None = None
    loss: Loss | None = None
    canary: bool = False


class Rule(msgspec.Struct, gc=False):
    """The rule of an alert."""

    name: str = ""


class Log(msgspec.Struct, gc=False):
    """The level of an alert."""

    level: str = ""


class Technique(msgspec.Struct, gc=False):
    """Techniques of ATT&CK."""

    id: list[str] = []


class Threat(msgspec.Struct, gc=False):
    """The ATT&CK part of an alert."""

    technique: Technique = msgspec.field(default_factory=Technique)


class Event(msgspec.Struct, gc=False):
    """One line."""

    timestamp: str = msgspec.field(name="@timestamp")
    event: Head
    message: str = ""
    tags: list[str] = []
    host: HostBlock = msgspec.field(default_factory=HostBlock)
    process: Own | None = None
    user: UserBlock | None = None
    file: File | None = None
    destination: Address | None = None
    source: Address | None = None
    auditd: Audit | None = None
    container: Container | None = None
    systemd: Unit | None = None
    orchestrator: Orchestrator | None = None
    labels: msgspec.Raw = msgspec.Raw()
    error: Error | None = None
    sessiond: Remarks | None = None
    rule: Rule | None = None
    log: Log | None = None
    threat: Threat | None = None


_DECODER: Final = msgspec.json.Decoder(Event)
_RELATIVE: Final = msgspec.json.Decoder(Relative)
_NAMES: Final = msgspec.json.Decoder(list[str])
_GROUPS: Final = msgspec.json.Decoder(list[Named])
_LABELS: Final = msgspec.json.Decoder(dict[str, str])
_IDENTITY: Final = msgspec.json.Decoder(Reference)
# How sessiond writes the beginning of a relative.
_BEGIN: Final = re.compile(rb'\{"entity_id":"([^"\\]+)"')


def decode(line: bytes | str) -> Event:
    """Decode a line; raises msgspec.DecodeError if it is not an event of sessiond."""
    return _DECODER.decode(line)


def relative(block: bytes) -> Relative:
    """Decode a relative; raises msgspec.DecodeError for invalid data."""
    return _RELATIVE.decode(block)


def names(block: bytes) -> list[str]:
    """Decode a list of names; raises msgspec.DecodeError for invalid data."""
    return _NAMES.decode(block)


def groups(block: bytes) -> list[str]:
    """Decode a list of groups to their names; raises msgspec.DecodeError for invalid data."""
    return [each.shown for each in _GROUPS.decode(block)]


def labels(block: bytes) -> list[str]:
    """Decode labels, each as name=value; raises msgspec.DecodeError for invalid data."""
    return [f"{name}={value}" for name, value in _LABELS.decode(block).items()]


def identity(block: msgspec.Raw | bytes) -> str:
    """Return the entity id of a relative, empty without one, without decoding the rest.

    Raises msgspec.DecodeError for invalid data.
    """
    begin = _BEGIN.match(block)
    if begin is not None:
        return begin[1].decode()
    return _IDENTITY.decode(block).entity_id if block else ""
