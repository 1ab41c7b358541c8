"""Metrics: names, types, values and labels of the status document, in the Prometheus format."""

from __future__ import annotations

import subprocess
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sessiond.cli import metrics

DOCUMENT: dict[str, Any] = {
    "health": {
        "state": "degraded",
        "problems": [
            "output file:/x: no space left on device",
            "canary: no exec came back within 10 s",
            "canary: again",
        ],
        "told": 3,
    },
    "version": "1.2.3",
    "uptime": 15.9,
    "usage": {"cpu_seconds": 1.25, "resident_bytes": 41943040},
    "role": "unicast",
    "source": "proc_connector",
    "rules": 8,
    "processes": 193,
    "declined": {"ebpf": "no BTF; use a kernel with BTF"},
    "kernel": {"enabled": 1, "lost": 4, "backlog": 17, "backlog_limit": 8192},
    "socket": {"received": 2494, "receive_buffer": 67108864, "buffered": 4096, "dropped": 0},
    "ledger": {
        "balanced": True,
        "kernel": {"lost": 4, "hint_serials_unseen": 0},
        "tracer": {"lost": 0, "kinds": {}},
        "lines": {"received": 1100, "written": 1100, "balanced": True},
    },
    "canary": {"seen": 12, "failure": "no exec came back within 10 s"},
    "pipeline": {
        "audit_records_malformed": 1,
        "audit_events": 458,
        "audit_events_unfinished": 0,
        "execs_unaudited": {"missing": 5},
        "unenriched": 0,
        "lines_shortened": 2,
        "filters": {
            "by_filter": {
                "checks": {"action": "drop", "lines": 40, "bytes": 9000, "released": 2},
                "labels": {"action": "mark", "lines": 7, "bytes": 0, "released": 0},
            }
        },
        "process_events": {"Executed": 229, "Forked": 515},
        "lines": {"exec": 229, "end": 514},
        "table": {"processes": 193, "evicted": 0, "bytes": 1024, "cut": {"previous": 3}},
    },
    "procfs": {"denied": 6, "malformed": 0},
    "outputs": {
        "file:/x": {
            "healthy": False,
            "reason": "no space left on device",
            "accepted": 1100,
            "delivered": 1000,
            "queued": 0,
            "spooled": 98,
            "dropped": 2,
            "dropped_by_reason": {"queue full": 0, "spool full": 2},
            "spool": {"path": "/s", "size": 65536, "max_size": 536870912, "trouble": None},
        },
        "console": {"healthy": True, "accepted": 5, "delivered": 5, "spool": None},
    },
}


def samples(text: str) -> dict[str, str]:
    """The samples as a scraper reads them, with their values."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = value
    return found


def test_the_document_as_metrics() -> None:
    """Each number has a metric, except repeated ones and texts."""
    assert samples(metrics.render(DOCUMENT)) == {
        "sessiond_up": "1",
        'sessiond_info{version="1.2.3",role="unicast",source="proc_connector"}': "1",
        "sessiond_healthy": "0",
        'sessiond_health_problem{problem="output file:/x"}': "1",
        'sessiond_health_problem{problem="canary"}': "1",
        "sessiond_uptime_seconds": "15.9",
        "sessiond_cpu_seconds_total": "1.25",
        "sessiond_resident_memory_bytes": "41943040",
        "sessiond_processes": "193",
        "sessiond_process_table_bytes": "1024",
        "sessiond_process_table_evicted_total": "0",
        'sessiond_process_table_cuts_total{what="previous"}': "3",
        "sessiond_rules": "8",
        'sessiond_source_declined{source="ebpf"}': "1",
        'sessiond_lines_total{action="exec"}': "229",
        'sessiond_lines_total{action="end"}': "514",
        "sessiond_lines_shortened_total": "2",
        "sessiond_unenriched_total": "0",
        'sessiond_process_events_total{kind="Executed"}': "229",
        'sessiond_process_events_total{kind="Forked"}': "515",
        "sessiond_audit_records_total": "2494",
        "sessiond_audit_records_malformed_total": "1",
        "sessiond_audit_events_total": "458",
        "sessiond_audit_events_unfinished_total": "0",
        "sessiond_audit_enabled": "1",
        "sessiond_audit_backlog_records": "17",
        "sessiond_audit_backlog_limit_records": "8192",
        "sessiond_audit_socket_buffered_bytes": "4096",
        "sessiond_audit_socket_buffer_bytes": "67108864",
        'sessiond_lost_total{hop="kernel"}': "4",
        'sessiond_lost_total{hop="tracer"}': "0",
        "sessiond_ledger_balanced": "1",
        'sessiond_filter_withheld_lines_total{filter="checks",action="drop"}': "42",
        'sessiond_filter_released_lines_total{filter="checks",action="drop"}': "2",
        'sessiond_filter_withheld_bytes{filter="checks",action="drop"}': "9000",
        'sessiond_execs_unaudited_total{reason="missing"}': "5",
        "sessiond_canary_seen_total": "12",
        "sessiond_canary_healthy": "0",
        'sessiond_procfs_failures_total{reason="denied"}': "6",
        'sessiond_procfs_failures_total{reason="malformed"}': "0",
        'sessiond_output_healthy{output="file:/x"}': "0",
        'sessiond_output_healthy{output="console"}': "1",
        'sessiond_output_accepted_lines_total{output="file:/x"}': "1100",
        'sessiond_output_accepted_lines_total{output="console"}': "5",
        'sessiond_output_delivered_lines_total{output="file:/x"}': "1000",
        'sessiond_output_delivered_lines_total{output="console"}': "5",
        'sessiond_output_dropped_lines_total{output="file:/x",reason="queue full"}': "0",
        'sessiond_output_dropped_lines_total{output="file:/x",reason="spool full"}': "2",
        'sessiond_output_queued_lines{output="file:/x"}': "0",
        'sessiond_output_spooled_lines{output="file:/x"}': "98",
        'sessiond_output_spool_bytes{output="file:/x"}': "65536",
        'sessiond_output_spool_limit_bytes{output="file:/x"}': "536870912",
    }


def test_each_metric_has_help_and_type_before_its_samples() -> None:
    """The format requires that the samples of one metric are consecutive."""
    lines = metrics.render(DOCUMENT).splitlines()
    at = lines.index("# TYPE sessiond_lines_total counter")
    assert lines[at - 1] == "# HELP sessiond_lines_total Lines written, by event.action."
    assert lines[at + 1].startswith("sessiond_lines_total{")
    assert len({line for line in lines if line.startswith("# TYPE")}) == len(metrics.METRICS)


def test_a_daemon_that_does_not_answer_is_down() -> None:
    """sessiond_up is the only sample."""
    assert samples(metrics.render(None)) == {"sessiond_up": "0"}


def test_a_document_of_another_version_gives_what_it_has() -> None:
    """Metrics of a missing part are omitted, not zero."""
    assert samples(metrics.render({"rules": 3})) == {"sessiond_up": "1", "sessiond_rules": "3"}


def test_labels_are_escaped() -> None:
    """A path may contain characters that are special in the format."""
    text = metrics.render({"outputs": {'file:/a"\\\n}': {"queued": 1}}})
    assert 'sessiond_output_queued_lines{output="file:/a\\"\\\\\\n}"} 1' in text.splitlines()


def test_promtool_accepts_it() -> None:
    """Prometheus's own checker accepts format, names, types and units."""
    for document in (DOCUMENT, None):
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=metrics.render(document),
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(DOCUMENT)), _VALUES))
def test_whatever_answers_makes_lines_of_the_format(document: dict[str, Any]) -> None:
    """Another version may have other types of values under a name."""
    for line in metrics.render(document).removesuffix("\n").split("\n"):
        assert line.startswith(("# HELP sessiond_", "# TYPE sessiond_", "sessiond_"))
