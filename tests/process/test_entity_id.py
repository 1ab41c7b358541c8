"""Entity ids: opaque, stable, unique."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from sessiond.process.entity_id import entity_id, identifier

MACHINE = "3d1219c7c4c5404aaa1f6d2a48adfda4"
BOOT = "2027b659-f0c3-42f0-9138-b2eae5a16b06"

pids = st.integers(min_value=1, max_value=2**22)
starts = st.integers(min_value=0, max_value=2**62)
processes = st.tuples(pids, starts)


def test_the_id_of_a_process_never_changes_between_versions() -> None:
    """Events of different versions must match: the value itself is part of the contract."""
    assert entity_id(MACHINE, BOOT, 4711, 3_614_970_123_456) == "NQrsDXc1S7akl7qBrbbA8gDe"


@given(processes)
def test_an_id_is_short_and_safe_in_a_url(process: tuple[int, int]) -> None:
    """At most 64 characters, none of which needs quoting."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{24}", entity_id(MACHINE, BOOT, *process))


@given(processes, processes)
def test_two_processes_have_two_ids_and_one_process_has_one(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    """Ids are equal exactly when pid and start are."""
    identify = identifier(MACHINE, BOOT)
    assert (identify(*one) == identify(*other)) == (one == other)


def test_a_pid_reused_a_nanosecond_later_is_another_process() -> None:
    """The start counts with the kernel's full resolution."""
    identify = identifier(MACHINE, BOOT)
    assert identify(4711, 1_000_000_000) != identify(4711, 1_000_000_001)


def test_a_million_ids_differ() -> None:
    """Neighbouring pids and starts have different ids."""
    identify = identifier(MACHINE, BOOT)
    ids = {identify(pid, start) for pid in range(1000) for start in range(1000)}
    assert len(ids) == 1_000_000


def test_another_boot_or_machine_gives_other_ids() -> None:
    """Two boots can have the same pid at the same time after boot."""
    ids = {
        entity_id(machine, boot, 1, 0)
        for machine, boot in ((MACHINE, BOOT), (MACHINE, "other"), ("other", BOOT), ("", BOOT))
    }
    assert len(ids) == 4


def test_machine_and_boot_id_cannot_run_into_each_other() -> None:
    """The boundary between the two is part of the hash."""
    assert entity_id("ab", "c", 1, 0) != entity_id("a", "bc", 1, 0)
