"""What one run knows, as bytes for the next one: the process table, and what is in flight.

procfs can't tell it anew: leaders and parents that have ended, how a session began, exact start
times. Processes refer to each other, so they are numbered here and the references are numbers. What
is read back is checked against the types below before anything is made of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from itertools import islice, starmap
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from sessiond.audit.reassembler import AuditEvent
from sessiond.audit.record import Record
from sessiond.errors import SavedStateError
from sessiond.filters.fold import Kind
from sessiond.filters.stage import SavedFilters
from sessiond.process.events import OWN_FACTS, Facts, Program
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
# How many processes are encoded as one piece.
PIECE: Final = 1000

# The first OWN_FACTS of the facts.
OwnFacts = tuple[int, int, int, int | None, int | None, int | None, int | None]
# The number of a process, _ITSELF, or (pid, start) of one that is a mere reference.
SavedRelative = int | tuple[int, int] | None


class SavedState(NamedTuple):
    """A ``State``; programs are numbers, as many states and processes share one.

    ``own_facts`` are those that no other process has, ``facts`` is the number of the others.
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
    doubtful: bool
    groups: tuple[int, ...] | None
    claimed: bool
    told: bool
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


class SavedProcess(NamedTuple):
    """A ``Process``; ``listed`` says that it is found by its pid, and not by its relatives only.

    ``lineage`` is a number of the table's lineages.
    """

    listed: bool
    creator: SavedRelative
    creator_observed: bool
    lineage: int | None
    end: int | None
    status: int | None
    group_exit: bool | None
    cgroup: bytes | None
    connection: bytes | None
    entry_type: str | None
    entry_source: str | None
    entry_note: str | None
    introduced: bool
    drawn: bool
    session_told: bool
    verdict: Verdict | None
    withheld: bool
    gained: bool
    latest: int
    states: tuple[SavedState, ...]


class SavedTable(NamedTuple):
    """A ``ProcessTable``; a lineage is the numbers of its ancestors.

    ``facts`` are those of the first process of many that have all but their own in common,
    ``identities`` the pids and starts of the processes. These are in pieces of PIECE each, so that
    a table is not twice in memory when it is read back.
    """

    facts: list[Facts]
    programs: list[Program]
    ancestors: list[SavedAncestor]
    lineages: list[list[int]]
    identities: list[tuple[int, int]]
    processes: list[msgspec.Raw]
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

    ``execs`` are processes and the numbers of their states. Lines numbered above
    ``written_after`` may be of events that are in flight here.
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
    Verdict, SavedFilters, Kind,
)  # fmt: skip
# What is written by one version is read by another only where nothing of this has changed.
LAYOUT: Final = zlib.crc32("".join(f"{each.__annotations__}" for each in _TYPES).encode())

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(SavedPipeline)
_piece_decoder: Final = msgspec.msgpack.Decoder(list[SavedProcess])


def encode(saved: SavedPipeline) -> bytes:
    """Return it as bytes."""
    return _encoder.encode(saved)


def decode(data: bytes) -> SavedPipeline:
    """Return what ``encode`` was given. Raises SavedStateError for anything else."""
    return _decoded(_decoder, data)


def _decoded(decoder: msgspec.msgpack.Decoder[Item], data: bytes | msgspec.Raw) -> Item:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise SavedStateError(f"it can't be read: {error}") from None


def save_table(
    table: ProcessTable, time: int, needed: Iterable[Process]
) -> tuple[SavedTable, dict[Process, int]]:
    """Return the table as it is at ``time`` (ns since boot), and the numbers of its processes.

    Of those that have ended, only the ones that were ``needed`` in the last second, or are
    relatives of others, are in it.
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

    def ancestor_number(each: Ancestor) -> int:
        number = ancestors.get(each)
        if number is None:
            number = ancestors[each] = len(saved_ancestors)
            program = program_number(each.program)
            ids = each.uid, each.euid, each.loginuid
            saved_ancestors.append(SavedAncestor(each.pid, each.start, program, *ids, each.mounts))
        return number

    def lineage_number(lineage: Lineage | None) -> int | None:
        return None if lineage is None else lineages.setdefault(lineage, len(lineages))

    def relative_number(relative: Relative) -> SavedRelative:
        if isinstance(relative, Process):
            return numbers[relative]
        if isinstance(relative, Reference):
            return relative.pid, relative.start
        return None if relative is None else _ITSELF

    def saved_state(state: State) -> SavedState:
        return SavedState(
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
            state.doubtful,
            state.groups,
            state.claimed,
            state.told,
            state.observed,
            state.audit_time,
        )

    def saved_process(process: Process) -> SavedProcess:
        return SavedProcess(
            process in found,
            relative_number(process.creator),
            process.creator_observed,
            lineage_number(process.lineage),
            process.end,
            process.status,
            process.group_exit,
            process.cgroup,
            process.connection,
            process.entry_type,
            process.entry_source,
            process.entry_note,
            process.introduced,
            process.drawn,
            process.session_told,
            process.verdict,
            process.withheld,
            process.gained,
            process.latest,
            tuple(map(saved_state, process.states)),
        )

    identities = [(process.pid, process.start) for process in numbers]
    rest = iter(numbers)
    pieces = []
    while piece := [saved_process(process) for process in islice(rest, PIECE)]:
        pieces.append(msgspec.Raw(_encoder.encode(piece)))
    saved_lineages = [list(map(ancestor_number, each.ancestors)) for each in lineages]
    saved_table = SavedTable(
        all_facts,
        list(programs),
        saved_ancestors,
        saved_lineages,
        identities,
        pieces,
        table.cgroups,
    )
    return saved_table, numbers


def _numbered(
    table: ProcessTable, time: int, needed: Iterable[Process]
) -> tuple[set[Process], dict[Process, int]]:
    """Return the processes that are found by their pids, and those with all relatives, numbered."""
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
        waiting += [each for each in relatives if isinstance(each, Process)]
    return found, numbers


def restored_processes(
    table: ProcessTable, saved: SavedTable
) -> tuple[list[Process], list[Process]]:
    """Return the processes by their numbers, and those that ``fill`` is to put into the table.

    Raises SavedStateError when a number is of nothing.
    """
    programs, processes = saved.programs, list(starmap(table.make, saved.identities))
    listed: list[Process] = []
    commons = [facts[OWN_FACTS:] for facts in saved.facts]
    # What many processes have stands in memory once.
    same: dict[Any, Any] = {}

    ancestors = [
        Ancestor(
            told.pid,
            told.start,
            table.refer(told.pid, told.start).entity_id,
            at(programs, told.program),
            (told.uid, told.euid, told.loginuid),
            told.mounts,
        )
        for told in saved.ancestors
    ]
    lineages = [
        Lineage(tuple([at(ancestors, number) for number in each])) for each in saved.lineages
    ]

    def relative(number: SavedRelative) -> Relative:
        if isinstance(number, tuple):
            return table.refer(*number)
        if number is None:
            return None
        return ITSELF if number == _ITSELF else at(processes, number)

    def state(told: SavedState) -> State:
        previous = tuple(at(programs, number) for number in told.previous)
        program = at(programs, told.program)
        facts = Facts._make((*told.own_facts, *at(commons, told.facts)))
        cwd = same.setdefault(told.working_directory, told.working_directory)
        made = State(told.time, facts, program, cwd, previous)
        made.group_leader = relative(told.group_leader)
        made.session_leader = relative(told.session_leader)
        made.entry_leader = relative(told.entry_leader)
        made.session_inferred = told.session_inferred
        made.group_inferred = told.group_inferred
        made.executed = told.executed
        made.doubtful = told.doubtful
        made.groups = same.setdefault(told.groups, told.groups)
        made.claimed = told.claimed
        made.told = told.told
        made.observed = told.observed
        made.audit_time = told.audit_time
        return made

    def restore(process: Process, told: SavedProcess) -> None:
        creator = relative(told.creator)
        if creator is ITSELF or not told.states:
            raise SavedStateError(f"what it says of process {process.pid} is impossible")
        process.creator = creator
        process.creator_observed = told.creator_observed
        process.lineage = None if told.lineage is None else at(lineages, told.lineage)
        process.end = told.end
        process.status = told.status
        process.group_exit = told.group_exit
        process.cgroup = same.setdefault(told.cgroup, told.cgroup)
        process.connection = told.connection
        process.entry_type = told.entry_type
        process.entry_source = told.entry_source
        process.entry_note = told.entry_note
        process.introduced = told.introduced
        process.drawn = told.drawn
        process.session_told = told.session_told
        process.verdict = told.verdict
        process.withheld = told.withheld
        process.gained = told.gained
        process.latest = told.latest
        process.states += map(state, told.states)
        if told.listed:
            listed.append(process)

    rest = iter(processes)
    for piece in saved.processes:
        for told in _decoded(_piece_decoder, piece):
            process = next(rest, None)
            if process is None:
                raise SavedStateError("there are more processes in it than identities")
            restore(process, told)
    if next(rest, None) is not None:
        raise SavedStateError("there are fewer processes in it than identities")
    return processes, listed


def fill(table: ProcessTable, listed: list[Process], saved: SavedTable) -> None:
    """Put restored processes, and what else was saved, into an empty table."""
    table.cgroups |= saved.cgroups
    table.put_back(listed)


def at(items: Sequence[Item], number: int) -> Item:
    """Return an item by its number. Raises SavedStateError when there is none."""
    if 0 <= number < len(items):
        return items[number]
    raise SavedStateError(f"there is no number {number} in it")


def save_event(event: AuditEvent) -> SavedEvent:
    """Return an audit event's records and what is known of it."""
    records = [(record.type, record.text) for record in event.records]
    return SavedEvent(event.time, event.serial, event.opened, event.complete, records)


def restore_event(saved: SavedEvent) -> AuditEvent:
    """Return the event that ``save_event`` was given."""
    event = AuditEvent(AuditStamp(saved.time), saved.serial, saved.opened)
    event.complete = saved.complete
    event.records = [Record(kind, text) for kind, text in saved.records]
    return event
