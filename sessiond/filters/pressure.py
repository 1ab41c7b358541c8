"""Chooses what to fold while lines come faster than they can be written. Pure.

Without it one user's flood fills queues, spool and ring, and the lines of all users are lost. So
the repeated events of the user with the most lines are counted instead of written, and those of no
other user.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from sessiond.filters.saved import Kind
from sessiond.process.table import Verdict
from sessiond.process.user import User

# The decision about a process that is folded. Its name is in sessiond.filter.name.
UNDER_PRESSURE: Final = Verdict("under-pressure", "fold")
# A user with fewer lines a second is never folded (the sum of a steady rate is twice the rate).
MIN_LINES: Final = 100
# So many events of a kind are written before the next ones count as repeated.
WRITTEN: Final = 10
# Distinct kinds of one user; later ones count as one kind, so that new names are no way out.
MAX_PROGRAMS: Final = 256
MAX_USERS: Final = 1024


class Level(IntEnum):
    """How full the buffers are: below LOW, between the limits, or above HIGH for a while."""

    CALM = 0
    RISING = 1
    PRESSED = 2


class Pressure:
    """Counts lines by user while lines wait, and says which events to fold.

    ``counts`` says whether to count lines; ``noisiest`` is the user whose events are folded.
    """

    def __init__(self) -> None:
        """Start without pressure."""
        self.counts = False
        self.noisiest: User | None = None
        self._lines: dict[User, int] = {}
        self._seen: dict[Kind, int] = {}

    def press(self, level: Level) -> None:
        """Choose the noisiest user if the level is PRESSED; call it once a second.

        Lines count half as much with each call. Another user is chosen only with twice the lines.
        """
        self.counts = level > Level.CALM
        lines = self._lines
        if level < Level.PRESSED:
            self.noisiest = None
            self._seen.clear()
        elif lines:
            top = max(lines, key=lines.__getitem__)
            if lines[top] < MIN_LINES:
                self.noisiest = None
            elif self.noisiest is None or lines[top] > 2 * lines.get(self.noisiest, 0):
                self.noisiest = top
                self._seen.clear()
        lines = {} if level == Level.CALM else lines
        self._lines = {user: number // 2 for user, number in lines.items() if number > 1}

    def offer(self, user: User) -> bool:
        """Count a line of a user, written or not; return whether its repetitions are folded."""
        if user in self._lines or len(self._lines) < MAX_USERS:
            self._lines[user] = self._lines.get(user, 0) + 1
        return user == self.noisiest

    def repeats(self, kind: Kind) -> bool:
        """Count an event of the noisiest user; return whether enough of its kind are written."""
        kind = self.shown(kind, new=True)
        number = self._seen[kind] = self._seen.get(kind, 0) + 1
        return number > WRITTEN

    def shown(self, kind: Kind, *, new: bool = False) -> Kind:
        """Return the kind of a folded event's line: without the program if there are too many."""
        kind = kind._replace(entry=None, code="")
        if kind in self._seen or (new and len(self._seen) < MAX_PROGRAMS):
            return kind
        return kind._replace(executable=None, parent=None)
