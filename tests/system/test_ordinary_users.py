"""Ordinary users according to the files of a host."""

from __future__ import annotations

from pathlib import Path

from sessiond.system.ordinary_users import OrdinaryUser, ordinary_users


def test_people_are_distinguished_from_services(tmp_path: Path) -> None:
    """Ordinary users follow login.defs, with their groups; the user nobody does not count."""
    (tmp_path / "passwd").write_text(
        "root:x:0:0::/:/bin/sh\nzabbix:x:110:110::/:/bin/false\nalice:x:1000:1000::/:/bin/sh\n"
        "bob:x:500:100::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\nbad\n"
    )
    (tmp_path / "group").write_text("users:x:100:\nalice:x:1000:\ndocker:x:998:alice,bob\n")
    assert ordinary_users(tmp_path) == [
        OrdinaryUser(1000, "alice", ((1000, "alice"), (998, "docker")))
    ]
    (tmp_path / "login.defs").write_text("# UID_MIN 1\nUID_MIN\t\t  500\n")
    assert [each.name for each in ordinary_users(tmp_path)] == ["alice", "bob"]
    assert ordinary_users(tmp_path)[1].groups == ((100, "users"), (998, "docker"))


def test_subordinate_ids_are_a_users_own(tmp_path: Path) -> None:
    """By name or by number; what is no range is skipped."""
    (tmp_path / "passwd").write_text("alice:x:1000:1000::/:/bin/sh\nbob:x:1001:5::/:/bin/sh\n")
    (tmp_path / "subuid").write_text("alice:100000:65536\n1001:200000:10\nbob:x:y\n")
    (tmp_path / "subgid").write_text("alice:300000:65536\n")
    alice, bob = ordinary_users(tmp_path)
    assert alice.subordinate == ((100_000, 65_536), (300_000, 65_536))
    assert bob.subordinate == ((200_000, 10),)


def test_without_files_there_are_no_users(tmp_path: Path) -> None:
    """No error occurs."""
    assert ordinary_users(tmp_path) == []
