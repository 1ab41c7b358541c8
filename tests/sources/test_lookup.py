"""Data of procfs that completes the kernel's snapshot."""

from __future__ import annotations

from sessiond.process.events import Facts, Observed, Program
from sessiond.sources.lookup import filled_up, hidden_parents, with_start
from sessiond.units import TICK

START = 1234 * TICK + 567
FACTS = Facts(50, START, 1, 3 * TICK + 9, *[0] * 22)  # type: ignore[arg-type]
LISTED = Observed(1, FACTS, Program(b"x", b"/x", None, None), b"/", None)


def seen(facts: Facts) -> Observed:
    """Return a process of procfs: a start in ticks, and arguments."""
    facts = facts._replace(start=facts.start // TICK * TICK)
    return Observed(2, facts, Program(b"y", b"/y", b"y\0", 2), b"/y", b"/cgroup", (4,), b"from")


def test_arguments_come_from_procfs() -> None:
    """Only data that the kernel lacks is taken; the start stays exact."""
    filled = filled_up(LISTED, seen(FACTS))
    assert filled.facts == FACTS
    assert filled.program == Program(b"x", b"/x", b"y\0", 2)
    assert (filled.working_directory, filled.cgroup) == (b"/", b"/cgroup")
    assert (filled.supplementary_groups, filled.connection) == ((4,), b"from")


def test_nothing_comes_from_another_process() -> None:
    """A process with another start is another process."""
    assert filled_up(LISTED, seen(FACTS._replace(start=START + TICK))) == LISTED
    assert filled_up(LISTED, None) == LISTED


def test_a_hidden_parent_has_the_start_that_its_child_knows() -> None:
    """A parent that the kernel's snapshot lacks comes from procfs, with an exact start."""
    assert hidden_parents([LISTED, LISTED._replace(time=3)]) == {1: 3 * TICK + 9}
    parent = seen(FACTS._replace(pid=1, start=3 * TICK))
    assert with_start(parent, 3 * TICK + 9) == parent._replace(
        facts=parent.facts._replace(start=3 * TICK + 9)
    )


def test_a_parent_that_the_kernel_listed_is_not_hidden() -> None:
    """No parent is returned twice."""
    parent = LISTED._replace(facts=FACTS._replace(pid=1, ppid=0, parent_start=None))
    assert hidden_parents([LISTED, parent]) == {}


def test_a_later_process_with_the_pid_is_no_parent() -> None:
    """The start in the child tells them apart."""
    later = seen(FACTS._replace(pid=1, start=9 * TICK))
    assert with_start(later, 3 * TICK + 9) is None
