"""Names of users and groups: returned at once or later, without blocking."""

from __future__ import annotations

import os
import pwd
import threading
import time
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.system.account_names import AccountNames, NoAccountNames, parse

PASSWD = "root:x:0:0:root:/root:/bin/bash\neve:x:1000:1000:Eve,,,:/home/eve:/bin/bash\n"
GROUP = "root:x:0:\nusers:x:100:eve\n"


class Service:
    """A name service with some accounts, which can hang, and counts its queries."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.asked: list[int] = []
        self.error: type[Exception] = KeyError
        self.works = threading.Event()
        self.works.set()

    def __call__(self, number: int) -> str:
        """Answer like getpwuid(3)."""
        self.works.wait()
        self.asked.append(number)
        if number not in self.names:
            raise self.error(number)
        return self.names[number]


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.works.set()


@pytest.fixture
def names(tmp_path: Path, service: Service) -> Iterator[AccountNames]:
    (tmp_path / "passwd").write_text(PASSWD)
    (tmp_path / "group").write_text(GROUP)
    names = AccountNames(tmp_path, resolve_user=service, resolve_group=service)
    yield names
    names.close()


def settle(condition: Callable[[], bool]) -> None:
    """Wait until the other thread has reached a state."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_users_and_groups_are_those_of_the_files(names: AccountNames, service: Service) -> None:
    """They are returned at once, without a query to the name service."""
    assert names.user(0) == "root"
    assert names.user(1000) == "eve"
    assert names.group(100) == "users"
    assert service.asked == []
    assert names.unknown == 0


def test_a_user_of_the_file_is_found_by_name(names: AccountNames, tmp_path: Path) -> None:
    """The name service is not queried, and a removed user is no longer found."""
    assert (names.user_id("eve"), names.user_id("mallory")) == (1000, None)
    (tmp_path / "passwd").write_text("root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\n")
    names.refresh(2.0)
    assert (names.user_id("eve"), names.user_id("root")) == (None, 0)
    assert NoAccountNames().user_id("root") is None


def test_a_name_from_elsewhere_is_there_once_the_service_has_answered(
    names: AccountNames, service: Service
) -> None:
    """Until then the name is None, and counted."""
    service.names[5000] = "adele"
    service.works.clear()
    assert names.user(5000) is None
    assert names.user(5000) is None
    assert names.unknown == 2
    service.works.set()
    settle(lambda: names.user(5000) == "adele")
    assert service.asked == [5000]


def answered(names: AccountNames, uid: int) -> bool:
    """Return whether the result for a user is an answer of the service."""
    before = names.unknown
    names.user(uid)
    return names.unknown == before


def test_an_unknown_number_is_an_answer_too(names: AccountNames, service: Service) -> None:
    """The service is queried once, not for every event."""
    settle(lambda: answered(names, 5000))
    for _ in range(100):
        assert names.user(5000) is None
    assert service.asked == [5000]
    assert names.failed == 0


def test_an_error_is_counted_and_taken_for_no_name(names: AccountNames, service: Service) -> None:
    """The service is queried again when the answer has expired, not before."""
    service.error = OSError
    settle(lambda: answered(names, 5000))
    assert names.user(5000) is None
    assert names.failed == 1


def test_a_hanging_service_blocks_nothing(names: AccountNames, service: Service) -> None:
    """Ten thousand look-ups of a thousand users: none blocks, and known names stay known."""
    service.works.clear()
    start = time.perf_counter()
    for _ in range(10):
        for uid in range(5000, 6000):
            assert names.user(uid) is None
            assert names.user(0) == "root"
    assert time.perf_counter() - start < 1
    assert names.unknown == 10_000
    assert names.refused > 0


def test_the_questions_that_wait_are_bounded(names: AccountNames, service: Service) -> None:
    """A refused query is repeated later."""
    service.works.clear()
    for uid in range(5000, 6000):
        names.user(uid)
    assert names.refused == 1000 - 256
    service.works.set()
    settle(lambda: answered(names, 5000))
    settle(lambda: answered(names, 5999))
    assert len(service.asked) < 1000


def test_an_answer_holds_a_minute(names: AccountNames, service: Service) -> None:
    """The name is queried again, and the old one is returned in the meantime."""
    service.names[5000] = "adele"
    settle(lambda: names.user(5000) == "adele")
    names.refresh(59)
    service.names[5000] = "adele.b"
    assert names.user(5000) == "adele"
    assert service.asked == [5000]
    service.works.clear()
    names.refresh(61)
    unknown = names.unknown
    assert names.user(5000) == "adele"
    assert names.unknown == unknown
    service.works.set()
    settle(lambda: names.user(5000) == "adele.b")


def test_a_name_nobody_asked_for_is_forgotten(names: AccountNames, service: Service) -> None:
    """After two minutes it has to be queried again."""
    service.names[5000] = "adele"
    settle(lambda: names.user(5000) == "adele")
    names.refresh(61)
    service.works.clear()
    names.refresh(122)
    assert names.user(5000) is None


def test_a_changed_file_is_read_again(names: AccountNames, tmp_path: Path) -> None:
    """New, renamed and removed users are found; the file is checked at most once a second."""
    other = tmp_path / "passwd.new"
    other.write_text("root:x:0:0::/root:\nmallory:x:1001:1001::/:\n")
    other.rename(tmp_path / "passwd")
    names.refresh(0.5)
    assert names.user(1000) == "eve"
    names.refresh(1.5)
    assert names.user(1001) == "mallory"
    assert names.user(1000) is None


def test_a_file_knows_better_than_an_earlier_answer(
    names: AccountNames, service: Service, tmp_path: Path
) -> None:
    """A user known from the service is now in the file, and later removed from it."""
    service.names[5000] = "adele"
    settle(lambda: names.user(5000) == "adele")
    (tmp_path / "passwd").write_text(PASSWD + "local:x:5000:5000::/:\n")
    names.refresh(1)
    assert names.user(5000) == "local"
    (tmp_path / "passwd").write_text(PASSWD)
    names.refresh(2)
    settle(lambda: names.user(5000) == "adele")


def test_a_missing_file_is_an_empty_one(tmp_path: Path, service: Service) -> None:
    """A file that appears later is read."""
    names = AccountNames(tmp_path, resolve_user=service, resolve_group=service)
    assert names.user(0) is None
    (tmp_path / "passwd").write_text(PASSWD)
    names.refresh(1)
    assert names.user(0) == "root"
    names.close()


def test_an_unset_id_is_nobodys(names: AccountNames, service: Service) -> None:
    """4294967295 means none for the kernel: there is no query."""
    assert names.user(4294967295) is None
    assert names.group(4294967295) is None
    assert service.asked == []


def test_a_name_in_bytes_that_are_no_text_can_be_written(
    names: AccountNames, service: Service
) -> None:
    """The name is converted to valid text."""
    service.names[5000] = os.fsdecode(b"ad\xe8le")
    settle(lambda: names.user(5000) == "ad\\xe8le")


def test_a_known_name_costs_next_to_nothing(names: AccountNames) -> None:
    """A name is looked up a dozen times for each event."""
    each = min(timeit.repeat(lambda: names.user(1000), number=100_000, repeat=3)) / 100_000
    assert each < 1e-6


def test_the_hosts_own_users_are_known() -> None:
    """The test replaces nothing: it reads as the daemon does."""
    names = AccountNames()
    assert names.user(0) == pwd.getpwuid(0).pw_name
    names.close()


def test_nobody_is_asked_when_ids_are_not_resolved() -> None:
    """There is no name, and nothing to count."""
    names = NoAccountNames()
    assert (names.user(0), names.group(0)) == (None, None)
    assert (names.unknown, names.refused, names.failed) == (0, 0, 0)


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        (b"eve:x:1000:1000::/:", {1000: "eve"}),
        (b"users:x:100:", {100: "users"}),
        (b"# eve:x:1000:1000::/:", {}),
        (b"+@admins::::::", {}),
        (b"-eve:x:1000:1000::/:", {}),
        (b"+:x:0:0::/:", {}),
        (b":x:1000:1000::/:", {}),
        (b"eve:x:-1:1000::/:", {}),
        (b"eve:x:1000", {}),
        (b"\xff:x:7:7::/:", {7: "\\xff"}),
        (b"one:x:7:\ntwo:x:7:", {7: "one"}),
    ],
)
def test_an_entry_is_a_name_and_a_number(line: bytes, entry: dict[int, str]) -> None:
    """passwd(5), group(5), and entries of NIS."""
    assert parse(line) == entry


@given(st.binary())
def test_any_file_can_be_parsed(data: bytes) -> None:
    """Invalid lines are skipped; names are valid UTF-8."""
    for number, name in parse(data).items():
        assert number >= 0
        assert name.encode()
