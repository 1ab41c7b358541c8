"""The host and the boot of a record."""

import pytest

from sessiond.audit.auditd_log import LogRecord
from sessiond.replay.hosts import DAEMON_START, SYSTEM_BOOT, Hosts

CWD = 1307


def record(
    time: float, serial: int, kind: int = CWD, text: str = "cwd=1", **more: str
) -> LogRecord:
    payload = f"audit({time:.3f}:{serial}): {text}".encode()
    return LogRecord(more.get("node", ""), kind, payload, b"", more.get("boot", ""))


def boots(*records: LogRecord) -> int:
    hosts = Hosts()
    for each in records:
        hosts.of(each).boot_of(each)
    return hosts.boots


def test_serials_that_fall_while_time_goes_on_are_another_boots() -> None:
    """Serials restart with each boot."""
    assert boots(record(100, 9000), record(160, 12)) == 2
    assert boots(record(100, 90), record(160, 12)) == 2


@pytest.mark.parametrize("serial", [8999, 8950])
def test_records_that_changed_places_are_of_one_boot(serial: int) -> None:
    """Records of different processors can be reordered within a short time."""
    assert boots(record(100, 9000), record(100.004, serial), record(100.01, 9001)) == 1


def test_a_clock_that_is_set_back_is_no_boot() -> None:
    """The serials continue."""
    assert boots(record(100, 9000), record(40, 9001), record(41, 9002)) == 1


@pytest.mark.parametrize("serial", [120, 500_000])
def test_a_log_behind_another_is_no_part_of_its_boot(serial: int) -> None:
    """Logs that were joined in the wrong order, or of hosts that are not named."""
    assert boots(record(9000, 9000), record(9001, 9001), record(100, serial)) == 2


def test_a_call_that_waited_is_of_its_boot() -> None:
    """Its stamp is of its beginning, its serial of its end; the daemon has other serials."""
    assert boots(record(9000, 9000), record(100, 9001), record(9001, 9002)) == 1
    assert boots(record(9000, 9000), record(100, 4, DAEMON_START, "op=start kernel=6.1")) == 1
    assert boots(record(9000, (1 << 32) - 2), record(100, 3)) == 1


def test_a_serial_that_overflows_is_no_boot() -> None:
    """A serial has 32 bits."""
    assert boots(record(100, (1 << 32) - 2), record(110, 3)) == 1


def test_a_boot_counts_once() -> None:
    """The daemon starts, the new kernel appears, then user space reports the boot: one boot."""
    first = record(90, 7000, DAEMON_START, "op=start kernel=6.1 pid=1")
    second = record(200, 8000, DAEMON_START, "op=start kernel=6.2 pid=1")
    assert (
        boots(first, record(100, 9000), second, record(201, 9, SYSTEM_BOOT), record(210, 20)) == 2
    )


def test_a_boot_that_is_written_twice_counts_once() -> None:
    """The stamp and the serial are the same."""
    again = record(200, 9, SYSTEM_BOOT)
    assert boots(record(100, 9000), again, again) == 2


def test_a_daemon_that_starts_again_is_no_boot() -> None:
    """The kernel is the same, and the daemon's own records have separate serials."""
    start = "op=start kernel=6.1 pid=1"
    first, second = record(90, 7000, DAEMON_START, start), record(120, 4, DAEMON_START, start)
    assert boots(first, record(100, 9000), second, record(130, 9001)) == 1


def test_the_journal_knows_boots_itself() -> None:
    """The serials do not matter."""
    assert boots(record(1, 9, boot="a"), record(90, 3, boot="a"), record(91, 10, boot="b")) == 2


def test_nodes_are_hosts() -> None:
    """The serials of one node do not affect another."""
    hosts = Hosts()
    for each in (record(1, 9000, node="a"), record(60, 3, node="b"), record(70, 9001, node="a")):
        hosts.of(each).boot_of(each)
    assert (len(hosts), hosts.boots) == (2, 2)


@pytest.mark.parametrize(
    ("seconds", "named", "mixed"),
    [(1, False, ["db3"]), (60, False, []), (-3600, False, []), (1, True, [])],
)
def test_hosts_that_are_mixed_are_found(seconds: int, named: bool, mixed: list[str]) -> None:
    """The records of two hosts in turn look like many boots; journald names them."""
    hosts = Hosts()
    for number in range(10):
        start = 100_000 + seconds * number
        boot = str(number) if named else ""
        for time, serial in ((start, 9000 + number), (start + 0.5, 20 + number)):
            each = record(time, serial, node="db3", boot=boot)
            hosts.of(each).boot_of(each)
    assert hosts.boots >= 10
    assert hosts.mixed == mixed
