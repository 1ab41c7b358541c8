"""The ordinary users of this host: accounts of people, according to passwd(5)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from sessiond.text import display

# login.defs(5): accounts of people have this uid or a higher one; 65534 is nobody.
_UID_MIN: Final = 1000
_NOBODY: Final = 65_534
_MAX_USERS: Final = 10_000


class OrdinaryUser(NamedTuple):
    """A user: uid, name, and the user's groups (gid, name).

    ``subordinate`` are the ids that newuidmap(1) and newgidmap(1) let the user take: the first of
    each range, and their number.
    """

    uid: int
    name: str
    groups: tuple[tuple[int, str], ...] = ()
    subordinate: tuple[tuple[int, int], ...] = ()


def ordinary_users(root: Path = Path("/etc")) -> list[OrdinaryUser]:
    """Read the ordinary users from passwd, group, subuid, subgid and login.defs below ``root``.

    It does not include users from a directory service. Unreadable files count as empty.
    """
    least = _least_uid(_read(root / "login.defs"))
    groups: dict[int, str] = {}
    members: dict[str, list[tuple[int, str]]] = {}
    for fields in _entries(root / "group", 4):
        gid, name = int(fields[2]), display(fields[0])
        groups.setdefault(gid, name)
        for member in fields[3].split(b","):
            members.setdefault(display(member), []).append((gid, name))
    ranges: dict[str, list[tuple[int, int]]] = {}
    for file in ("subuid", "subgid"):
        for fields in _entries(root / file, 3):
            if fields[1].isdigit():
                first = int(fields[1])
                ranges.setdefault(display(fields[0]), []).append((first, int(fields[2])))
    users: list[OrdinaryUser] = []
    for fields in _entries(root / "passwd", 7):
        if not fields[3].isdigit():
            continue
        uid, gid, name = int(fields[2]), int(fields[3]), display(fields[0])
        if uid >= least and uid != _NOBODY:
            primary = (gid, groups.get(gid, str(gid)))
            own = (*ranges.get(name, ()), *ranges.get(str(uid), ()))
            users.append(OrdinaryUser(uid, name, (primary, *members.get(name, ())), own))
    return users[:_MAX_USERS]


def _entries(path: Path, fields: int) -> list[list[bytes]]:
    """Return the lines of passwd(5) and the like with that many fields, the third a number."""
    lines = [line.split(b":") for line in _read(path).split(b"\n")]
    return [line for line in lines if len(line) == fields and line[2].isdigit()]


def _least_uid(text: bytes) -> int:
    found = re.search(rb"^\s*UID_MIN\s+([0-9]{1,10})\s*$", text, re.MULTILINE)
    return int(found[1]) if found else _UID_MIN


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
