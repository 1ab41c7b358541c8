"""Explains one process in words, with the source of each fact; pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sessiond.text import printable
from sessiond.viewer.model import Finding, Process, Recording, Session
from sessiond.viewer.sessions import origin
from sessiond.viewer.words import local, short, span

_MAX_SHOWN = 4096


def explain(
    process: Process, recording: Recording, session: Session | None, now: datetime
) -> Iterator[str]:
    """Yield lines about a process, and its ancestors up to the entry leader."""
    yield from map(printable, _explain(process, recording, session, now))


def _explain(
    process: Process, recording: Recording, session: Session | None, now: datetime
) -> Iterator[str]:
    yield _cut(process.command)
    yield f"  pid {process.pid or '?'} on {process.host}, entity id {process.id}"
    if not process.seen:
        yield "  No event of its own is in these files: it is known as a relative of others alone."
    yield from _section("What happened", list(_happened(process, now)))
    yield from _section(_as_of(process, now), list(_circumstances(process)))
    yield from _section("Where it came from", list(_ancestry(process, recording, session, now)))
    found = recording.findings.get(process.id, ())
    yield from _section("Findings", [_finding(each, now) for each in found])
    yield from _section("What is not known", list(_unknown(process, recording, session)))


def _section(name: str, facts: list[tuple[str, str, str]]) -> Iterator[str]:
    """Yield facts below each other: name, value and source."""
    if not facts:
        return
    yield ""
    yield name
    names = max(len(each[0]) for each in facts)
    for fact, value, source in facts:
        shown = f"  ({source})" if source else ""
        yield f"  {fact:<{names}}  {_cut(value)}{shown}"


def _happened(process: Process, now: datetime) -> Iterator[tuple[str, str, str]]:
    history: list[tuple[str, str, str]] = []
    for image in process.images:
        command = " ".join(image.args)
        what = f"executed {image.executable}: {command}, as {image.user or '?'}"
        history.append((image.time, what, ", ".join(image.providers)))
    for failed in process.failed:
        what = f"could not execute {failed.executable}: {failed.error or 'it failed'}"
        history.append((failed.time, what, "auditd"))
    for activity in process.activity:
        outcome = " (failure)" if activity.outcome == "failure" else ""
        history.append(
            (activity.time, f"{activity.action} {activity.what}{outcome}".strip(), "auditd")
        )
    if process.end:
        history.append((process.end, _end(process), ", ".join(process.end_providers)))
    if process.start:
        sources = ", ".join(process.providers) if process.seen else "told of it with others"
        yield _when(process.start, now), "was forked", sources
    if process.older:
        yield "", "was there before sessiond listened", ""
    for time, what, source in sorted(history):
        yield _when(time, now), what, source
    for count, kept, name in (
        (process.image_count, process.images, "executed programs"),
        (process.failed_count, process.failed, "failed executions"),
        (process.activity_count, process.activity, "events"),
    ):
        if count > len(kept):
            yield "", f"{count - len(kept)} further {name}, not kept", ""


def _end(process: Process) -> str:
    if process.signal:
        how = f"was ended by {process.signal}" + (", core dumped" if process.core_dumped else "")
    else:
        how = "ended" if process.exit_code is None else f"ended with exit code {process.exit_code}"
    took = span(process.start, process.end)
    return f"{how} after {short(took)}" if took is not None else how


def _as_of(process: Process, now: datetime) -> str:
    if not process.seen:
        return "As whom and where, as events of others have it"
    sources = ", ".join(process.providers)
    return f"As whom and where, at its last event, {_when(process.last, now)} ({sources})"


def _circumstances(process: Process) -> Iterator[tuple[str, str, str]]:
    for name, value, source in (
        ("executable", process.executable, ""),
        ("arguments", f"{process.args_count or len(process.args)}", ""),
        ("title", process.title if process.title != process.command else "", "auditd"),
        ("user", process.user, ""),
        ("real user", process.real_user if process.real_user != process.user else "", ""),
        ("saved user", process.saved_user if process.saved_user != process.user else "", ""),
        ("login user", process.login_user, "kept by the kernel since the login"),
        ("audit session", process.audit_session, "kept by the kernel since the login"),
        ("group", process.group_name, ""),
        ("real group", process.real_group if process.real_group != process.group_name else "", ""),
        (
            "saved group",
            process.saved_group if process.saved_group != process.group_name else "",
            "",
        ),
        ("other groups", process.groups if process.groups != process.group_name else "", ""),
        ("capabilities", _capabilities(process.capabilities), ""),
        ("directory", process.directory, ""),
        ("terminal", process.tty, ""),
        ("container", process.container, "the path of its control group"),
        ("pod", process.pod, "the path of its control group"),
        ("unit", process.unit, "the path of its control group"),
        ("labels", process.labels, "the configuration"),
        ("audit keys", " ".join(process.tags), "auditd"),
    ):
        if value:
            yield name, value, source


def _capabilities(names: str) -> str:
    given = names.split()
    return "all" if len(given) > 38 else " ".join(given)


def _ancestry(
    process: Process, recording: Recording, session: Session | None, now: datetime
) -> Iterator[tuple[str, str, str]]:
    for each in recording.ancestors(process):
        as_whom = f", as {each.user}" if each.user else ""
        since = f", since {_when(each.start, now)}" if each.start else ""
        known = "" if each.seen else "told with others"
        yield "forked by", f"{_cut(each.command)} (pid {each.pid or '?'}{as_whom}{since})", known
        if each.id == process.entry:
            break
    if process.reparented:
        yield "parent now", f"pid {process.reparented}", "the kernel, when that one had ended"
    for name, key in (("group leader", process.group), ("session leader", process.session)):
        if key == process.id:
            yield name, "itself", ""
        elif (leader := recording.processes.get(key)) is not None:
            yield name, f"{_cut(leader.command)} (pid {leader.pid})", ""
    if session is not None and process.entry:
        leader = session.leader
        what = "itself" if process.entry == process.id else _cut(leader.command if leader else "?")
        yield "entry leader", f"{what}, by {origin(session)}", "the entry rules"
        if session.origin is not None:
            client = session.origin
            value = f"{_cut(client.command)} (pid {client.pid} on {client.host})"
            yield "came by", value, "inferred: its host's address and its time fit"


def _finding(finding: Finding, now: datetime) -> tuple[str, str, str]:
    what = " ".join((finding.rule, *finding.techniques))
    return finding.level or "finding", what, f"at {_when(finding.time, now)}"


def _unknown(
    process: Process, recording: Recording, session: Session | None
) -> Iterator[tuple[str, str, str]]:
    for words in process.incomplete:
        yield "incomplete", words, "sessiond"
    if process.truncated:
        yield "cut", ", ".join(process.truncated), "a limit of the configuration"
    if process.gone:
        yield "end", "it ended while nobody listened", "inferred"
    if session is None or not process.entry:
        yield "entry", "no event tells through which process it came", ""
    if not process.parent:
        yield "parent", "no event tells which process forked it", ""
    for loss in recording.losses:
        while_there = loss.end >= process.start and (not process.end or loss.start <= process.end)
        if loss.host == process.host and while_there:
            yield "lost meanwhile", f"{loss.text} ({loss.hop})", ""


def _when(date: str, now: datetime) -> str:
    then = local(date, now)
    return f"{then:%Y-%m-%d %H:%M:%S.%f}"[:-3] if then is not None else "?"


def _cut(text: str) -> str:
    if len(text) <= _MAX_SHOWN:
        return text
    return f"{text[:_MAX_SHOWN]}… ({len(text)} characters)"
