"""Logs of several hosts are told apart, and read side by side."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.auditlog import record_type

from sessiond.replay.series import series, side_by_side


def write(path: Path, first: int, last: int, node: str = "", *, serial: int = 1) -> str:
    """Write a log from one second to another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"node={node} " if node else ""
    text = "".join(
        f'{prefix}type=CWD msg=audit({time}.000:{serial + time}): cwd="/"\n'
        for time in range(first, last + 1)
    ).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


def found(*names: str) -> list[list[tuple[str, str]]]:
    return [[(log.name, log.node) for log in logs] for logs in series(list(names), record_type)]


def test_the_logs_of_one_host_follow_each_other(tmp_path: Path) -> None:
    """This includes rotated ones, and those that were moved to another directory."""
    names = [
        write(tmp_path / "old" / "audit.log-20260501.gz", 100, 200),
        write(tmp_path / "audit.log.1", 200, 300),
        write(tmp_path / "audit.log", 300, 400),
    ]
    assert found(*names) == [[(name, "") for name in names]]


def test_logs_of_the_same_time_are_of_several_hosts(tmp_path: Path) -> None:
    """Each directory is a host, named after the part of the path that differs."""
    web = [
        write(tmp_path / "web7" / "var" / "audit.log.1.gz", 100, 200),
        write(tmp_path / "web7" / "var" / "audit.log", 200, 300),
    ]
    db = write(tmp_path / "db3" / "var" / "audit.log", 150, 250, serial=7)
    assert found(*web, db) == [[(name, "web7") for name in web], [(db, "db3")]]


def test_the_end_of_a_packed_log_counts(tmp_path: Path) -> None:
    """It is only known once all of it is unpacked."""
    web = write(tmp_path / "web7" / "audit.log.gz", 100, 9000)
    db = write(tmp_path / "db3" / "audit.log.gz", 8900, 9900)
    assert found(web, db) == [[(web, "web7")], [(db, "db3")]]


def test_logs_of_one_directory_may_be_of_several_hosts(tmp_path: Path) -> None:
    """Then each log is a host, with its rotated files."""
    web = [write(tmp_path / "web7.log.1", 100, 200), write(tmp_path / "web7.log", 200, 300)]
    db = write(tmp_path / "db3.log", 150, 250)
    assert found(*web, db) == [[(name, "web7") for name in web], [(db, "db3")]]


def test_a_copy_is_no_other_host(tmp_path: Path) -> None:
    """Its events are those of the original."""
    log, copy = (write(tmp_path / where / "audit.log", 100, 200) for where in ("a", "b"))
    assert found(log, copy) == [[(log, ""), (copy, "")]]


def test_records_that_name_their_host_need_no_path(tmp_path: Path) -> None:
    """Different hosts are read side by side, and a host that is in several logs is not."""
    web = write(tmp_path / "a" / "audit.log", 100, 200, "web7")
    db = write(tmp_path / "b" / "audit.log", 100, 200, "db3")
    again = write(tmp_path / "c" / "audit.log", 150, 250, "web7")
    assert found(web, db, again) == [[(web, ""), (again, "")], [(db, "")]]


def test_logs_of_one_day_each_are_read_in_order(tmp_path: Path) -> None:
    """A host near the beginning of one may be anywhere in the other."""
    names = [
        write(tmp_path / "0501.log", 100, 200, "web7"),
        write(tmp_path / "0502.log", 200, 300, "db3"),
    ]
    assert found(*names) == [[(name, "") for name in names]]


def test_what_can_not_be_known_is_read_in_order(tmp_path: Path) -> None:
    """This applies to standard input, and to logs that begin with other lines."""
    web = write(tmp_path / "web7" / "audit.log", 100, 200)
    db = write(tmp_path / "db3" / "audit.log", 100, 200, serial=7)
    assert found(web, "-", db) == [[(web, ""), ("-", ""), (db, "")]]
    other = tmp_path / "messages"
    other.write_text("May  1 10:00:00 web7 sshd[1]: hello\n")
    assert found(web, db, str(other)) == [[(web, ""), (db, ""), (str(other), "")]]


def test_an_empty_and_a_missing_log_do_not_matter(tmp_path: Path) -> None:
    """The error is reported when it is read."""
    empty, missing = tmp_path / "empty.log", str(tmp_path / "no.log")
    empty.write_bytes(b"")
    web = write(tmp_path / "web7" / "audit.log", 100, 200)
    db = write(tmp_path / "db3" / "audit.log", 100, 200, serial=7)
    assert found(web, str(empty), db, missing) == [
        [(str(empty), ""), (missing, ""), (web, "web7")],
        [(db, "db3")],
    ]


@pytest.mark.parametrize("number", [0, 1, 3, 20])
def test_readers_take_turns(number: int) -> None:
    """At most eight are open; each is read to its end."""
    opened: set[int] = set()
    most = 0
    steps: list[int] = []

    def reader(index: int) -> Iterator[None]:
        nonlocal most
        opened.add(index)
        most = max(most, len(opened))
        for _ in range(index % 3 + 1):
            steps.append(index)
            yield
        opened.discard(index)

    side_by_side(reader(index) for index in range(number))
    assert len(steps) == sum(index % 3 + 1 for index in range(number))
    assert (most, opened) == (min(number, 8), set())
    if number == 3:
        assert steps == [0, 1, 2, 1, 2, 2]
