"""The status document: every part is included, and the account of every hop is balanced."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from support.scripted import pipeline as scripted_pipeline

from sessiond import __version__
from sessiond.audit.kernel.client import Counters, KernelAuditStatus
from sessiond.daemon.health import Health
from sessiond.daemon.outputs import OutputSet
from sessiond.daemon.status import Status
from sessiond.sources import Declined


def made(received: int) -> Status:
    """The status of a run that received that many records and processed none."""
    pipeline = scripted_pipeline()
    kernel = KernelAuditStatus(*range(len(KernelAuditStatus.__struct_fields__)))
    client = SimpleNamespace(
        status=lambda: kernel,
        counters=Counters(received=received),
        receive_buffer=1 << 20,
        buffered=0,
        dropped=0,
        kept=0,
    )
    audit = SimpleNamespace(client=client, role="unicast", ours=[b"rule", b"rule"])
    sources = SimpleNamespace(
        source=SimpleNamespace(name="procfs", degraded=("short-lived processes",)),
        declined=[Declined("ebpf", "no BTF", "use a kernel with BTF")],
    )
    monitor = SimpleNamespace(canary=SimpleNamespace(seen=3, failure=None))
    procfs = SimpleNamespace(denied=0, malformed=0, unreadable=0, left_behind=0)
    parts = audit, sources, pipeline, OutputSet(), Health(pipeline), monitor, procfs, 0.0
    return Status(*cast("Any", parts))


def test_the_document_says_which_source_and_why() -> None:
    """Limits and declined sources come with their reasons and fixes."""
    document = made(0).document()
    assert document["source"] == "procfs"
    assert document["source_limits"] == ["short-lived processes"]
    assert document["declined"] == {"ebpf": "no BTF; use a kernel with BTF"}
    assert document["canary"] == {"seen": 3, "failure": None}
    assert document["health"]["state"] == "healthy"


def test_the_summary_is_one_sentence() -> None:
    """The service manager shows it."""
    assert made(0).summary() == "unicast, 2 rules, 0 processes by procfs"


def test_a_record_that_is_nowhere_unbalances_the_ledger() -> None:
    """The socket received the record, and no later hop has it."""
    assert made(0).document()["ledger"]["balanced"]
    ledger = made(1).document()["ledger"]
    assert not ledger["balanced"]
    assert not ledger["socket"]["balanced"]


def test_the_document_says_what_the_daemon_costs() -> None:
    """Metrics use it, because the daemon has no listener."""
    document = made(0).document()
    assert document["version"] == __version__
    assert document["usage"]["cpu_seconds"] > 0
    assert document["usage"]["resident_bytes"] > 2**20
