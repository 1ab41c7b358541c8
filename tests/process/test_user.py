"""Who is responsible for a process."""

from __future__ import annotations

from typing import Any

import pytest
from support.scripted import Host

from sessiond.process.user import User, user_of
from sessiond.units import UNSET_ID

HOST_USERS = 0xEFFFFFFD
MALLORY = User(1001, 1001, None)

POD = "0123456789abcdef" * 4
DOCKER = f"/system.slice/docker-{POD}.scope".encode()
ROOTLESS = f"/user.slice/user-1001.slice/user@1001.service/user.slice/docker-{POD}.scope".encode()


@pytest.mark.parametrize(
    ("facts", "cgroup", "expected"),
    [
        ({"loginuid": 1001, "uid": 1001}, b"/", MALLORY),
        # A set-user-id program has its caller's real user.
        ({"loginuid": 1001, "uid": 1001, "euid": 0}, b"/", MALLORY),
        ({"loginuid": 1001, "uid": 0}, b"/", User(1001, 0, None)),
        ({"loginuid": UNSET_ID, "uid": 33}, b"/system.slice/web.service", User(None, 33, None)),
        # Within a user namespace one user may have many ids.
        ({"loginuid": 1001, "uid": 100_007, "user_namespace": 5}, None, User(1001, None, None)),
        ({"loginuid": UNSET_ID, "uid": 0}, DOCKER, User(None, 0, POD)),
        # Who is logged in can choose the names of control groups.
        ({"loginuid": 1001, "uid": 1001}, DOCKER, MALLORY),
        ({"loginuid": UNSET_ID, "uid": 1001}, ROOTLESS, User(None, 1001, None)),
    ],
)
def test_a_user_is_who_can_not_be_chosen(
    facts: dict[str, int], cgroup: bytes | None, expected: User
) -> None:
    """No process can spread its lines over many users, or become another one."""
    given: dict[str, Any] = {"user_namespace": HOST_USERS} | facts
    assert user_of(Host().shell.facts._replace(**given), cgroup) == expected
