"""Identifies a process's systemd unit from the path of its cgroup, as journald does.

systemd gives each unit a cgroup whose path contains the unit's name (systemd.unit(5),
src/basic/cgroup-util.c). pid 1 creates the path down to the system unit; below
``user@UID.service`` the user creates and names the cgroups, so ``user_unit`` is the user's claim.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sessiond.text import display

# systemd.unit(5): the characters of unit names, and the unit types with processes or slices.
_UNIT: Final = re.compile(rb"[A-Za-z0-9:_.\\@-]{1,240}\.(?:service|scope|socket|mount|swap)")
_SLICE: Final = re.compile(rb"(?:-|[A-Za-z0-9:_.\\@]+(?:-[A-Za-z0-9:_.\\@]+)*)\.slice")
_USER_SLICE: Final = re.compile(rb"user-([0-9]{1,10})\.slice")
_USER_MANAGER: Final = re.compile(rb"user@[0-9]{1,10}\.service")
_SESSION: Final = re.compile(rb"session-([A-Za-z0-9]+)\.scope")


class SystemdUnit(NamedTuple):
    """The place of a cgroup in systemd's tree; members that the path does not contain are None.

    ``unit`` is the system unit, ``user_unit`` a unit of the user's own manager below it.
    ``slice`` is the innermost slice around the unit, ``session`` the id of logind's session,
    ``owner_uid`` the user of a slice ``user-UID.slice``.
    """

    unit: str | None
    user_unit: str | None
    slice: str | None
    session: str | None
    owner_uid: int | None

    def fields(self) -> dict[str, Any]:
        """Return the members of the object ``systemd``, named as in Filebeat."""
        return {name: value for name, value in self._asdict().items() if value is not None}


# A host has far fewer cgroups in use than processes.
@lru_cache(maxsize=1024)
def identify(path: bytes) -> SystemdUnit | None:
    """Return the unit of a cgroup's path (from the hierarchy's root); None outside systemd's tree.

    systemd prepends ``_`` to names that would collide with a cgroup attribute file.
    """
    parts = [part.removeprefix(b"_") for part in path.split(b"/") if part]
    slices, rest = _split_slices(parts)
    unit = rest[0] if rest and _UNIT.fullmatch(rest[0]) else None
    if unit is None and not slices:
        return None
    # A unit outside any slice is in the root slice: init.scope.
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
