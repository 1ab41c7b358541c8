"""Renders rows as a readable table: medians of the rounds, and ratios within the same run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final

Row = dict[str, Any]

_PEERS: Final = ("auditd", "laurel")
_UNDISTURBED: Final = "undisturbed"


def text(found: dict[str, Any]) -> str:
    """Return the whole report: the machine, and a table for each section."""
    machine = found["machine"]
    host = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_mb']} MB, "
        f"Linux {machine['kernel']}, Python {machine['python']}, "
        f"load average {machine['load_average']:.2f}"
    )
    lines = [
        host,
        f"{found['date']}, commit {found['commit'] or 'unknown'}: {found['command']}",
        *(f"left out: {each}" for each in found["left_out"]),
    ]
    for name, rows in found["sections"].items():
        if rows:
            title, table = _TABLES[name](rows, found)
            lines += ["", title, *_aligned(table)]
    return "\n".join(lines) + "\n"


def _by(rows: Sequence[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def _median(rows: Sequence[Row], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return statistics.median(values) if values else None


def _show(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _ratio(value: float | None, base: float | None) -> str:
    return "-" if value is None or not base else f"{value / base:.2f}"


def _share(rows: Sequence[Row], key: str) -> str:
    wanted, came = sum(row["processes"] for row in rows), sum(row[key] for row in rows)
    if came == wanted:
        return "all"
    # Rounded down, so that an incomplete result never reads as 100.
    return f"{came * 10_000 // wanted / 100:.2f}%"


def _load(rows: Sequence[Row], base_title: str) -> tuple[str, list[list[str]]]:
    groups = {key[0]: group for key, group in _by(rows, "consumer").items()}
    bases = {peer: _median(groups[peer], "cpu_us") for peer in _PEERS if peer in groups}
    table = [
        ["", "us/process", "least-most", *(f"x {peer}" for peer in bases), "execs", "ends", "lost",
         "rate/s", "kauditd us", "bytes", "start s", "PSS MB", "then", "RSS MB", "then"]
    ]  # fmt: skip
    for name, group in groups.items():
        used = [row["cpu_us"] for row in group]
        cost = _median(group, "cpu_us")
        table.append(
            [
                name,
                _show(cost),
                f"{min(used):.0f}-{max(used):.0f}",
                *(_ratio(cost, base) for base in bases.values()),
                _share(group, "execs"),
                _share(group, "ends"),
                str(sum(row["lost"] for row in group)),
                _show(_median(group, "rate"), 0),
                _show(_median(group, "kauditd_us")),
                _show(_median(group, "bytes"), 0),
                _show(_median(group, "start_s"), 2),
                *(
                    _show(_median(group, key))
                    for key in ("pss_start_mb", "pss_end_mb", "rss_start_mb", "rss_end_mb")
                ),
            ]
        )
    return base_title, table


def _steady(rows: Sequence[Row], found: dict[str, Any]) -> tuple[str, list[list[str]]]:
    options = found["options"]
    return _load(
        rows,
        f"CPU of daemon and children, {options['rate']:.0f} processes a second for "
        f"{options['seconds']:.0f} s, {options['rounds']} rounds",
    )


def _flat(rows: Sequence[Row], found: dict[str, Any]) -> tuple[str, list[list[str]]]:
    options = found["options"]
    return _load(
        rows,
        f"the same flat out from two spawners for {options['flat_seconds']:.0f} s, "
        f"{options['rounds']} rounds",
    )


def _rules(rows: Sequence[Row], found: dict[str, Any]) -> tuple[str, list[list[str]]]:
    options = found["options"]
    return _load(rows, f"with 1,000 more rules, {options['rate']:.0f} processes a second")


def _delay(rows: Sequence[Row], found: dict[str, Any]) -> tuple[str, list[list[str]]]:
    table = [["", "p50 ms", "p99 ms", "max ms"]]
    for (name,), group in _by(rows, "consumer").items():
        keys = ("p50_ms", "p99_ms", "max_ms")
        table.append([name, *(_show(_median(group, key)) for key in keys)])
    rate = found["options"]["rate"]
    return f"delay from exec to the line in the file, {rate:.0f} processes a second", table


def _idle(rows: Sequence[Row], found: dict[str, Any]) -> tuple[str, list[list[str]]]:
    table = [["", "% of a core", "lines meanwhile"]]
    table += [[row["consumer"], _show(row["idle_percent"], 3), str(row["lines"])] for row in rows]
    return f"idle for {found['options']['idle_seconds']:.0f} s", table


def _rotation(rows: Sequence[Row], found: dict[str, Any]) -> tuple[str, list[list[str]]]:
    base = next((row["cpu_us"] for row in rows if row["consumer"] == "auditd"), None)
    table = [["", "us/process", "x auditd", "bytes", "on disk", "rotated", "lost", "PSS MB"]]
    table += [
        [
            row["consumer"],
            _show(row["cpu_us"]),
            _ratio(row["cpu_us"], base),
            _show(row["bytes"], 0),
            _show(row["disk_bytes"], 0),
            str(row["rotated"]),
            str(row["lost"]),
            _show(row["pss_end_mb"]),
        ]
        for row in rows
    ]
    rate = found["options"]["rate"]
    return f"a varied load with rotation and compression, {rate:.0f} processes a second", table


def _slowdown(rows: Sequence[Row], _: dict[str, Any]) -> tuple[str, list[list[str]]]:
    keys = {"execs_per_s": 0, "build_s": 2, "script_s": 2}
    groups = {key[0]: group for key, group in _by(rows, "consumer").items()}
    table = [["", "execs/s", "x", "build s", "x", "script s", "x"]]
    for name, group in groups.items():
        line = [name]
        for key, digits in keys.items():
            value = _median(group, key)
            line += [_show(value, digits), _ratio(value, _median(groups[_UNDISTURBED], key))]
        table.append(line)
    return f"the host's own work, and x the same {_UNDISTURBED}", table


def _flood(rows: Sequence[Row], _: dict[str, Any]) -> tuple[str, list[list[str]]]:
    table = [
        ["", "execs", "missing", "ends missing", "rate/s", "failing/s", "lost", "CPU s", "PSS MB"]
    ]
    table += [
        [
            row["consumer"],
            f"{row['processes']:,}",
            f"{row['processes'] - row['execs']:,}",
            f"{row['processes'] - row['ends']:,}",
            _show(row["rate"], 0),
            _show(row["refused_per_s"], 0),
            f"{row['lost']:,}",
            _show(row["cpu_s"]),
            _show(row["pss_end_mb"]),
        ]
        for row in rows
    ]
    return "two spawners flat out, and a user whose execs all fail", table


def _memory(rows: Sequence[Row], found: dict[str, Any]) -> tuple[str, list[list[str]]]:
    consumers = list(_by(rows, "consumer"))
    table = [["seconds", *(name for (name,) in consumers)]]
    for (seconds,), group in _by(rows, "seconds").items():
        figures = {row["consumer"]: row["pss"] for row in group}
        table.append([f"{seconds:.0f}", *(_show(figures.get(name)) for (name,) in consumers)])
    return f"PSS in MB, {found['options']['rate']:.0f} processes a second", table


def _living(rows: Sequence[Row], found: dict[str, Any]) -> tuple[str, list[list[str]]]:
    table = [["", "start s", "PSS MB", "then", "state MB", "save s", "restart s", "PSS MB"]]
    table += [
        [
            row["consumer"],
            _show(row["start_s"], 2),
            _show(row["pss_start_mb"]),
            _show(row["pss_settled_mb"]),
            _show(row["state_mb"]),
            _show(row["save_s"], 2),
            _show(row["restart_s"], 2),
            _show(row["pss_restart_mb"]),
        ]
        for row in rows
    ]
    return f"with {found['options']['living']:,} living processes", table


def _instructions(rows: Sequence[Row], _: dict[str, Any]) -> tuple[str, list[list[str]]]:
    table = [["", "instructions/process"]]
    table += [[row["consumer"], _show(row["instructions"], 0)] for row in rows]
    return "instructions of the pipeline alone (fork, exec and end), by callgrind", table


def _table(rows: Sequence[Row], _: dict[str, Any]) -> tuple[str, list[list[str]]]:
    table = [["", "in the table", "us/process", "x smallest"]]
    least: dict[str, float | None] = {}
    for (name, size), group in _by(rows, "consumer", "table").items():
        cost = _median(group, "cpu_us")
        least.setdefault(name, cost)
        table.append([name, f"{size:,}", _show(cost), _ratio(cost, least[name])])
    return "CPU of the pipeline alone (fork, exec and end) as the table grows", table


def _filters(rows: Sequence[Row], _: dict[str, Any]) -> tuple[str, list[list[str]]]:
    table = [["", "filters", "us/process", "x none", "us/event more"]]
    none: dict[str, float] = {}
    for (name, filters), group in _by(rows, "consumer", "filters").items():
        cost = _median(group, "cpu_us") or 0.0
        none.setdefault(name, cost)
        # A process has two events: exec and end.
        more = (cost - none[name]) / 2
        table.append([name, filters, _show(cost), _ratio(cost, none[name]), _show(more, 2)])
    return "CPU of the pipeline alone with filters, by process and by event", table


def _replay(rows: Sequence[Row], _: dict[str, Any]) -> tuple[str, list[list[str]]]:
    table = [["", "records", "records/s of CPU", "records/s", "peak RSS MB"]]
    table += [
        [
            row["consumer"],
            f"{row['records']:,}",
            _show(row["records_per_s"], 0),
            _show(row["wall_records_per_s"], 0),
            _show(row["peak_mb"]),
        ]
        for row in sorted(rows, key=lambda row: str(row["consumer"]))
    ]
    return "sessiond replay, start included", table


_TABLES: Final[
    dict[str, Callable[[Sequence[Row], dict[str, Any]], tuple[str, list[list[str]]]]]
] = {
    "load": _steady,
    "flat": _flat,
    "delay": _delay,
    "idle": _idle,
    "rules": _rules,
    "rotation": _rotation,
    "slowdown": _slowdown,
    "flood": _flood,
    "memory": _memory,
    "living": _living,
    "table": _table,
    "filters": _filters,
    "instructions": _instructions,
    "replay": _replay,
}


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in table
    ]
