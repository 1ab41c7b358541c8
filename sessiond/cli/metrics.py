"""``sessiond status --prometheus``: the status document as metrics in Prometheus' text format.

The format is the one of https://prometheus.io/docs/instrumenting/exposition_formats/, which
node_exporter's textfile collector and every scraper read. Names end in their unit, or in _total
for counters, which restart at 0 with the daemon. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

Labels = dict[str, str]
Samples = Iterator[tuple[Labels, float]]
Document = Mapping[str, Any]


class Metric(NamedTuple):
    """One metric: its name without the prefix, type, help, and the reader of its samples."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: Callable[[Document], Samples]


def render(document: Document | None) -> str:
    """Return the metrics of a status document; None means that the daemon does not answer.

    Metrics that the document lacks, such as that of another version, are omitted.
    """
    if document is None:
        document = {"up": False}
    lines: list[str] = []
    for metric in METRICS:
        name = f"sessiond_{metric.name}"
        samples = [
            f"{name}{_labels(labels)} {_number(value)}"
            for labels, value in metric.samples(document)
        ]
        if samples:
            lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}", *samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    pairs = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


# --- reading samples ------------------------------------------------------------------------


def _at(document: Document, path: str) -> Any:  # noqa: ANN401 - whatever the document holds
    """Return the member at a dotted path; None if a part of the path is missing."""
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _section(document: Document, path: str) -> Mapping[str, Any]:
    found = _at(document, path)
    return found if isinstance(found, Mapping) else {}


def _value(path: str) -> Callable[[Document], Samples]:
    """One sample: a number, or 1 for true and 0 for false."""

    def samples(document: Document) -> Samples:
        value = _at(document, path)
        if isinstance(value, int | float):
            yield {}, float(value)

    return samples


def _members(label: str, path: str) -> Callable[[Document], Samples]:
    """A sample for each number in a section; ``label`` names its key."""

    def samples(document: Document) -> Samples:
        for name, value in _section(document, path).items():
            if isinstance(value, int | float):
                yield {label: name}, float(value)

    return samples


def _of_outputs(path: str, label: str = "") -> Callable[[Document], Samples]:
    """The samples of each output; with a ``label``, one for each number in its section."""
    within = _members(label, path) if label else _value(path)

    def samples(document: Document) -> Samples:
        for output, state in _section(document, "outputs").items():
            for labels, value in within(state):
                yield {"output": output, **labels}, value

    return samples


def _of_filters(member: str) -> Callable[[Document], Samples]:
    """A sample for each filter that drops or folds, with its action."""

    def samples(document: Document) -> Samples:
        for name, account in _section(document, "pipeline.filters.by_filter").items():
            value, action = _at(account, member), _at(account, "action")
            if isinstance(value, int | float) and action in ("drop", "fold"):
                yield {"filter": name, "action": action}, float(value)

    return samples


def _withheld(document: Document) -> Samples:
    """The lines of each filter, including released ones, so that the counter never decreases."""
    accounts = _section(document, "pipeline.filters.by_filter")
    for labels, lines in _of_filters("lines")(document):
        released = _at(accounts[labels["filter"]], "released")
        yield labels, lines + (released if isinstance(released, int | float) else 0)


def _up(document: Document) -> Samples:
    yield {}, float(document.get("up") is not False)


def _info(document: Document) -> Samples:
    labels = {name: str(document[name]) for name in _INFO if name in document}
    if labels:
        yield labels, 1.0


def _healthy(document: Document) -> Samples:
    problems = _at(document, "health.problems")
    if isinstance(problems, list):
        yield {}, float(not problems)


def _problems(document: Document) -> Samples:
    """The health problems without their reasons: reasons vary, label values must not."""
    problems = _at(document, "health.problems")
    if isinstance(problems, list):
        for what in dict.fromkeys(str(problem).partition(": ")[0] for problem in problems):
            yield {"problem": what}, 1.0


def _lost(document: Document) -> Samples:
    for hop in _section(document, "ledger"):
        for _, number in _value("lost")(_section(document, f"ledger.{hop}")):
            yield {"hop": hop}, number


def _declined(document: Document) -> Samples:
    for source in _section(document, "declined"):
        yield {"source": source}, 1.0


def _canary(document: Document) -> Samples:
    canary = _section(document, "canary")
    if canary:
        yield {}, float(canary.get("failure") is None)


_INFO: Final = ("version", "role", "source")

METRICS: Final = (
    Metric("up", "gauge", "1 when the daemon answered on its status socket.", _up),
    Metric("info", "gauge", "Version, role in audit and source of process events.", _info),
    Metric("healthy", "gauge", "1 when the daemon has no health problem.", _healthy),
    Metric("health_problem", "gauge", "1 for each current health problem.", _problems),
    Metric("uptime_seconds", "gauge", "Time since the daemon started.", _value("uptime")),
    Metric(
        "cpu_seconds_total",
        "counter",
        "Processor time of the daemon, user and system.",
        _value("usage.cpu_seconds"),
    ),
    Metric(
        "resident_memory_bytes",
        "gauge",
        "Resident memory of the daemon.",
        _value("usage.resident_bytes"),
    ),
    Metric("processes", "gauge", "Processes in the table.", _value("processes")),
    Metric(
        "process_table_bytes",
        "gauge",
        "Estimated memory of the arguments in the table.",
        _value("pipeline.table.bytes"),
    ),
    Metric(
        "process_table_evicted_total",
        "counter",
        "Processes forgotten because the table was full.",
        _value("pipeline.table.evicted"),
    ),
    Metric(
        "process_table_cuts_total",
        "counter",
        "Values cut because the table exceeded its memory limit, by kind.",
        _members("what", "pipeline.table.cut"),
    ),
    Metric("rules", "gauge", "Audit rules of sessiond that are loaded.", _value("rules")),
    Metric(
        "source_declined",
        "gauge",
        "1 for each better source of process events that this host does not support.",
        _declined,
    ),
    Metric(
        "lines_total",
        "counter",
        "Lines written, by event.action.",
        _members("action", "pipeline.lines"),
    ),
    Metric(
        "lines_shortened_total",
        "counter",
        "Lines that were cut to event.max_line_bytes.",
        _value("pipeline.lines_shortened"),
    ),
    Metric(
        "unenriched_total",
        "counter",
        "Audit events of unknown processes.",
        _value("pipeline.unenriched"),
    ),
    Metric(
        "process_events_total",
        "counter",
        "Process events from the source, by kind.",
        _members("kind", "pipeline.process_events"),
    ),
    Metric(
        "audit_records_total",
        "counter",
        "Audit records received from the kernel.",
        _value("socket.received"),
    ),
    Metric(
        "audit_records_malformed_total",
        "counter",
        "Audit records that could not be parsed.",
        _value("pipeline.audit_records_malformed"),
    ),
    Metric(
        "audit_events_total",
        "counter",
        "Audit events that were reassembled.",
        _value("pipeline.audit_events"),
    ),
    Metric(
        "audit_events_unfinished_total",
        "counter",
        "Audit events whose last record did not arrive in time.",
        _value("pipeline.audit_events_unfinished"),
    ),
    Metric(
        "audit_enabled",
        "gauge",
        "The kernel's audit switch: 0 off, 1 on, 2 on and locked.",
        _value("kernel.enabled"),
    ),
    Metric(
        "audit_backlog_records",
        "gauge",
        "Records in the kernel's backlog.",
        _value("kernel.backlog"),
    ),
    Metric(
        "audit_backlog_limit_records",
        "gauge",
        "Maximum number of records in the kernel's backlog.",
        _value("kernel.backlog_limit"),
    ),
    Metric(
        "audit_socket_buffered_bytes",
        "gauge",
        "Bytes of the audit socket's receive buffer in use.",
        _value("socket.buffered"),
    ),
    Metric(
        "audit_socket_buffer_bytes",
        "gauge",
        "Size of the audit socket's receive buffer.",
        _value("socket.receive_buffer"),
    ),
    Metric(
        "lost_total",
        "counter",
        "Losses by hop: kernel, socket and record in audit records, tracer in its "
        "events, output in lines.",
        _lost,
    ),
    Metric(
        "ledger_balanced",
        "gauge",
        "1 when everything received is written, waiting, or counted as lost.",
        _value("ledger.balanced"),
    ),
    Metric(
        "filter_withheld_lines_total",
        "counter",
        "Lines that a filter dropped or folded; some of them were released later.",
        _withheld,
    ),
    Metric(
        "filter_released_lines_total",
        "counter",
        "Lines that a filter withheld and that were written later.",
        _of_filters("released"),
    ),
    Metric(
        "filter_withheld_bytes",
        "gauge",
        "Approximate size of the lines that a filter withheld.",
        _of_filters("bytes"),
    ),
    Metric(
        "execs_unaudited_total",
        "counter",
        "Execs that the tracer reported and audit did not, by reason.",
        _members("reason", "pipeline.execs_unaudited"),
    ),
    Metric(
        "canary_seen_total",
        "counter",
        "Processes of the self-test that arrived as lines.",
        _value("canary.seen"),
    ),
    Metric("canary_healthy", "gauge", "1 when the last self-test passed.", _canary),
    Metric(
        "procfs_failures_total",
        "counter",
        "Failed reads of /proc, by reason.",
        _members("reason", "procfs"),
    ),
    Metric("output_healthy", "gauge", "1 when the output accepts lines.", _of_outputs("healthy")),
    Metric(
        "output_accepted_lines_total",
        "counter",
        "Lines passed to the output.",
        _of_outputs("accepted"),
    ),
    Metric(
        "output_delivered_lines_total",
        "counter",
        "Lines that the output has delivered.",
        _of_outputs("delivered"),
    ),
    Metric(
        "output_dropped_lines_total",
        "counter",
        "Lines that the output has lost, by reason.",
        _of_outputs("dropped_by_reason", "reason"),
    ),
    Metric("output_queued_lines", "gauge", "Lines waiting in memory.", _of_outputs("queued")),
    Metric("output_spooled_lines", "gauge", "Lines waiting on disk.", _of_outputs("spooled")),
    Metric("output_spool_bytes", "gauge", "Size of the spool.", _of_outputs("spool.size")),
    Metric(
        "output_spool_limit_bytes",
        "gauge",
        "Size at which the spool starts to drop lines.",
        _of_outputs("spool.max_size"),
    ),
)
