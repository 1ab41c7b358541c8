"""Which unit of systemd a process is in, told by the path of its cgroup, as journald tells it.

systemd gives each unit a cgroup and writes the unit's name into the path (systemd.unit(5),
src/basic/cgroup-util.c). What lies above and at the system's unit was made by pid 1; below
``user@UID.service`` the user makes and names the cgroups, so ``user_unit`` is that user's word.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sessiond.text import display

# systemd.unit(5): the characters of a unit's name, and its types that have processes or slices.
_UNIT: Final = re.compile(rb"[A-Za-z0-9:_.\\@-]{1,240}\.(?:service|scope|socket|mount|swap)")
_SLICE: Final = re.compile(rb"(?:-|[A-Za-z0-9:_.\\@]+(?:-[A-Za-z0-9:_.\\@]+)*)\.slice")
_USER_SLICE: Final = re.compile(rb"user-([0-9]{1,10})\.slice")
_USER_MANAGER: Final = re.compile(rb"user@[0-9]{1,10}\.service")
_SESSION: Final = re.compile(rb"session-([A-Za-z0-9]+)\.scope")


class SystemdUnit(NamedTuple):
    """Where in systemd's tree a cgroup lies; what the path does not tell is None.

    ``unit`` is the system's unit, ``user_unit`` the one below it that a user's own manager made.
    ``slice`` is the innermost slice around the unit, ``session`` the id of logind's session,
    ``owner_uid`` the user of a slice ``user-UID.slice``.
    """

    unit: str | None
    user_unit: str | None
    slice: str | None
    session: str | None
    owner_uid: int | None

    def fields(self) -> dict[str, Any]:
        """Give the members of the object ``systemd``, as Filebeat has them."""
        return {name: value for name, value in self._asdict().items() if value is not None}


# A host has far fewer cgroups in use than processes.
@lru_cache(maxsize=1024)
def identify(path: bytes) -> SystemdUnit | None:
    """Tell where a cgroup's path (from the hierarchy's root) lies; None outside of systemd's tree.

    A name with a leading ``_`` is one that systemd escaped, as it would be an attribute's file.
    """
    parts = [part.removeprefix(b"_") for part in path.split(b"/") if part]
    slices, rest = _split_slices(parts)
    unit = rest[0] if rest and _UNIT.fullmatch(rest[0]) else None
    if unit is None and not slices:
        return None
    # Where a unit lies in no slice, that is the root slice: init.scope.
    slice_ = slices[-1] if slices else b"-.slice"
    owner = _USER_SLICE.fullmatch(slice_)
    uid = int(owner[1]) if owner else None
    session = _SESSION.fullmatch(unit) if unit is not None else None
    user_unit = None
    if unit is not None and (_USER_MANAGER.fullmatch(unit) or session):
        below = _split_slices(rest[1:])[1]
        user_unit = below[0] if below and _UNIT.fullmatch(below[0]) else None
    return SystemdUnit(
        None if unit is None else display(unit),
        None if user_unit is None else display(user_unit),
        display(slice_),
        None if session is None else session[1].decode(),
        uid if uid is not None and uid < 2**32 - 1 else None,
    )


def _split_slices(parts: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Split the leading slices off the parts of a path."""
    count = 0
    while count < len(parts) and _SLICE.fullmatch(parts[count]):
        count += 1
    return parts[:count], parts[count:]
