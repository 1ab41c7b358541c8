"""The account of what went through, and of what was lost on the way. Pure: time is an argument.

Hops, in the order of the flow: ``kernel`` (records that never left it), ``socket`` (records that
the receive buffer of a multicast listener had no room for), ``record`` (records that could not be
read), ``tracer`` (process events that the ring had no room for), ``output`` (lines).

The kernel's own count is of records that it could not begin or keep. An event whose first record
finds no room counts as one: its other records are not even tried (kernel/auditsc.c,
audit_log_exit).
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, NamedTuple

# How often, in ns, one hop's losses are told at the most.
INTERVAL: Final = 1_000_000_000

# What each hop loses.
# The hop of a time in which nobody listened: what was lost then can't be counted.
GAP: Final = "gap"
UNITS: Final = {
    GAP: "events",
    "kernel": "records",
    "socket": "records",
    "record": "records",
    "tracer": "events",
    "output": "lines",
}


class Loss(NamedTuple):
    """``number`` were lost at ``hop``, each at some time between ``since`` and ``until``.

    The times are ns since boot. ``kinds`` says how many of which kind, where the hop knows kinds.
    """

    hop: str
    number: int
    reason: str
    since: int
    until: int
    kinds: dict[str, int]

    @property
    def unit(self) -> str:
        """What was lost: records, events or lines."""
        return UNITS[self.hop]


class Losses:
    """Counts what is lost, and gathers it so that each hop tells of it at most once an INTERVAL.

    What is not told, or whose line may still be lost with this process, is ``uncertain``.
    """

    def __init__(self) -> None:
        """Start with nothing lost."""
        self.totals: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self._untold: dict[str, Loss] = {}
        self._told: dict[str, int] = {}
        self._unconfirmed: list[Loss] = []

    def note(
        self, hop: str, number: int, reason: str, *, since: int, until: int, kind: str = ""
    ) -> None:
        """Count a loss; reason and window are joined with what is not told yet of this hop."""
        self.totals[hop] += number
        if kind:
            self.kinds[kind] += number
        before = self._untold.get(hop)
        if before is None:
            kinds = {kind: number} if kind else {}
            self._untold[hop] = Loss(hop, number, reason, since, until, kinds)
            return
        kinds = dict(before.kinds)
        if kind:
            kinds[kind] = kinds.get(kind, 0) + number
        if reason not in before.reason.split("; "):
            reason = f"{before.reason}; {reason}"
        else:
            reason = before.reason
        self._untold[hop] = Loss(
            hop,
            before.number + number,
            reason,
            min(before.since, since),
            max(before.until, until),
            kinds,
        )

    @property
    def uncertain(self) -> list[Loss]:
        """What a later run would have to tell if this one ended now."""
        return [*self._unconfirmed, *self._untold.values()]

    def tell(self, loss: Loss) -> None:
        """Count a loss that is told at once, and not with others of its hop."""
        self.totals[loss.hop] += loss.number
        self.kinds.update(loss.kinds)
        self._unconfirmed.append(loss)

    def confirm(self) -> None:
        """Take in that every line that was made is written."""
        self._unconfirmed.clear()

    def due(self, now: int) -> list[Loss]:
        """Return, and forget, what may be told at ``now``."""
        if not self._untold:
            return []
        hops = [hop for hop in self._untold if self._told.get(hop, -INTERVAL) + INTERVAL <= now]
        for hop in hops:
            self._told[hop] = now
        told = [self._untold.pop(hop) for hop in hops]
        self._unconfirmed += told
        return told

    def flush(self) -> list[Loss]:
        """Return, and forget, all that is not told yet: the end has come."""
        losses = list(self._untold.values())
        self._unconfirmed += losses
        self._untold.clear()
        return losses


def account(received: int, **places: int) -> dict[str, Any]:
    """Make the account of one hop: what came in, where it is, and whether the two agree."""
    return {"received": received, **places, "balanced": received == sum(places.values())}


def balanced(statement: dict[str, Any]) -> bool:
    """Tell whether every account in a statement, and in the statements in it, is balanced."""
    return all(
        balanced(value) if isinstance(value, dict) else value
        for name, value in statement.items()
        if name == "balanced" or isinstance(value, dict)
    )
