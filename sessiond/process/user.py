"""Who is responsible for a process, so that no user can pass for many, or for another. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from sessiond.process.container import identify
from sessiond.process.events import Facts
from sessiond.units import UNSET_ID

# Inode number of the host's user namespace (linux/proc_ns.h, PROC_USER_INIT_INO).
_HOST_USERS: Final = 0xEFFFFFFD


class User(NamedTuple):
    """Who is responsible for a process: by values that an ordinary user can't choose freely.

    ``login`` is the login user, None without a login. ``uid`` is the real user, so that a flood of
    set-user-id programs is its caller's; None in another user namespace, where one user may have
    65,536. ``container`` is the id of a container without a login.
    """

    login: int | None
    uid: int | None
    container: str | None


def user_of(facts: Facts, cgroup: bytes | None) -> User:
    """Return who is responsible for a process in the control group with the path ``cgroup``."""
    login = None if facts.loginuid in (None, UNSET_ID) else facts.loginuid
    uid = facts.uid if facts.user_namespace in (None, _HOST_USERS) else None
    found = identify(cgroup) if login is None and cgroup is not None else None
    # Of a rootless container the user chooses the id.
    return User(login, uid, None if found is None or found.rootless else found.id)
