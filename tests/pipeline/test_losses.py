"""The account of received and lost units."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sessiond.pipeline.losses import INTERVAL, Loss, Losses, account, balanced


def test_a_loss_is_reported_once_with_its_window() -> None:
    """A noted loss is due at once, with hop, number, unit, reason and window, and only once."""
    losses = Losses()
    losses.note("kernel", 812, "the backlog was full", since=100, until=300)
    (loss,) = losses.due(400)
    assert loss == Loss("kernel", 812, "the backlog was full", 100, 300, {})
    assert loss.unit == "records"
    assert losses.due(400 + INTERVAL) == []


def test_a_hop_reports_once_per_interval() -> None:
    """Losses within the interval are reported as one loss with the combined window."""
    losses = Losses()
    losses.note("tracer", 1, "full", since=0, until=10, kind="fork")
    assert len(losses.due(10)) == 1
    losses.note("tracer", 2, "full", since=20, until=30, kind="fork")
    losses.note("tracer", 3, "full", since=15, until=40, kind="exec")
    losses.note("tracer", 4, "unreadable", since=35, until=38, kind="exec")
    assert losses.due(10 + INTERVAL - 1) == []
    kinds = {"fork": 2, "exec": 7}
    assert losses.due(10 + INTERVAL) == [Loss("tracer", 9, "full; unreadable", 15, 40, kinds)]


def test_hops_do_not_wait_for_each_other() -> None:
    """The report interval of one hop does not delay other hops."""
    losses = Losses()
    losses.note("kernel", 1, "full", since=0, until=1)
    losses.due(1)
    losses.note("output", 1, "full", since=1, until=2)
    assert [loss.hop for loss in losses.due(2)] == ["output"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["kernel", "socket", "tracer"]),
            st.integers(1, 1000),
            st.integers(0, 3 * INTERVAL),
        )
    )
)
def test_reports_add_up_to_the_losses(noted: list[tuple[str, int, int]]) -> None:
    """For any sequence of losses, reports and totals agree, and reports are few."""
    losses = Losses()
    told: list[Loss] = []
    now = 0
    for hop, number, after in noted:
        losses.note(hop, number, "full", since=now, until=now + after)
        now += after
        told += losses.due(now)
    assert len(told) <= 3 * (now // INTERVAL + 1)
    told += losses.flush()
    assert sum(loss.number for loss in told) == losses.totals.total()
    for hop, total in losses.totals.items():
        assert sum(loss.number for loss in told if loss.hop == hop) == total


def test_an_account_is_balanced_when_everything_is_somewhere() -> None:
    """Each received event is in exactly one place."""
    assert account(5, written=3, in_flight=2)["balanced"] is True
    assert account(5, written=3, in_flight=1)["balanced"] is False


def test_one_bad_account_makes_a_statement_unbalanced() -> None:
    """Accounts count at any depth."""
    good, bad = account(1, written=1), account(1, written=0)
    assert balanced({"events": good, "outputs": {"file": good}, "kernel": {"lost": 3}})
    assert not balanced({"events": good, "outputs": {"file": bad}})
