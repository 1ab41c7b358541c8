"""Compares the daemon's output with the processes' own records."""

from __future__ import annotations

import json
import signal
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ecs_schema.validate import validate_line
from support.daemon import Daemon, Document, value
from support.truth import Record

from sessiond.text import display

TICK = 10_000_000  # ns; USER_HZ is 100
RELATIVES = ("parent", "group_leader", "session_leader", "entry_leader")
# Record types of the kernel without a system call.
_LATE = ("crashed-program", "violated-seccomp-policy")
# The kernel lost the record that ends the event, so that the reassembler closes it after a timeout.
_UNFINISHED = "audit: the end of the event was lost"
_OWN = ("sessiond-lost", "sessiond-degraded", "sessiond-recovered", "sessiond-clock-changed")
# The end is dated at the beginning of the exit; children are reparented a moment later.
_LEAVING = 20_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def nanoseconds(date: str) -> int:
    """Convert a date of a document to ns since the epoch."""
    since = datetime.fromisoformat(date) - _EPOCH
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def agree(problems: Iterable[str]) -> None:
    """Fail with the first of the problems, if there are any."""
    found = list(problems)
    assert not found, f"{len(found)} problems:\n" + "\n".join(found[:40])


def malformed(daemon: Daemon) -> list[str]:
    """Return the problems of the lines themselves, by ECS and the output's contract."""
    problems = []
    for line in daemon.output.read_bytes().splitlines(keepends=True):
        problems += [f"{problem}: {line[:300]!r}" for problem in validate_line(line)]
    return problems


def inconsistent(documents: Iterable[Document]) -> list[str]:
    """Return contradictions between documents, and broken promises of single documents.

    One identity is one process in every object of every document; ids are unique; the sequence
    has no gap; no event of a process precedes its start, follows its end, or is out of order.
    A line that is written late (a kernel record without a system call, an event whose end was
    lost) is dated within the life of its process.
    """
    problems: list[str] = []
    identities: dict[str, tuple[int, str]] = {}
    ids: Counter[str] = Counter()
    latest: dict[str, str] = {}
    ended: dict[str, str] = {}
    sequence: int | None = None
    for document in documents:
        event = document["event"]
        ids[event["id"]] += 1
        if sequence is not None and event["sequence"] != sequence + 1:
            problems.append(f"the sequence goes from {sequence} to {event['sequence']}")
        sequence = event["sequence"]
        process = document.get("process")
        if process is None or "entity_id" not in process:
            continue
        for block in _blocks(process):
            who = block["pid"], block.get("start", "")
            known = identities.setdefault(block["entity_id"], who)
            # A leader that ended before the daemon's start has no known start: as an entry leader
            # it has the latest possible one.
            if known[0] != who[0] or ("" not in (known[1], who[1]) and known != who):
                problems.append(f"{block['entity_id']} is {known} and {who}")
        identity, date = process["entity_id"], document["@timestamp"]
        late = event["action"] in _LATE or _UNFINISHED in _incomplete(document)
        if event["action"] == "fork":
            # Written when it is needed, with its own date.
            if date != process["start"]:
                problems.append(f"the fork of {process['pid']} is not dated at its start")
        elif late:
            if not process["start"] <= date <= ended.get(identity, date):
                problems.append(f"{event['action']} of {process['pid']} is dated beside its life")
            continue
        elif date < latest.get(identity, process["start"]):
            problems.append(f"{event['action']} of {process['pid']} is dated before what was first")
        else:
            latest[identity] = date
        if identity in ended:
            problems.append(f"{event['action']} of {process['pid']} comes after its end")
        if event["action"] == "end":
            ended[identity] = date
        problems += _contract(document)
    problems += [f"{number} events have the id {one}" for one, number in ids.items() if number > 1]
    starts: dict[tuple[int, str], set[str]] = defaultdict(set)
    for identity, who in identities.items():
        starts[who].add(identity)
    problems += [f"{who} is {many}" for who, many in starts.items() if len(many) > 1]
    return problems


def _incomplete(document: Document) -> list[str]:
    missing: list[str] = value(document, "sessiond.incomplete") or []
    return missing


def processes_of(documents: Iterable[Document], session: str) -> set[str]:
    """Return the entity ids of the processes of a session, by that of its entry leader."""
    return {
        document["process"]["entity_id"]
        for document in documents
        if value(document, "process.entry_leader.entity_id") == session
    }


def _blocks(process: Document) -> Iterator[Document]:
    """Yield the process, its relatives, and theirs; not those with only a pid."""
    if "entity_id" in process:
        yield process
    for name in (*RELATIVES, "parent", "group_leader"):
        relative = process.get(name)
        if relative is not None:
            yield from _blocks(relative)


def _contract(document: Document) -> Iterator[str]:
    """Return broken promises of the objects of one document."""
    process, action = document["process"], document["event"]["action"]
    for name in RELATIVES[1:]:
        leader = process.get(name)
        if leader is None:
            continue
        same = leader["entity_id"] == process["entity_id"]
        if leader.get("same_as_process") is not same:
            yield f"{action} of {process['pid']}: {name}.same_as_process is not {same}"
    if document["event"]["action"] == "end":
        if process.get("end") != document["@timestamp"]:
            yield f"end of {process['pid']} at {document['@timestamp']} and {process.get('end')}"
    elif action != "sessiond-folded" and ("end" in process or "exit_code" in process):
        # The process of a fold is one of many, which have ended.
        yield f"{action} of {process['pid']} tells of its end"


class Stream:
    """A daemon's documents, to be compared with records.

    ``exact`` says whether the source promises every process with all its relatives; otherwise
    unknown data may be absent, but present data must be right.
    """

    def __init__(self, daemon: Daemon, *, exact: bool = True) -> None:
        self.daemon = daemon
        self.exact = exact
        boot: Any = json.loads((daemon.directory / "run/boot_time").read_text())
        self._boot_time = int(boot["boot_time"])
        self._ends: dict[str | None, str] = {}  # of the first ``_ends_of`` documents
        self._ends_of = 0

    def _ticks(self, process: Document) -> range:
        """Return the clock ticks since boot in which a process may have started."""
        if not self.exact:
            # The start of a process that could not be looked up is that of its exec.
            return range(1 << 62)
        since_boot = nanoseconds(process["start"]) - self._boot_time
        return range(since_boot // TICK, (since_boot + 999) // TICK + 1)

    def false(self, told: Iterable[Record]) -> list[str]:
        """Yield contradictions between documents and records; fields may be missing."""
        written = self._written()
        problems: list[str] = []
        for life in _lives(told):
            images = {one.token: one for one in life if one.event == "exec"}
            for document in self._take(written, life) or []:
                process, action = document["process"], document["event"]["action"]
                where = f"{action} of {process['pid']}: "
                args = process.get("args")
                image = images.get(args[-1]) if args else None
                if image is not None:
                    problems += [
                        where + each for each in _differences(process, _shown(image), lacking=True)
                    ]
                    problems += [
                        where + each for each in self._relatives(image, document, lacking=True)
                    ]
                elif args and action != "fork":  # which are those of its creator
                    problems.append(f"{where}it never was {args}")
                if action == "end":
                    problems += [where + each for each in _outcome(life, document, lacking=True)]
        return problems

    def untrue(self, told: Iterable[Record], run: Path | None = None) -> list[str]:
        """Yield differences between documents and the processes' records, one line each.

        Each image is in one exec, each setsid in one setsid, and each process with a record
        ends once. ``run`` is the generator's file: then no other exec may claim to belong
        to that run.
        """
        written = self._written()
        problems: list[str] = []
        for life in _lives(told):
            documents = self._take(written, life)
            if documents is not None:
                problems += self._life(life, documents)
            elif self.exact or any(one.event == "exec" for one in life):
                problems.append(f"nothing of {life[0].pid} (start {life[0].start}) {life[0].token}")
        if run is not None:
            for left in (each for pid in written for each in written[pid]):
                problems += _strangers(run, left)
        return problems

    def _written(self) -> dict[int, list[list[Document]]]:
        """Return the documents of each process, by pid; with one pid the oldest come first."""
        identities: dict[str, list[Document]] = defaultdict(list)
        for document in self.daemon.documents():
            identity = value(document, "process.entity_id")
            if identity is not None:
                identities[identity].append(document)
        written: dict[int, list[list[Document]]] = defaultdict(list)
        for documents in sorted(identities.values(), key=lambda some: some[0]["process"]["start"]):
            written[documents[0]["process"]["pid"]].append(documents)
        return written

    def _take(
        self, written: dict[int, list[list[Document]]], life: list[Record]
    ) -> list[Document] | None:
        """Remove the documents of a life from the rest."""
        candidates = written.get(life[0].pid, [])
        for place, documents in enumerate(candidates):
            if life[0].start in self._ticks(documents[0]["process"]):
                return candidates.pop(place)
        return None

    def _life(self, life: list[Record], documents: list[Document]) -> Iterator[str]:
        by_action: dict[str, list[Document]] = defaultdict(list)
        for document in documents:
            by_action[document["event"]["action"]].append(document)
        images = [one for one in life if one.event == "exec"]
        if len(images) != len(by_action["exec"]):
            told = ", ".join(one.token for one in images)
            found = [value(document, "process.args") for document in by_action["exec"]]
            yield f"the execs of {life[0].pid} are {found!r:.300}, not {told}"
        for one, document in zip(images, by_action["exec"], strict=False):
            where = f"exec of {one.pid} {one.token}: "
            yield from (where + problem for problem in self._image(one, document))
        sessions = [one for one in life if one.event == "setsid"]
        if len(sessions) != len(by_action["setsid"]):
            yield f"{len(by_action['setsid'])} setsid of {life[0].pid}, not {len(sessions)}"
        for one, document in zip(sessions, by_action["setsid"], strict=False):
            yield from (f"setsid of {one.pid}: {p}" for p in self._relatives(one, document))
        if len(by_action["end"]) != 1 and (by_action["end"] or self.exact):
            yield f"{len(by_action['end'])} ends of {life[0].pid} (start {life[0].start})"
        for document in by_action["end"]:
            where = f"end of {life[0].pid} {life[0].token}: "
            yield from (where + problem for problem in _ending(life, document))

    def _image(self, one: Record, document: Document) -> Iterator[str]:
        yield from _differences(document["process"], _shown(one))
        yield from self._relatives(one, document)

    def _relatives(
        self, one: Record, document: Document, *, lacking: bool = False
    ) -> Iterator[str]:
        lacking = lacking or not self.exact
        process = document["process"]
        for name, number in (("group_leader", one.pgid), ("session_leader", one.sid)):
            # Processes started by the kernel may be in group and session 0, which have no leader.
            expected = number or None
            found = value(process, f"{name}.pid")
            if found != expected and not (lacking and found is None):
                yield f"the {name} is {found}, not {expected}"
        parent = value(process, "parent.pid")
        adopted = value(document, "sessiond.reparented_to.pid")
        now = parent if adopted is None else adopted
        if parent == one.ppid and not self.exact:
            return  # procfs shows it a moment later
        if adopted is None and now != one.ppid and self._parent_was_there(document):
            # It recorded its parent a moment after its exec; in between it was adopted.
            return
        if now != one.ppid and not (lacking and now is None):
            yield f"its parent is {parent}, or now {adopted}, not {one.ppid}"

    def _parent_was_there(self, document: Document) -> bool:
        """Return whether the parent's own end shows that it was alive at the event."""
        parent = value(document, "process.parent.entity_id")
        documents = self.daemon.documents()
        if self._ends_of != len(documents):
            self._ends_of = len(documents)
            self._ends = {
                value(other, "process.entity_id"): other["@timestamp"]
                for other in documents
                if other["event"]["action"] == "end"
            }
        end = self._ends.get(parent)
        if end is None:
            return not self.exact
        return nanoseconds(end) + _LEAVING >= nanoseconds(document["@timestamp"])


def _lives(told: Iterable[Record]) -> list[list[Record]]:
    """Group records by process; a pid may be reused within one tick."""
    open_: dict[tuple[int, int], list[Record]] = {}
    lives: list[list[Record]] = []
    for one in told:
        key = one.pid, one.start
        if key not in open_:
            open_[key] = []
            lives.append(open_[key])
        open_[key].append(one)
        if one.event == "end":
            del open_[key]
    return lives


def _strangers(run: Path, documents: list[Document]) -> Iterator[str]:
    """Return execs that claim to belong to a run, without a record."""
    for document in documents:
        args = value(document, "process.args") or []
        of_maker = args[3:4] and args[3].isdigit()
        if document["event"]["action"] == "exec" and args[1:2] == [str(run)] and not of_maker:
            yield f"an exec that never was: {document['process']['pid']} {args}"


def _differences(
    process: Document, expected: dict[str, Any], *, lacking: bool = False
) -> Iterator[str]:
    for name, wanted in expected.items():
        found = value(process, name)
        if found != wanted and not (lacking and found is None):
            yield f"{name} is {found!r:.200}, not {wanted!r:.200}"


def _shown(one: Record) -> dict[str, Any]:
    """Return the host's data in an exec and an end of an image."""
    executable = display(one.exe.removesuffix(b" (deleted)"))
    tty = one.tty or 0
    minor = tty & 0xFF | tty >> 12 & 0xFFF00  # new_encode_dev of linux/kdev_t.h
    return {
        "executable": executable,
        "name": executable.rpartition("/")[2],
        "args": [display(argument) for argument in one.argv],
        "args_count": len(one.argv),
        "working_directory": display(one.cwd),
        "user.id": str(one.uid),
        "interactive": bool(tty),
        "tty": {"char_device": {"major": tty >> 8 & 0xFFF, "minor": minor}} if tty else None,
    }


def _ending(life: list[Record], document: Document) -> Iterator[str]:
    """Compare an end with the last exec, and with its status if a process waited for it."""
    images = [one for one in life if one.event == "exec"]
    if images:
        yield from _differences(document["process"], _shown(images[-1]))
    yield from _outcome(life, document)


def _outcome(life: list[Record], document: Document, *, lacking: bool = False) -> Iterator[str]:
    for one in life:
        if one.status is None:
            continue
        found = value(document, "process.exit_code")
        if lacking and found is None:
            continue
        if found != one.exit_code:
            yield f"the exit code is {found}, not {one.exit_code}"
        number = one.status & 0x7F
        expected = None
        if number:
            name = signal.Signals(number).name
            expected = {"number": number, "name": name, "core_dumped": bool(one.status & 0x80)}
        if value(document, "sessiond.signal") != expected:
            yield f"the signal is {value(document, 'sessiond.signal')}, not {expected}"


def losses(documents: Iterable[Document]) -> list[Document]:
    """Return the daemon's events about losses and problems."""
    return [document for document in documents if document["event"]["action"] in _OWN]


def orphans(documents: Iterable[Document]) -> list[str]:
    """Return the processes for which Session View can't draw whole trees.

    It queries the fork, exec and end events with one entry leader that are not before its
    start, and draws each process below its parent, if that has its own events; the entry leader
    is the root. A process without an entry leader is in no session; this applies to init and
    the processes in its own session, which has no leader.
    """
    drawn = [
        each
        for each in documents
        if each["event"]["action"] in ("fork", "exec", "end") and "entity_id" in each["process"]
    ]
    problems: dict[str, str] = {}
    sessions: dict[str, dict[str, Document]] = defaultdict(dict)
    for document in drawn:
        process = document["process"]
        entry = process.get("entry_leader")
        if entry is None:
            if process["pid"] not in (1, 2) and "session_leader" in process:
                problems[process["entity_id"]] = "has no entry leader"
        elif "start" not in entry or document["@timestamp"] < entry["start"]:
            problems[process["entity_id"]] = "is told before its session begins"
        else:
            sessions[entry["entity_id"]][process["entity_id"]] = process
    for root, processes in sessions.items():
        for identity, process in processes.items():
            parent = value(process, "parent.entity_id")
            if identity != root and parent != root and parent not in processes:
                problems[identity] = f"has the parent {parent}, which is not in its session"
    return [
        f"{document['process'].get('name')} ({document['process']['pid']}) {problem}"
        for document in drawn
        if (problem := problems.pop(document["process"]["entity_id"], None)) is not None
    ]
