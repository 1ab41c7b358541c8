"""Alert rules and dashboard: alerts fire as intended, and all metrics exist."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.manager import PROJECT

from sessiond.cli.metrics import METRICS

ALERTS = PROJECT / "packaging/prometheus/alerts.yml"
DASHBOARD = PROJECT / "packaging/prometheus/dashboard.json"
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    for rule in group["rules"]
}
OURS = {f"sessiond_{metric.name}" for metric in METRICS}

# One value a minute for 40 minutes, in promtool's notation: the start, the step, how often.
HEALTHY = {
    "sessiond_up": "1x40",
    'sessiond_info{role="unicast",source="ebpf"}': "1x40",
    "sessiond_healthy": "1x40",
    "sessiond_uptime_seconds": "0+60x40",
    "sessiond_process_table_evicted_total": "7x40",
    "sessiond_rules": "8x40",
    "sessiond_audit_enabled": "1x40",
    "sessiond_audit_backlog_records": "100x40",
    "sessiond_audit_backlog_limit_records": "8192x40",
    'sessiond_lost_total{hop="kernel"}': "3x40",
    "sessiond_ledger_balanced": "1x40",
    "sessiond_canary_healthy": "1x40",
    'sessiond_output_healthy{output="file"}': "1x40",
    'sessiond_output_dropped_lines_total{output="file",reason="spool full"}': "0x40",
    'sessiond_output_spool_bytes{output="file"}': "0x40",
    'sessiond_output_spool_limit_bytes{output="file"}': "1000x40",
    'node_textfile_mtime_seconds{file="/textfile/sessiond.prom"}': "0+60x40",
}


def firing(tmp_path: Path, series: dict[str, str], expected: list[dict[str, str]]) -> None:
    """Check with Prometheus's own tester which alerts fire after half an hour."""
    samples = [
        {"labels": _selector({"__name__": "ALERTS", "alertstate": "firing", **labels}), "value": 1}
        for labels in expected
    ]
    test = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": _expanded(values)} for name, values in series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": 'ALERTS{alertstate="firing"}',
                        "eval_time": "30m",
                        "exp_samples": samples,
                    }
                ],
            }
        ],
    }
    file = tmp_path / "alerts.test.yml"
    file.write_text(yaml.safe_dump(test))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _selector(labels: dict[str, str]) -> str:
    name = labels.pop("__name__")
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def _expanded(values: str) -> str:
    return values if re.search(r"[+-]|^_| ", values) else values.replace("x", "+0x", 1)


def test_a_healthy_host_is_quiet(tmp_path: Path) -> None:
    """Old losses do not fire forever either."""
    firing(tmp_path, HEALTHY, [])


@pytest.mark.parametrize(
    ("alert", "series", "labels"),
    [
        ("SessiondDown", {"sessiond_up": "0x40"}, {}),
        (
            "SessiondMetricsStale",
            {'node_textfile_mtime_seconds{file="/textfile/sessiond.prom"}': "60x40"},
            {"file": "/textfile/sessiond.prom"},
        ),
        (
            "SessiondUnhealthy",
            {'sessiond_health_problem{problem="audit"}': "1x40"},
            {"problem": "audit"},
        ),
        ("SessiondBlind", {"sessiond_canary_healthy": "0x40"}, {}),
        ("SessiondBlind", {"sessiond_audit_enabled": "0x40"}, {}),
        ("SessiondNoRules", {"sessiond_rules": "0x40"}, {}),
        (
            "SessiondEventsLost",
            {'sessiond_lost_total{hop="kernel"}': "0+1x40"},
            {"hop": "kernel"},
        ),
        ("SessiondBacklogFilling", {"sessiond_audit_backlog_records": "7000x40"}, {}),
        (
            "SessiondOutputDown",
            {'sessiond_output_healthy{output="file"}': "0x40"},
            {"output": "file"},
        ),
        (
            "SessiondSpoolFilling",
            {'sessiond_output_spool_bytes{output="file"}': "900x40"},
            {"output": "file"},
        ),
        (
            "SessiondLinesDropped",
            {
                'sessiond_output_dropped_lines_total{output="file",reason="spool full"}': "0+5x40",
            },
            {"output": "file", "reason": "spool full"},
        ),
        ("SessiondTableFull", {"sessiond_process_table_evicted_total": "0+9x40"}, {}),
        (
            "SessiondSourceDeclined",
            {'sessiond_source_declined{source="ebpf"}': "1x40"},
            {"source": "ebpf"},
        ),
        ("SessiondRestarting", {"sessiond_uptime_seconds": "60 0 60 0 60 0 60 0 60 0x30"}, {}),
        ("SessiondLedgerUnbalanced", {"sessiond_ledger_balanced": "0x40"}, {}),
    ],
)
def test_an_alert_fires(
    tmp_path: Path, alert: str, series: dict[str, str], labels: dict[str, str]
) -> None:
    """Each problem fires its own alert, and no other."""
    severity = RULES[alert]["labels"]["severity"]
    firing(
        tmp_path,
        {**HEALTHY, **series},
        [{"alertname": alert, "severity": severity, **labels}],
    )


def test_a_listener_has_no_rules_of_its_own(tmp_path: Path) -> None:
    """Beside another audit daemon that is normal."""
    series = {name: values for name, values in HEALTHY.items() if "sessiond_info" not in name}
    series |= {'sessiond_info{role="multicast",source="ebpf"}': "1x40", "sessiond_rules": "0x40"}
    firing(tmp_path, series, [])


def _expressions() -> list[str]:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return panels + [rule["expr"] for rule in RULES.values()]


def test_every_metric_that_is_named_exists() -> None:
    """Panels and alerts use only existing metrics."""
    named = {name for text in _expressions() for name in re.findall(r"\bsessiond_\w+", text)}
    assert len(named) > 20
    assert named <= OURS


def test_prometheus_can_read_every_panel(tmp_path: Path) -> None:
    """Each expression is valid PromQL after Grafana has inserted its variables."""
    rules = [
        {"record": f"panel:{index}", "expr": re.sub(r"\$\w+", "5m", expression)}
        for index, expression in enumerate(_expressions())
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_have_their_place() -> None:
    """Ids are unique, panels do not overlap, and each has a description."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) >= 12
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["description"].endswith("."), panel["title"]
