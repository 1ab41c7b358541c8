"""Measures the pipeline with filters.

``python -m bench.filters NAME PROCESSES LIVES`` prints the us of CPU that one process (fork, exec,
end) costs in the pipeline of this process, with a table of PROCESSES others and the filters NAME.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from bench import paper
from bench.plan import Plan, Row, in_build, note

# None of these holds for the synthetic processes; hosts have filters of all these kinds.
_TWENTY: Final[list[dict[str, Any]]] = [
    {"name": f"{kind} {number}", "when": when, "then": then}
    for number in range(4)
    for kind, when, then in (
        ("unit", {"systemd.unit": f"backup{number}*.service"}, "drop"),
        (
            "agent",
            {"ancestor.executable": f"/usr/sbin/agent{number}", "process.user.name": "daemon"},
            "drop",
        ),
        ("script", {"ancestor.args": f"/etc/checks/{number}.sh", "process.user.id": 0}, "fold"),
        (
            "probe",
            {"process.args": f"*/healthz{number}*", "entry_leader.entry_meta.type": "container"},
            "fold",
        ),
        ("label", {"process.executable": f"/opt/job{number}/*"}, {"labels": {"job": "batch"}}),
    )
]
_NAMES: Final = {"process.user.id": "0", "process.executable": "/usr/bin/ls"}
# By name; those that remove every process are in ``_REMOVE``.
FILTERS: Final[dict[str, list[dict[str, Any]]]] = {
    "none": [],
    "20 that do not match": _TWENTY,
    "20 on arguments": [
        {"name": str(number), "when": {"process.args": f"*/healthz{number}*"}, "then": "drop"}
        for number in range(20)
    ],
    "drop by user and program": [{"when": _NAMES, "then": "drop"}],
    "drop by key and user": [{"when": {"tags": "exec", "process.user.id": "0"}, "then": "drop"}],
    "drop by arguments": [{"when": {"process.args": "*/srv/*"}, "then": "drop"}],
    "fold": [{"when": _NAMES, "then": "fold"}],
}
_REMOVE: Final = ("drop", "fold")


def filters(plan: Plan) -> list[Row]:
    """Measure the cost of a process that filters test, or remove."""
    lives = 2_000 if plan.quick else 10_000
    rows = []
    for number in range(1, plan.rounds + 1):
        for ours in plan.audited:
            for name in FILTERS:
                cost = float(in_build(ours, "bench.filters", name, 1_000, lives))
                rows.append({"consumer": ours.name, "filters": name, "cpu_us": cost})
                note(f"round {number}: {ours.name}, {name}: {cost:.1f} us each")
    return rows


def main(name: str, processes: str, lives: str) -> None:
    """Measure with the filters of that name, and print the result."""
    meter = paper.CpuTime()
    settings = json.dumps({"filters": FILTERS[name]})
    written = not name.startswith(_REMOVE)
    paper.measure(int(processes), int(lives), meter, settings=settings, written=written)
    print(f"{meter.used / int(lives) / 1000:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
