"""systemd units by the path of a cgroup, named as in journald."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.process.systemd_unit import identify


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/system.slice/ssh.service", {"unit": "ssh.service", "slice": "system.slice"}),
        ("/init.scope", {"unit": "init.scope", "slice": "-.slice"}),
        (
            "/user.slice/user-1000.slice/session-c2.scope",
            {
                "unit": "session-c2.scope",
                "slice": "user-1000.slice",
                "session": "c2",
                "owner_uid": 1000,
            },
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-7.scope/tab",
            {
                "unit": "user@1000.service",
                "user_unit": "app-firefox-7.scope",
                "slice": "user-1000.slice",
                "owner_uid": 1000,
            },
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            {
                "unit": "user@1000.service",
                "user_unit": "init.scope",
                "slice": "user-1000.slice",
                "owner_uid": 1000,
            },
        ),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            {"unit": "getty@tty1.service", "slice": "system-getty.slice"},
        ),
        (
            "/machine.slice/machine-web\\x2d1.scope/payload/system.slice/nginx.service",
            {"unit": "machine-web\\x2d1.scope", "slice": "machine.slice"},
        ),
        (
            "/system.slice/docker-" + "ab" * 32 + ".scope",
            {"unit": "docker-" + "ab" * 32 + ".scope", "slice": "system.slice"},
        ),
        ("/system.slice", {"slice": "system.slice"}),
    ],
)
def test_a_path_names_its_unit(path: str, fields: dict[str, object]) -> None:
    """The system's unit is the first one below the slices; a user's unit is below it."""
    found = identify(path.encode())
    assert found is not None
    assert found.fields() == fields


@pytest.mark.parametrize(
    "path", ["", "/", "/docker/" + "ab" * 32, "/kubepods/pod1", "/a b.service", "/.slice", "/x"]
)
def test_what_systemd_did_not_make_is_in_no_unit(path: str) -> None:
    """No unit is guessed."""
    assert identify(path.encode()) is None


def test_a_user_cannot_name_a_system_unit() -> None:
    """A cgroup below the user's manager is a user unit, whatever its name is."""
    made = identify(b"/user.slice/user-7.slice/user@7.service/system.slice/backup.service")
    assert made is not None
    assert (made.unit, made.user_unit) == ("user@7.service", "backup.service")


@given(st.binary(max_size=200) | st.lists(st.sampled_from([b"/", b"user@1.service", b"a.slice"])))
def test_any_path_is_read(path: bytes | list[bytes]) -> None:
    """Names of cgroups are any bytes; no member is empty."""
    found = identify(path if isinstance(path, bytes) else b"/".join(path))
    if found is not None:
        assert "" not in found.fields().values()
