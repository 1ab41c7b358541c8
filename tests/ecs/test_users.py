"""Users: ids always, names if known, no field for absent values."""

from __future__ import annotations

from typing import Any

from support.auditlog import FixedNames

from sessiond.ecs.audit_fields import EventFields
from sessiond.ecs.users import Users, selinux


def parts(**fields: str) -> EventFields:
    """Return the parts of a record by the user ann; ``fields`` replace or add some."""
    made = EventFields()
    ids = dict.fromkeys("uid gid auid euid suid fsuid egid sgid fsgid".split(), "4242") | fields
    made.main = {name: value.encode() for name, value in ids.items()}
    return made


def user(**fields: str) -> dict[str, Any]:
    """Return the ``user`` of such a record."""
    return Users(FixedNames()).user(parts(**fields))


ANN = {"id": "4242", "name": "ann"}


def test_a_user_has_all_its_identities() -> None:
    """Real, audit, saved and filesystem user, each with its group if it has one."""
    assert user() == {
        **ANN,
        "group": ANN,
        "audit": ANN,
        "saved": {**ANN, "group": ANN},
        "filesystem": {**ANN, "group": ANN},
    }


def test_an_unset_login_uid_is_no_user() -> None:
    """4294967295 means unset for the kernel, -1 in some records."""
    assert "audit" not in user(auid="4294967295")
    assert "audit" not in user(auid="-1")


def test_the_effective_user_is_told_when_it_is_another() -> None:
    """A setuid program runs as another user."""
    assert user(euid="0")["effective"] == {"id": "0", "name": "root", "group": ANN}


def test_an_effective_group_of_its_own_is_told_too() -> None:
    """A setgid program has the user's uid, and another gid."""
    assert user(egid="42")["effective"] == {"group": {"id": "42", "name": "shadow"}}


def test_an_unknown_name_leaves_the_id() -> None:
    """The name may be known a second later."""
    assert user(auid="77")["audit"] == {"id": "77"}
    assert Users(None).user(parts())["audit"] == {"id": "4242"}


def test_names_are_asked_again_every_second() -> None:
    """An account can be created, renamed, or resolved late."""

    class Renamed(FixedNames):
        known = False

        def user(self, uid: int) -> str | None:
            return "eve" if self.known else super().user(uid)

    names = Renamed()
    accounts = Users(names)
    accounts.at(1000)
    assert accounts.user(parts())["name"] == "ann"
    names.known = True
    accounts.at(1999)
    assert accounts.user(parts())["name"] == "ann"
    accounts.at(2000)
    assert accounts.user(parts())["name"] == "eve"


def test_what_is_no_id_is_left_out_and_told() -> None:
    """The warning is repeated for every event."""
    accounts = Users(FixedNames())
    for value in ("root", "4294967296", "1_0", "", "0x1"):
        for _ in range(2):
            made = parts(uid=value)
            assert "id" not in accounts.user(made)
            assert bool(made.warnings) == bool(value)


def test_an_inode_has_its_owner_mode_and_type() -> None:
    """The numbers of a PATH record."""
    path = {"inode": "7", "mode": "0104755", "ouid": "0", "ogid": "42", "rdev": "00:00"}
    assert Users(FixedNames()).inode(path, EventFields()) == {
        "inode": "7",
        "mode": "4755",
        "type": "file",
        "uid": "0",
        "owner": "root",
        "gid": "42",
        "group": "shadow",
        "device": "00:00",
    }


def test_a_user_that_a_message_names_has_an_id_where_it_is_known() -> None:
    """The id comes from the message itself, or from the accounts of the host."""
    users, parts = Users(FixedNames()), EventFields()
    assert users.named("ann", None, parts) == {"id": "4242", "name": "ann"}
    assert users.named("bob", "77", parts) == {"id": "77", "name": "bob"}
    assert users.named("bob", None, parts) == {"name": "bob"}
    assert users.named("4242", None, parts) == {"id": "4242", "name": "ann"}
    for odd in ("²", "99999999999", "4294967296"):
        assert users.named(odd, odd, parts) == {"name": odd}
    assert parts.warnings == []


def test_a_label_is_split_where_it_is_selinux() -> None:
    """Labels of other security modules have other formats."""
    assert selinux(b"staff_u:staff_r:staff_t:s0-s15:c0.c1023") == {
        "user": "staff_u",
        "role": "staff_r",
        "domain": "staff_t",
        "level": "s0-s15",
        "category": "c0.c1023",
    }
    for label in (b"unconfined", b"/usr/sbin/cupsd (enforce)", b"a::c", b"", None):
        assert selinux(label) == {}
