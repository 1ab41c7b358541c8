"""Events: records with one stamp belong together, in whatever order they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.audit.reassembler import ANOM_ABEND, Reassembler
from sessiond.audit.record import CWD, EOE, EXECVE, LOGIN, PROCTITLE, SYSCALL, USER

CRYPTO_KEY_USER = 2404
USER_LOGIN = 1112


def of(serial: int, *types: int, time: bytes = b"1777630272.123") -> list[tuple[int, bytes]]:
    return [(kind, b"audit(%s:%d): pid=%d" % (time, serial, serial)) for kind in types]


def assembler(timeout: int = 2, max_in_flight: int = 8192) -> Reassembler:
    return Reassembler(timeout=timeout, max_in_flight=max_in_flight)


def test_an_event_is_complete_with_its_end() -> None:
    """All records are returned together, in order, without the end-of-event record."""
    (event,) = assembler().feed(of(7, SYSCALL, EXECVE, CWD, PROCTITLE, EOE), now=0)
    assert [record.type for record in event.records] == [SYSCALL, EXECVE, CWD, PROCTITLE]
    assert (event.time, event.serial, event.complete) == (1777630272123, 7, True)


def test_events_of_two_processors_interleave() -> None:
    """Each record goes to its own event."""
    one, two = of(1, SYSCALL, CWD, EOE), of(2, SYSCALL, EXECVE, EOE)
    events = assembler().feed([one[0], two[0], two[1], one[1], two[2], one[2]], now=0)
    assert [(event.serial, [r.type for r in event.records]) for event in events] == [
        (2, [SYSCALL, EXECVE]),
        (1, [SYSCALL, CWD]),
    ]


def test_a_lost_end_is_closed_by_the_deadline() -> None:
    """Without its end an event is returned late, and marked as incomplete."""
    waiting = assembler(timeout=2)
    assert waiting.feed(of(1, SYSCALL), now=10) == []
    assert waiting.deadline() == 12
    assert waiting.expire(now=11) == []
    (event,) = waiting.expire(now=12)
    assert event.complete is False
    assert waiting.unfinished == 1
    assert waiting.deadline() is None


def test_records_that_come_after_the_deadline_make_no_second_event() -> None:
    """A task can wait for room in the backlog between its records."""
    waiting = assembler(timeout=2)
    waiting.feed(of(1, SYSCALL, EXECVE), now=0)
    assert len(waiting.expire(now=2)) == 1
    assert waiting.feed(of(1, CWD, PROCTITLE, EOE), now=3) == []
    assert (waiting.in_flight, waiting.late, waiting.unseen) == (0, 2, 0)


def test_the_open_events_of_a_process_are_closed_when_it_has_ended() -> None:
    """Events without a SYSCALL record stay open: it may arrive with the next batch."""
    waiting = assembler()
    waiting.feed([*of(1, SYSCALL), *of(2, SYSCALL), *of(3, CWD)], now=0)
    assert waiting.close_of(3, lambda _: True) == []
    assert waiting.close_of(1, lambda _: False) == []
    assert [event.serial for event in waiting.close_of(1, lambda _: True)] == [1]
    assert waiting.close_of(1, lambda _: True) == []
    (event,) = waiting.feed(of(3, SYSCALL, EOE), now=1)
    assert event.call.pid == b"3"
    assert waiting.in_flight == 1


def test_a_lone_kernel_record_is_whole_at_the_deadline() -> None:
    """A record outside a system call has no EOE; a deadline closes its event."""
    waiting = assembler()
    waiting.feed(of(1, LOGIN), now=0)
    (event,) = waiting.expire(now=2)
    assert event.complete is True
    assert waiting.unfinished == 0


@pytest.mark.parametrize("kind", [USER, USER_LOGIN, CRYPTO_KEY_USER, ANOM_ABEND])
def test_a_message_of_user_space_stands_alone(kind: int) -> None:
    """User space sends single records without an end."""
    (event,) = assembler().feed(of(5, kind), now=0)
    assert event.complete is True


def test_the_same_serial_at_another_time_is_another_event() -> None:
    """Serials wrap around at 2**32, and restart at boot."""
    reader = assembler()
    reader.feed(of(1, SYSCALL), now=0)
    events = reader.feed(of(1, SYSCALL, EOE, time=b"1777630299.000"), now=0)
    assert [(event.time, len(event.records)) for event in events] == [(1777630299000, 1)]
    assert reader.in_flight == 1


def test_a_straggler_after_the_end_is_ignored_if_it_is_but_another_end() -> None:
    """A late end-of-event record of a closed event opens no new event."""
    reader = assembler()
    reader.feed(of(1, SYSCALL), now=0)
    reader.expire(now=5)
    assert reader.feed(of(1, EOE), now=6) == []
    assert reader.in_flight == 0


def test_what_has_no_stamp_is_counted_and_set_aside() -> None:
    """A damaged record does not stop the others."""
    reader = assembler()
    (event,) = reader.feed([(SYSCALL, b"garbage"), *of(1, SYSCALL, EOE)], now=0)
    assert event.serial == 1
    assert reader.malformed == 1


def test_the_oldest_gives_way_when_too_many_are_open() -> None:
    """Memory is bounded: events without an end can't accumulate."""
    reader = assembler(max_in_flight=3)
    closed = [reader.feed(of(serial, SYSCALL), now=0) for serial in range(1, 6)]
    assert [[event.serial for event in events] for events in closed] == [[], [], [], [1], [2]]


@pytest.mark.parametrize(
    "types",
    [
        (SYSCALL, CWD, PROCTITLE),
        (SYSCALL, CWD),
        (PROCTITLE, CWD, SYSCALL),
        (USER_LOGIN, SYSCALL, PROCTITLE),
        (SYSCALL, EOE, PROCTITLE),
        (SYSCALL, SYSCALL, PROCTITLE, PROCTITLE),
    ],
)
def test_an_event_of_a_log_has_all_records_of_its_stamp(types: tuple[int, ...]) -> None:
    """The stamps of later events end the event, and it does not count as unfinished."""
    reader = Reassembler(timeout=2, of_log=True)
    assert reader.feed(of(1, *types), now=0) == []
    assert reader.feed(of(2, CWD, time=b"1777630274.000"), now=0) == []
    (event,) = reader.feed(of(3, CWD, time=b"1777630274.124"), now=0)
    assert {record.type for record in event.records} == set(types) - {EOE}
    assert len(event.records) == len(set(types) - {EOE})
    assert event.complete is True
    assert [event.serial for event in reader.flush()] == [2, 3]


def test_a_log_that_repeats_itself_has_each_event_once() -> None:
    """It was joined with its copy. A record that is new is kept, however late it comes."""
    reader = Reassembler(timeout=2, of_log=True)
    first = [*of(1, SYSCALL, CWD), *of(2, SYSCALL, time=b"1777630290.000")]
    events = reader.feed([*first, *first, *of(1, PROCTITLE)], now=0) + reader.flush()
    assert [(event.serial, [r.type for r in event.records]) for event in events] == [
        (1, [SYSCALL, CWD]),
        (2, [SYSCALL]),
        (1, [PROCTITLE]),
    ]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_batches_of_a_log_change_nothing(size: int) -> None:
    """An event is closed by the next stamp, not by the end of a batch."""
    times = [b"1777630%03d.000" % (270 + number // 2) for number in range(20)]
    records = [one for n, time in enumerate(times) for one in of(n % 7, SYSCALL, CWD, time=time)]
    one, other = (Reassembler(timeout=2, max_in_flight=3, of_log=True) for _ in range(2))
    whole = one.feed(records, now=0) + one.flush()
    parts = [other.feed(records[at : at + size], now=0) for at in range(0, len(records), size)]
    found = [event for part in [*parts, other.flush()] for event in part]
    assert [repr(event) for event in found] == [repr(event) for event in whole]


def test_a_log_whose_clock_went_back_is_read_on() -> None:
    """An event stays open as long as the stamps do not exceed the latest one."""
    reader = Reassembler(timeout=2, of_log=True)
    early = of(2, SYSCALL, CWD, time=b"1777600000.000")
    assert reader.feed([*of(1, SYSCALL), early[0], *of(3, SYSCALL), early[1]], now=0) == []
    assert [len(event.records) for event in reader.flush()] == [1, 2, 1]


@given(st.data())
def test_any_interleaving_and_any_batches_give_the_same_events(data: st.DataObject) -> None:
    """The order within an event is kept; interleaving and batches change nothing."""
    queues = {serial: of(serial, SYSCALL, CWD, PROCTITLE, EOE) for serial in range(1, 5)}
    mixed: list[tuple[int, bytes]] = []
    while queues:
        serial = data.draw(st.sampled_from(sorted(queues)))
        mixed.append(queues[serial].pop(0))
        if not queues[serial]:
            del queues[serial]
    cut = data.draw(st.integers(0, len(mixed)))
    reader = assembler()
    events = reader.feed(mixed[:cut], now=0) + reader.feed(mixed[cut:], now=0)
    assert sorted(event.serial for event in events) == [1, 2, 3, 4]
    assert all([r.type for r in e.records] == [SYSCALL, CWD, PROCTITLE] for e in events)
    assert reader.in_flight == 0
