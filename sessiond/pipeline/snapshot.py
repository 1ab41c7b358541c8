"""The pipeline's state as bytes for the next run: the process table, and the events in flight.

procfs can't provide it again: leaders and parents that have ended, the start of a session, exact
start times. References between processes are stored as numbers. The data is validated against the
types below before it is used.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from itertools import islice, starmap
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec

from sessiond.audit.reassembler import AuditEvent
from sessiond.audit.record import Record
from sessiond.errors import SavedStateError
from sessiond.filters.saved import Kind, SavedFilters
from sessiond.process.events import OWN_FACTS, Entry, Facts, Program
from sessiond.process.table import (
    ITSELF,
    Ancestor,
    Lineage,
    Process,
    ProcessTable,
    Reference,
    Relative,
    State,
    Verdict,
)
from sessiond.units import SECOND, AuditStamp

Item = TypeVar("Item")

_ITSELF: Final = -1
# Processes per encoded piece.
PIECE: Final = 1000

# The number of facts, at the front, that differ between processes.
OwnFacts = tuple[int, int, int, int | None, int | None, int | None, int | None]
# The number of a process, _ITSELF, or (pid, start) of a process that is only a reference. Numbers
# below _ITSELF stand for entry leaders that had ended before the daemon started.
SavedRelative = int | tuple[int, int] | None


class SavedState(NamedTuple):
    """A ``State``; programs are numbers, because many states and processes share one.

    ``own_facts`` are those that differ between processes, ``facts`` is the number of the others.
    """

    time: int
    own_facts: OwnFacts
    facts: int
    program: int
    working_directory: bytes | None
    previous: tuple[int, ...]
    group_leader: SavedRelative
    session_leader: SavedRelative
    entry_leader: SavedRelative
    session_inferred: bool
    group_inferred: bool
    executed: bool
    program_unknown: bool
    groups: tuple[int, ...] | None
    matched: bool
    reported: bool
    observed: int | None
    audit_time: int | None


class SavedAncestor(NamedTuple):
    """An ``Ancestor``; its program is a number."""

    pid: int
    start: int
    program: int
    uid: int
    euid: int
    loginuid: int | None
    mounts: int | None


class SavedLeader(NamedTuple):
    """A ``Reference`` to an entry leader that ended unseen, before the daemon started."""

    pid: int
    entry: Entry
    dated: bool


class SavedProcess(NamedTuple):
    """A ``Process``; ``listed`` says that it is found by pid, not only through its relatives.

    ``lineage`` is an index into the table's lineages.
    """

    listed: bool
    creator: SavedRelative
    creator_observed: bool
    creator_note: str | None
    found: bool
    lineage: int | None
    end: int | None
    status: int | None
    group_exit: bool | None
    cgroup: bytes | None
    connection: bytes | None
    entry_type: str | None
    entry_source: str | None
    entry_note: str | None
    entry_inferred: str | None
    introduced: bool
    drawn: bool
    session_reported: bool
    verdict: Verdict | None
    withheld: bool
    gained: bool
    latest: int
    states: tuple[SavedState, ...]


# An entity id goes into lines as it is.
EntityId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+\Z")]


class SavedTable(NamedTuple):
    """A ``ProcessTable``; a lineage is the numbers of its ancestors, and whether it is broken.

    ``facts`` are the distinct sets of shared facts, ``identities`` the pids, starts and entity ids
    of the processes. The processes are in pieces of PIECE each, so that reading does not need twice
    the memory.
    """

    facts: list[Facts]
    programs: list[Program]
    ancestors: list[SavedAncestor]
    lineages: list[tuple[list[int], bool]]
    identities: list[tuple[int, int, EntityId]]
    processes: list[msgspec.Raw]
    gone: list[SavedLeader]
    cgroups: dict[int, bytes]


class SavedEvent(NamedTuple):
    """An ``AuditEvent``; its records are (type, text)."""

    time: int
    serial: int
    opened: int
    complete: bool
    records: list[tuple[int, bytes]]


class SavedPipeline(NamedTuple):
    """A ``Pipeline``: processes are numbers of ``table``, times are ns since boot.

    ``drained`` is when the socket was last seen empty.
    ``execs`` are processes and the numbers of their states. Lines numbered above
    ``written_after`` may belong to events that are in flight here.
    """

    time: int
    drained: int
    sequence: int
    written_after: int
    seal: bytes
    table: SavedTable
    open: list[SavedEvent]
    ready: list[SavedEvent]
    exec_events: list[tuple[int, SavedEvent]]
    execs: list[tuple[int, int]]
    exit_groups: list[tuple[int, int, SavedEvent]]
    ends: list[tuple[int, int]]
    filters: SavedFilters | None
    sessions: list[tuple[int, int]]


_TYPES: Final = (
    Facts, Program, SavedState, SavedAncestor, SavedProcess, SavedTable, SavedEvent, SavedPipeline,
    Verdict, SavedFilters, Kind, SavedLeader, Entry,
)  # fmt: skip
# Another version reads a saved state only if none of these types has changed.
LAYOUT: Final = zlib.crc32("".join(f"{kind.__annotations__}" for kind in _TYPES).encode())

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(SavedPipeline)
_piece_decoder: Final = msgspec.msgpack.Decoder(list[SavedProcess])


def encode(saved: SavedPipeline) -> bytes:
    """Return the state as bytes."""
    return _encoder.encode(saved)


def decode(data: bytes) -> SavedPipeline:
    """Return the state encoded by ``encode``. Raises SavedStateError for anything else."""
    return _decoded(_decoder, data)


def _decoded(decoder: msgspec.msgpack.Decoder[Item], data: bytes | msgspec.Raw) -> Item:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise SavedStateError(f"it can't be read: {error}") from None


def save_table(
    table: ProcessTable, time: int, needed: Iterable[Process]
) -> tuple[SavedTable, dict[Process, int]]:
    """Return the table at ``time`` (ns since boot), and the numbers of its processes.

    It contains only those ended processes that were ``needed`` in the last second or are relatives
    of others.
    """
    found, numbers = _numbered(table, time, needed)
    programs: dict[Program, int] = {}
    all_facts: list[Facts] = []
    commons: dict[tuple[Any, ...], int] = {}

    def program_number(program: Program) -> int:
        return programs.setdefault(program, len(programs))

    def common_number(facts: Facts) -> int:
        common = facts[OWN_FACTS:]
        number = commons.get(common)
        if number is None:
            number = commons[common] = len(all_facts)
            all_facts.append(facts)
        return number

    ancestors: dict[Ancestor, int] = {}
    saved_ancestors: list[SavedAncestor] = []
    lineages: dict[Lineage, int] = {}

    def ancestor_number(ancestor: Ancestor) -> int:
        number = ancestors.get(ancestor)
        if number is None:
            number = ancestors[ancestor] = len(saved_ancestors)
            program = program_number(ancestor.program)
            ids = ancestor.uid, ancestor.euid, ancestor.loginuid
            saved_ancestors.append(
                SavedAncestor(ancestor.pid, ancestor.start, program, *ids, ancestor.mounts)
            )
        return number

    def lineage_number(lineage: Lineage | None) -> int | None:
        return None if lineage is None else lineages.setdefault(lineage, len(lineages))

    gone: dict[Reference, int] = {}

    def relative_number(relative: Relative) -> SavedRelative:
        if isinstance(relative, Process):
            return numbers[relative]
        if isinstance(relative, Reference):
            if relative.entry is not None:
                return _ITSELF - 1 - gone.setdefault(relative, len(gone))
            return relative.pid, relative.start
        return None if relative is None else _ITSELF

    # Plain tuples with the members of SavedState and SavedProcess are encoded like these, and a
    # sixth of the time is saved.

    def saved_state(state: State) -> tuple[Any, ...]:
        return (
            state.time,
            state.facts[:OWN_FACTS],
            common_number(state.facts),
            program_number(state.program),
            state.working_directory,
            tuple(map(program_number, state.previous)),
            relative_number(state.group_leader),
            relative_number(state.session_leader),
            relative_number(state.entry_leader),
            state.session_inferred,
            state.group_inferred,
            state.executed,
            state.program_unknown,
            state.groups,
            state.matched,
            state.reported,
            state.observed,
            state.audit_time,
        )

    def saved_process(process: Process) -> tuple[Any, ...]:
        return (
            process in found,
            relative_number(process.creator),
            process.creator_observed,
            process.creator_note,
            process.found,
            lineage_number(process.lineage),
            process.end,
            process.status,
            process.group_exit,
            process.cgroup,
            process.connection,
            process.entry_type,
            process.entry_source,
            process.entry_note,
            process.entry_inferred,
            process.introduced,
            process.drawn,
            process.session_reported,
            process.verdict,
            process.withheld,
            process.gained,
            process.latest,
            tuple(map(saved_state, process.states)),
        )

    identities = [(process.pid, process.start, process.entity_id) for process in numbers]
    rest = iter(numbers)
    pieces = []
    while piece := [saved_process(process) for process in islice(rest, PIECE)]:
        pieces.append(msgspec.Raw(_encoder.encode(piece)))
    saved_lineages = [
        (list(map(ancestor_number, lineage.ancestors)), lineage.broken) for lineage in lineages
    ]
    leaders = [
        SavedLeader(leader.pid, leader.entry, leader.dated) for leader in gone if leader.entry
    ]
    saved_table = SavedTable(
        all_facts,
        list(programs),
        saved_ancestors,
        saved_lineages,
        identities,
        pieces,
        leaders,
        table.cgroups,
    )
    return saved_table, numbers


def _numbered(
    table: ProcessTable, time: int, needed: Iterable[Process]
) -> tuple[set[Process], dict[Process, int]]:
    """Return the processes found by pid, and the numbers of these and of all relatives."""
    also = dict.fromkeys(needed)
    listed = [
        holder
        for process in table
        for holder in table.holders(process.pid)
        if holder.end is None or holder.end + SECOND > time or holder in also
    ]
    found = set(listed)
    numbers: dict[Process, int] = {}
    waiting = [*listed, *also]
    while waiting:
        process = waiting.pop()
        if process in numbers:
            continue
        numbers[process] = len(numbers)
        relatives: list[Relative] = [process.creator]
        for state in process.states:
            relatives += (state.group_leader, state.session_leader, state.entry_leader)
        waiting += [relative for relative in relatives if isinstance(relative, Process)]
    return found, numbers


def restored_processes(
    table: ProcessTable, saved: SavedTable
) -> tuple[list[Process], list[Process]]:
    """Return the processes by number, and those that ``fill`` is to put into the table.

    Raises SavedStateError for an invalid number.
    """
    programs, processes = saved.programs, list(starmap(table.make, saved.identities))
    listed: list[Process] = []
    commons = [facts[OWN_FACTS:] for facts in saved.facts]
    # Equal values of many processes are one object in memory.
    same: dict[Any, Any] = {}

    ancestors = [
        Ancestor(
            stored.pid,
            stored.start,
            table.refer(stored.pid, stored.start).entity_id,
            at(programs, stored.program),
            (stored.uid, stored.euid, stored.loginuid),
            stored.mounts,
        )
        for stored in saved.ancestors
    ]
    lineages = [
        Lineage(tuple([at(ancestors, number) for number in numbers]), broken=broken)
        for numbers, broken in saved.lineages
    ]

    gone = [
        table.refer(leader.pid, 0)._replace(entry=leader.entry, dated=leader.dated)
        for leader in saved.gone
    ]

    def relative(number: SavedRelative) -> Relative:
        if isinstance(number, tuple):
            return table.refer(*number)
        if number is None:
            return None
        if number < _ITSELF:
            return at(gone, _ITSELF - 1 - number)
        return ITSELF if number == _ITSELF else at(processes, number)

    def state(stored: SavedState) -> State:
        previous = tuple(at(programs, number) for number in stored.previous)
        program = at(programs, stored.program)
        facts = Facts._make((*stored.own_facts, *at(commons, stored.facts)))
        cwd = same.setdefault(stored.working_directory, stored.working_directory)
        made = State(stored.time, facts, program, cwd, previous)
        made.group_leader = relative(stored.group_leader)
        made.session_leader = relative(stored.session_leader)
        made.entry_leader = relative(stored.entry_leader)
        made.session_inferred = stored.session_inferred
        made.group_inferred = stored.group_inferred
        made.executed = stored.executed
        made.program_unknown = stored.program_unknown
        made.groups = same.setdefault(stored.groups, stored.groups)
        made.matched = stored.matched
        made.reported = stored.reported
        made.observed = stored.observed
        made.audit_time = stored.audit_time
        return made

    def restore(process: Process, stored: SavedProcess) -> None:
        creator = relative(stored.creator)
        if creator is ITSELF or not stored.states:
            raise SavedStateError(f"process {process.pid} has no states or is its own creator")
        process.creator = creator
        process.creator_observed = stored.creator_observed
        process.creator_note = stored.creator_note
        process.found = stored.found
        process.lineage = None if stored.lineage is None else at(lineages, stored.lineage)
        process.end = stored.end
        process.status = stored.status
        process.group_exit = stored.group_exit
        process.cgroup = same.setdefault(stored.cgroup, stored.cgroup)
        process.connection = stored.connection
        process.entry_type = stored.entry_type
        process.entry_source = stored.entry_source
        process.entry_note = stored.entry_note
        process.entry_inferred = stored.entry_inferred
        process.introduced = stored.introduced
        process.drawn = stored.drawn
        process.session_reported = stored.session_reported
        process.verdict = stored.verdict
        process.withheld = stored.withheld
        process.gained = stored.gained
        process.latest = stored.latest
        process.states += map(state, stored.states)
        if stored.listed:
            listed.append(process)

    rest = iter(processes)
    for piece in saved.processes:
        for stored in _decoded(_piece_decoder, piece):
            process = next(rest, None)
            if process is None:
                raise SavedStateError("it has more processes than identities")
            restore(process, stored)
    if next(rest, None) is not None:
        raise SavedStateError("it has fewer processes than identities")
    return processes, listed


def fill(table: ProcessTable, listed: list[Process], saved: SavedTable) -> None:
    """Put restored processes and the rest of the saved state into an empty table."""
    table.cgroups |= saved.cgroups
    table.put_back(listed)


def at(items: Sequence[Item], number: int) -> Item:
    """Return an item by number. Raises SavedStateError for an invalid number."""
    if 0 <= number < len(items):
        return items[number]
    raise SavedStateError(f"it has no item {number}")


def save_event(event: AuditEvent) -> SavedEvent:
    """Return an audit event's records and attributes."""
    records = [(record.type, record.text) for record in event.records]
    return SavedEvent(event.time, event.serial, event.opened, event.complete, records)


def restore_event(saved: SavedEvent) -> AuditEvent:
    """Return the event saved by ``save_event``."""
    event = AuditEvent(AuditStamp(saved.time), saved.serial, saved.opened)
    event.complete = saved.complete
    event.records = [Record(kind, text) for kind, text in saved.records]
    return event
