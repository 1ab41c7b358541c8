"""The ledger of losses. Pure: time is an argument.

The hops, in the order of the flow: ``kernel`` (records that never left it), ``socket`` (records for
which the receive buffer of a multicast listener had no room), ``record`` (malformed records),
``tracer`` (process events for which the ring had no room), ``output`` (lines).

The kernel counts records that it could not create or queue. If there is no room for the first
record of an event, it counts one loss and skips the other records (kernel/auditsc.c,
audit_log_exit).
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, NamedTuple

# Minimum time in ns between two reports of one hop's losses.
INTERVAL: Final = 1_000_000_000

# The hop of a time in which no daemon ran: its losses can't be counted.
GAP: Final = "gap"
# The unit of each hop.
UNITS: Final = {
    GAP: "events",
    "kernel": "records",
    "socket": "records",
    "record": "records",
    "tracer": "events",
    "output": "lines",
}


class Loss(NamedTuple):
    """A loss of ``number`` units at ``hop``, between ``since`` and ``until``.

    The times are ns since boot. ``kinds`` has the numbers by kind, if the hop knows kinds.
    """

    hop: str
    number: int
    reason: str
    since: int
    until: int
    kinds: dict[str, int]

    @property
    def unit(self) -> str:
        """The unit of the loss: records, events or lines."""
        return UNITS[self.hop]


class Losses:
    """Counts losses, and combines them so that each hop reports at most once per INTERVAL.

    Losses that are not written, or whose lines may be lost with this process, are ``uncertain``.
    """

    def __init__(self) -> None:
        """Start without losses."""
        self.totals: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self._pending: dict[str, Loss] = {}
        self._reported_at: dict[str, int] = {}
        self._unconfirmed: list[Loss] = []

    def note(
        self, hop: str, number: int, reason: str, *, since: int, until: int, kind: str = ""
    ) -> None:
        """Count a loss; reason and window are merged with the hop's pending loss."""
        self.totals[hop] += number
        if kind:
            self.kinds[kind] += number
        before = self._pending.get(hop)
        if before is None:
            kinds = {kind: number} if kind else {}
            self._pending[hop] = Loss(hop, number, reason, since, until, kinds)
            return
        kinds = dict(before.kinds)
        if kind:
            kinds[kind] = kinds.get(kind, 0) + number
        if reason not in before.reason.split("; "):
            reason = f"{before.reason}; {reason}"
        else:
            reason = before.reason
        self._pending[hop] = Loss(
            hop,
            before.number + number,
            reason,
            min(before.since, since),
            max(before.until, until),
            kinds,
        )

    @property
    def uncertain(self) -> list[Loss]:
        """The losses that the next run would have to write if this one ended now."""
        return [*self._unconfirmed, *self._pending.values()]

    def report(self, loss: Loss) -> None:
        """Count a loss that is written at once, and not merged with others of its hop."""
        self.totals[loss.hop] += loss.number
        self.kinds.update(loss.kinds)
        self._unconfirmed.append(loss)

    def confirm(self) -> None:
        """Note that all lines made so far are written."""
        self._unconfirmed.clear()

    def due(self, now: int) -> list[Loss]:
        """Remove and return the losses that are due at ``now``."""
        if not self._pending:
            return []
        hops = [
            hop for hop in self._pending if self._reported_at.get(hop, -INTERVAL) + INTERVAL <= now
        ]
        for hop in hops:
            self._reported_at[hop] = now
        due = [self._pending.pop(hop) for hop in hops]
        self._unconfirmed += due
        return due

    def flush(self) -> list[Loss]:
        """Remove and return all pending losses, at the end."""
        losses = list(self._pending.values())
        self._unconfirmed += losses
        self._pending.clear()
        return losses


def account(received: int, **places: int) -> dict[str, Any]:
    """Return the ledger of one hop: the number received, the places, and whether it balances."""
    return {"received": received, **places, "balanced": received == sum(places.values())}


def balanced(statement: dict[str, Any]) -> bool:
    """Return whether every ledger in a statement, also nested ones, is balanced."""
    return all(
        balanced(value) if isinstance(value, dict) else value
        for name, value in statement.items()
        if name == "balanced" or isinstance(value, dict)
    )
