"""The users, groups and labels of a record as ECS objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sessiond.ecs import decoders
from sessiond.ecs.audit_fields import CACHE_LIMIT, UNSET, EventFields, integer
from sessiond.ecs.process import NameLookup
from sessiond.text import display

# The ids of the acting process, in the order of Users._new_user.
_IDS: Final = tuple("uid gid auid euid egid suid sgid fsuid fsgid subj".split())
# The fields of a PATH record that describe the inode, in the order of Users._new_inode. rdev is the
# device that the inode represents, not the one that it is stored on.
_INODE: Final = ("inode", "mode", "ouid", "ogid", "rdev", "obj")


class Users:
    """Builds ``user`` and the owner members of ``file``, with names if they resolve."""

    def __init__(self, names: NameLookup | None) -> None:
        """Take the source of names; None omits names."""
        self._names = names
        # Objects with names are rebuilt for every second of the events, because names change.
        self._second = -1
        self._users: dict[tuple[bytes | None, ...], dict[str, Any]] = {}
        self._files: dict[tuple[str | None, ...], dict[str, Any]] = {}

    def at(self, time: int) -> None:
        """Drop objects built for another second than that of ``time``, in ms."""
        if time // 1000 != self._second:
            self._second = time // 1000
            self.forget()

    def forget(self) -> None:
        """Drop all built objects, because names may have changed."""
        self._users.clear()
        self._files.clear()

    def account(
        self, raw: bytes | None, parts: EventFields, *, group: bool = False
    ) -> dict[str, Any]:
        """Return ``id`` and ``name`` of a user or a group; {} if it is unset or not a number."""
        if raw is None or raw in UNSET:
            return {}
        number = integer(raw)
        if number is None or number >> 32:
            parts.warnings.append(f"{display(raw[:40])} is no {'gid' if group else 'uid'}")
            return {}
        account = {"id": str(number)}
        if self._names is not None:
            name = self._names.group(number) if group else self._names.user(number)
            if name:
                account["name"] = name
        return account

    def named(self, name: str, number: str | None, parts: EventFields) -> dict[str, Any]:
        """Return ``id`` and ``name`` of the user ``name`` in a message, or of its number.

        ``number`` is the id that the same message has for it, if it has one.
        """
        if _is_id(name):
            return self.account(name.encode(), parts)
        account = {"id": number} if number and _is_id(number) else {}
        if not account and self._names is not None:
            found = self._names.user_id(name)
            if found is not None:
                account = {"id": str(found)}
        return {**account, "name": name}

    def user(self, parts: EventFields) -> dict[str, Any]:
        """Return ``user``, shared by all events with the same ids in the same second."""
        key = tuple(map(parts.main.get, _IDS))
        user = self._users.get(key)
        if user is None:
            user = self._new_user(key, parts)
            if not parts.warnings and len(self._users) < CACHE_LIMIT:
                self._users[key] = user
        return user

    def _new_user(self, ids: tuple[bytes | None, ...], parts: EventFields) -> dict[str, Any]:
        uid, gid, auid, euid, egid, suid, sgid, fsuid, fsgid, subject = ids
        user = self.account(uid, parts)
        effective = self.account(euid, parts) if euid != uid else {}
        saved = self.account(suid, parts)
        filesystem = self.account(fsuid, parts)
        for owner, group in (
            (user, gid),
            (effective, egid if euid != uid or egid != gid else None),
            (saved, sgid),
            (filesystem, fsgid),
        ):
            found = self.account(group, parts, group=True)
            if found:
                owner["group"] = found
        for name, value in (
            ("audit", self.account(auid, parts)),
            ("effective", effective),
            ("saved", saved),
            ("filesystem", filesystem),
            ("selinux", selinux(subject)),
        ):
            if value:
                user[name] = value
        return user

    def inode(self, path: Mapping[str, str], parts: EventFields) -> dict[str, Any]:
        """Return the inode's members of ``file``, shared by all events of the same second."""
        key = tuple(map(path.get, _INODE))
        file = self._files.get(key)
        if file is None:
            file = self._new_inode(key, parts)
            if not parts.warnings and len(self._files) < CACHE_LIMIT:
                self._files[key] = file
        return file

    def _new_inode(self, inode: tuple[str | None, ...], parts: EventFields) -> dict[str, Any]:
        number, mode_text, owner, group, device, label = inode
        file: dict[str, Any] = {}
        if number:
            file["inode"] = number
        if device:
            file["device"] = device
        mode = integer(mode_text.encode(), 8) if mode_text else None
        if mode is not None:
            file["mode"] = decoders.octal_mode(mode)
            kind = decoders.file_type(mode)
            if kind:
                file["type"] = kind
        for raw, member, word in ((owner, "uid", "owner"), (group, "gid", "group")):
            account = self.account(raw.encode(), parts, group=word == "group") if raw else {}
            if account:
                file[member] = account["id"]
                if "name" in account:
                    file[word] = account["name"]
        security = selinux(label.encode()) if label else {}
        if security:
            file["selinux"] = security
        return file


def _is_id(text: str) -> bool:
    """Return whether a text is a uid in ASCII digits."""
    return text.isascii() and text.isdigit() and len(text) <= 10 and not int(text) >> 32


def selinux(label: bytes | None) -> dict[str, str]:
    """Split a label user:role:domain:level:category; {} if it is not SELinux's."""
    words = display(label).split(":", 4) if label else []
    if len(words) < 3 or not all(words):
        return {}
    return dict(zip(("user", "role", "domain", "level", "category"), words, strict=False))
