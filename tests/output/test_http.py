"""Lines over HTTP to servers that are killed, slow, full, refusing or faulty: no loss."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.output import Clock, balanced
from support.web import (
    Behaviour,
    Exchange,
    Web,
    bulk,
    hang,
    ids_of,
    ndjson,
    raw,
    slowly,
    status,
    stored_without_answer,
)

from sessiond.output.delivery import Delivery
from sessiond.output.http import MAX_RETRY_AFTER, HttpOutput
from sessiond.output.http_client import HttpClient, Server, compressor
from sessiond.output.http_formats import Format, Preset
from sessiond.output.refused import RefusedLines
from sessiond.output.spool import Spool
from sessiond.output.thread import OutputThread


def line(number: int, size: int = 0) -> bytes:
    text = '{"event":{"kind":"event","id":"e-%d","sequence":%d},"x":"'
    start = (text % (number, number)).encode()
    return start + b"x" * (size - len(start) - 3) + b'"}\n'


def lines(first: int, count: int, size: int = 200) -> list[bytes]:
    return [line(number, size) for number in range(first, first + count)]


def names(first: int, count: int) -> set[str]:
    return {f"e-{number}" for number in range(first, first + count)}


def make_output(web: Web, path: Path, preset: Preset = "ndjson", **more: Any) -> HttpOutput:
    """Return an output with short timeouts."""
    server = Server("127.0.0.1", web.port, "/")
    options = {"interval": 0.01, "timeout": 5.0, "backoff": (0.001, 0.02), "patience": 0.0, **more}
    return HttpOutput(
        HttpClient(server, headers={}, secrets=dict, timeout=5.0),
        Format(preset),
        name=server.name,
        compress=compressor("gzip"),
        refused=RefusedLines(path / "refused.ndjson", 1 << 20),
        **options,
    )


def refused_in(path: Path) -> list[str]:
    """Return the ids of the lines in the file of refused lines, oldest first."""
    file = path / "refused.ndjson"
    texts = file.read_text().splitlines() if file.exists() else []
    return [json.loads(json.loads(text)["event"]["original"])["event"]["id"] for text in texts]


def until(delivery: Delivery, condition: Callable[[], bool], seconds: float = 30) -> None:
    """Act like the output's thread until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, delivery.status()
        due = delivery.deadline()
        if due is not None and due <= time.monotonic():
            delivery.tick(time.monotonic())
        balanced(delivery)
        time.sleep(0.001)


def is_done(delivery: Delivery) -> bool:
    state = delivery.status()
    return bool(state["queued"] == state["spooled"] == 0)


@pytest.fixture
def web() -> Iterator[Web]:
    with closing(Web(ndjson)) as made:
        yield made


def make(web: Web, path: Path, preset: Preset = "ndjson", **more: Any) -> Delivery:
    """An open delivery with a spool."""
    spool = Spool(str(path / "spool"), max_size=more.pop("max_spool", 1 << 24))
    delivery = Delivery(make_output(web, path, preset, **more), spool=spool)
    delivery.open()
    return delivery


@pytest.mark.parametrize(("preset", "take"), [("ndjson", ndjson), ("elasticsearch", bulk)])
def test_lines_go_many_at_a_time(web: Web, tmp_path: Path, preset: Preset, take: Behaviour) -> None:
    """Requests stay within their limit, and a healthy server needs no disk."""
    web.take = take
    delivery = make(web, tmp_path, preset, max_size=10_000)
    for number in range(0, 500, 10):
        delivery.write(lines(number, 10))
        until(delivery, lambda: delivery.status()["queued"] < 50)
    assert delivery.flush(10)
    assert web.kept == dict.fromkeys(names(0, 500), 1)
    assert len(web.bodies) <= 250
    assert max(len(body) for body in web.bodies) <= 10_000 * 1.4
    assert balanced(delivery)["delivered"] == 500
    assert delivery.status()["healthy"]
    assert delivery.status()["spool"]["segments"] == 0
    delivery.close()


def test_a_line_waits_for_others(web: Web, tmp_path: Path) -> None:
    """It is sent alone after its interval."""
    clock = Clock()
    output = make_output(web, tmp_path, interval=1.0, clock=clock)
    assert output.write(lines(0, 1)) == 1
    assert output.tick(clock.now) == clock.now + 1.0
    assert web.bodies == []
    clock.now += 1.0
    settle(output, clock)
    assert web.kept == {"e-0": 1}
    assert output.tick(clock.now) is None
    output.close()


def test_at_the_end_no_line_waits_for_others(web: Web, tmp_path: Path) -> None:
    """A stop takes no longer than the server does, including the spool."""
    web.kill()
    delivery = make(web, tmp_path, interval=60.0, max_size=4000)
    delivery.write(lines(0, 100))
    until(delivery, lambda: not delivery.status()["healthy"])
    web.start()
    delivery.write(lines(100, 1))
    until(delivery, lambda: delivery.flush(10))
    assert web.kept == dict.fromkeys(names(0, 101), 1)
    delivery.close()


def settle(output: HttpOutput, clock: Clock) -> None:
    """Let the output handle its answer, without passing time."""
    output.tick(clock.now)
    end = time.monotonic() + 10
    while output._asked is not None:
        assert time.monotonic() < end
        time.sleep(0.001)
        output.tick(clock.now)


# --- servers that fail ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("preset", "take"), [("ndjson", ndjson), ("elasticsearch", bulk)])
def test_nothing_is_lost_whatever_the_server_does(
    web: Web, tmp_path: Path, preset: Preset, take: Behaviour, seed: int
) -> None:
    """Killed, restarted, full, slow, faulty: each line arrives in the end; by _id, once."""
    chance = random.Random(seed)
    web.take = take
    poison = {f"e-{number}" for number in chance.sample(range(500), 3)}
    if preset == "elasticsearch":
        web.take = partial(bulk, faults=dict.fromkeys(poison, (400, "mapper_parsing_exception")))
        lost_word: Behaviour = bulk_without_answer
    else:
        web.take = partial(refusing, poison=poison)
        lost_word = stored_without_answer
    faults: list[Behaviour] = [
        status(429, b"busy"),
        status(503, Retry_After="0"),
        status(500),
        status(401),
        status(302, Location="/elsewhere"),
        status(413),
        raw(b""),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"),
        raw(b"garbage\r\n"),
        raw(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n0\r\n\r\n"),
        raw(b"HTTP/1.0 503 Busy\r\n\r\n<html>"),
        status(504),
        status(503, Retry_After="\xb2"),
        lost_word,
        slowly(0.02, web.take),
        hang,
    ]
    if preset == "elasticsearch":
        half = dict.fromkeys((f"e-{n}" for n in range(0, 500, 2)), (429, "rejected"))
        faults += [
            status(200),
            status(200, b'{"errors":false,"items":[]}'),
            status(200, b"\xff"),
            partial(bulk, faults=half),
        ]
    delivery = make(web, tmp_path, preset, max_size=5000, timeout=0.1)
    for number in range(0, 500, 20):
        delivery.write(lines(number, 20))
        with web.lock:
            web.script.extend(chance.choices(faults, k=chance.randint(0, 2)))
        if chance.random() < 0.1:
            web.kill()
        elif web._listener is None:
            web.start()
        end = time.monotonic() + 0.01
        until(delivery, lambda: time.monotonic() > end)  # noqa: B023
    if web._listener is None:
        web.start()
    with web.lock:
        web.script.clear()
    until(delivery, lambda: is_done(delivery))
    # A server that says nothing may have stored lines that it refuses later.
    assert names(0, 500) - poison <= set(web.kept) <= names(0, 500)
    if preset == "elasticsearch":
        assert set(web.kept.values()) == {1}
    assert set(refused_in(tmp_path)) == poison
    state = balanced(delivery)
    assert state["dropped_by_reason"]["refused by the output"] == len(poison)
    assert state["dropped"] == len(poison)
    assert (state["delivered"], state["accepted"]) == (500 - len(poison), 500)
    (loss,) = delivery.take_losses()
    assert (loss.lines, loss.reason) == (len(poison), "refused by the output")
    delivery.close()


def bulk_without_answer(exchange: Exchange) -> None:
    """Store the documents, and close without an answer."""
    web = exchange.server.web
    with web.lock:
        for action in exchange.body.splitlines()[::2]:
            web.kept[json.loads(action)["create"]["_id"]] = 1
    exchange.close_connection = True


def refusing(exchange: Exchange, poison: set[str]) -> None:
    """Refuse a request with an invalid line, as ClickHouse does."""
    if poison & set(ids_of(exchange.body)):
        exchange.send(400, b"Code: 117. Unknown field")
    else:
        ndjson(exchange)


def test_an_unreachable_server_is_reported(web: Web, tmp_path: Path) -> None:
    """Lines wait on disk, and all of them arrive when the server is back."""
    web.kill()
    delivery = make(web, tmp_path)
    delivery.write(lines(0, 10))
    until(delivery, lambda: not delivery.status()["healthy"])
    assert delivery.status()["reason"] == f"http://127.0.0.1:{web.port}/: Connection refused"
    delivery.write(lines(10, 90))
    assert delivery.volatile == 0
    web.start()
    until(delivery, lambda: is_done(delivery))
    assert web.kept == dict.fromkeys(names(0, 100), 1)
    sick, well = delivery.take_events()
    assert (sick.healthy, well.healthy, well.dropped) == (False, True, 0)
    delivery.close()


def test_a_server_that_is_full_for_long(web: Web, tmp_path: Path) -> None:
    """The spool stays within its limit; dropped lines are counted and reported."""
    web.take = status(503)
    delivery = make(web, tmp_path, max_spool=100_000, max_size=5000)
    for number in range(0, 2000, 20):
        delivery.write(lines(number, 20))
        delivery.tick(time.monotonic())
        assert balanced(delivery)["spool"]["size"] <= 100_000
    until(delivery, lambda: not delivery.status()["healthy"])
    assert "status 503" in delivery.status()["reason"]
    web.take = ndjson
    until(delivery, lambda: is_done(delivery))
    dropped = delivery.status()["dropped_by_reason"]["spool full"]
    assert sum(loss.lines for loss in delivery.take_losses()) == dropped > 1000
    assert len(web.kept) == 2000 - dropped
    assert {f"e-{number}" for number in range(1900, 2000)} <= set(web.kept)
    delivery.close()


def test_a_hanging_request_is_aborted(web: Web, tmp_path: Path) -> None:
    """The limit is the time of a request, even if the server sends single bytes."""

    def trickle(exchange: Exchange) -> None:
        exchange.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not exchange.server.web.release.wait(0.02):
            exchange.wfile.write(b"x")

    web.script.extend([hang, trickle])
    delivery = make(web, tmp_path, timeout=0.2)
    delivery.write(lines(0, 10))
    until(delivery, lambda: not delivery.status()["healthy"])
    assert delivery.status()["reason"].endswith("no answer for 0.2 s")
    until(delivery, lambda: is_done(delivery))
    assert [len(ids_of(body)) for body in web.bodies] == [10, 5, 2, 4, 4]
    assert web.kept == dict.fromkeys(names(0, 10), 1)
    delivery.close()


@pytest.mark.parametrize("late", [None, status(504), status(408)])
def test_an_engine_too_slow_for_full_requests_gets_smaller_ones(
    web: Web, tmp_path: Path, late: Behaviour | None
) -> None:
    """Otherwise it would never accept one; the cause may also be a proxy's own timeout."""

    def tired(exchange: Exchange) -> None:
        count = len(ids_of(exchange.body))
        if count > 16 and late is not None:
            late(exchange)
        elif count > 16:
            hang(exchange)
        else:
            ndjson(exchange)

    web.take = tired
    delivery = make(web, tmp_path, timeout=0.2)
    delivery.write(lines(0, 200))
    until(delivery, lambda: is_done(delivery), seconds=20)
    assert web.kept == dict.fromkeys(names(0, 200), 1)
    delivery.close()


def test_a_server_that_drops_large_requests_gets_smaller_ones(web: Web, tmp_path: Path) -> None:
    """A proxy may close the connection instead of answering 413."""

    def dropping(exchange: Exchange) -> None:
        if len(exchange.body) > 3000:
            exchange.send_raw(b"")
        else:
            ndjson(exchange)

    web.take = dropping
    delivery = make(web, tmp_path)
    delivery.write(lines(0, 200))
    until(delivery, lambda: is_done(delivery), seconds=20)
    assert web.kept == dict.fromkeys(names(0, 200), 1)
    delivery.close()


# --- lines that are refused ----------------------------------------------------------------------


def test_one_bad_line_is_found_and_set_aside(web: Web, tmp_path: Path) -> None:
    """The others are delivered, and the output stays healthy."""
    web.take = partial(refusing, poison={"e-77"})
    delivery = make(web, tmp_path)
    delivery.write(lines(0, 200))
    until(delivery, lambda: is_done(delivery))
    assert set(web.kept) == names(0, 200) - {"e-77"}
    assert refused_in(tmp_path) == ["e-77"]
    assert len(web.bodies) < 30
    assert delivery.take_events() == []
    delivery.write(lines(200, 10))
    until(delivery, lambda: is_done(delivery))
    assert names(200, 10) <= set(web.kept)
    delivery.close()


ALL_BAD = dict.fromkeys(names(0, 1000), (400, "strict_dynamic_mapping_exception"))


@pytest.mark.parametrize(
    ("preset", "answer"),
    [
        ("ndjson", status(400, b"no such column")),
        ("elasticsearch", lambda exchange: bulk(exchange, ALL_BAD)),
    ],
)
def test_a_server_that_refuses_everything_gets_few_lines(
    web: Web, tmp_path: Path, preset: Preset, answer: Behaviour
) -> None:
    """With a misconfigured server, few lines are lost in ten minutes, and a problem is reported."""
    web.take = answer
    clock = Clock()
    output = make_output(web, tmp_path, preset, clock=clock, backoff=(1.0, 60.0))
    output.write(lines(0, 1000))
    clock.now += 1
    while clock.now < 1600:
        settle(output, clock)
        due = output.tick(clock.now)
        assert due is not None
        clock.now = max(clock.now, due)
    assert "status 400" in str(output.trouble)
    refused = refused_in(tmp_path)
    assert refused == [f"e-{number}" for number in range(len(refused))]
    assert 5 < len(refused) < 40
    web.take = ndjson if preset == "ndjson" else bulk
    while output.unconfirmed:
        clock.now += 60
        settle(output, clock)
    assert set(web.kept) == names(0, 1000) - set(refused_in(tmp_path))
    assert output.trouble is None
    output.close()


def test_only_what_was_not_taken_is_sent_again(web: Web, tmp_path: Path) -> None:
    """Elasticsearch has a result for each line."""
    web.take = bulk
    web.script.append(partial(bulk, faults={"e-3": (429, "es_rejected_execution_exception")}))
    delivery = make(web, tmp_path, "elasticsearch")
    delivery.write(lines(0, 10))
    until(delivery, lambda: is_done(delivery))
    assert [body.count(b"create") for body in web.bodies] == [10, 1]
    (sick, _) = delivery.take_events()
    assert sick.reason.endswith(
        "1 of 10 lines: status 429: es_rejected_execution_exception: about e-3"
    )
    delivery.close()


def test_a_request_that_is_too_large_gets_smaller(web: Web, tmp_path: Path) -> None:
    """Later requests start smaller; a line that is too large by itself is set aside."""
    refused = 0

    def picky(exchange: Exchange) -> None:
        nonlocal refused
        if len(exchange.body) > 3000:
            refused += 1
            exchange.send(413)
        else:
            ndjson(exchange)

    web.take = picky
    delivery = make(web, tmp_path, max_size=20_000)
    delivery.write([*lines(0, 100), line(100, 4000), *lines(101, 99)])
    until(delivery, lambda: is_done(delivery))
    assert refused_in(tmp_path) == ["e-100"]
    assert set(web.kept) == names(0, 200) - {"e-100"}
    seen, before = refused, len(web.bodies)
    delivery.write(lines(200, 100))
    until(delivery, lambda: is_done(delivery))
    assert refused == seen
    assert len(web.bodies) < before + 15
    delivery.close()


def test_a_busy_server_is_no_problem(web: Web, tmp_path: Path) -> None:
    """Only a server that stays busy makes the output unhealthy."""
    clock = Clock()
    output = make_output(web, tmp_path, clock=clock, backoff=(1.0, 1.0), patience=5.0)
    output.write(lines(0, 10))
    clock.now += 1
    for busy in (2, 20):
        web.script.extend([status(429)] * busy)
        troubles = []
        while web.script:
            settle(output, clock)
            assert output.write(lines(10, 1)) == 0
            troubles.append(output.trouble)
            clock.now += 1
        settle(output, clock)
        assert (any(troubles), output.trouble) == (busy == 20, None)
        output.write(lines(10, 10))
        clock.now += 1
    output.close()


# --- time ----------------------------------------------------------------------------------------


def test_retry_after_is_followed(web: Web, tmp_path: Path) -> None:
    """The delay is used, within limits; a reload does not wait for it."""
    clock = Clock()
    output = make_output(web, tmp_path, clock=clock)
    output.write(lines(0, 10))
    clock.now += 1
    for asked, waited in ((17, 17.0), (10**6, MAX_RETRY_AFTER)):
        web.script.append(status(429, Retry_After=str(asked)))
        settle(output, clock)
        due = output.tick(clock.now)
        assert due == clock.now + waited
        clock.now = due
    web.script.append(status(429, Retry_After="100"))
    settle(output, clock)
    output.reopen()
    settle(output, clock)
    assert web.kept == dict.fromkeys(names(0, 10), 1)
    output.close()


def test_waits_grow_while_it_fails(web: Web, tmp_path: Path) -> None:
    """From the first to the longest delay, each shortened at random by at most a half."""
    web.kill()
    clock = Clock()
    output = make_output(web, tmp_path, clock=clock, backoff=(1.0, 60.0))
    output.write(lines(0, 10))
    clock.now += 1
    waits = []
    for _ in range(9):
        settle(output, clock)
        due = output.tick(clock.now)
        assert due is not None
        waits.append(due - clock.now)
        clock.now = due
    assert waits[0] <= 1.0
    assert 30 <= waits[-1] <= 60
    output.close()


# --- what survives -------------------------------------------------------------------------------


def test_lines_in_memory_can_be_secured(web: Web, tmp_path: Path) -> None:
    """The next run then has these lines, whenever this one is killed."""
    web.take = hang
    delivery = make(web, tmp_path)
    delivery.write(lines(0, 10))
    until(delivery, lambda: len(web.bodies) == 1)
    delivery.write(lines(10, 10))
    assert (delivery.volatile, delivery.securable) == (20, True)
    delivery.secure()
    assert (delivery.volatile, delivery.securable) == (0, False)
    balanced(delivery)
    (tmp_path / "killed").mkdir()
    for segment in (tmp_path / "spool").glob("*.spool"):
        (tmp_path / "killed" / segment.name).write_bytes(segment.read_bytes())
    web.take = ndjson
    second = Delivery(make_output(web, tmp_path), spool=Spool(str(tmp_path / "killed")))
    second.open()
    assert balanced(second)["accepted"] == 20
    assert second.flush(10)
    assert web.kept == dict.fromkeys(names(0, 20), 1)
    second.close()
    delivery.close()


def test_an_end_while_the_server_hangs(web: Web, tmp_path: Path) -> None:
    """The stop waits no longer than requested, and the next run has the lines."""
    web.take = hang
    delivery = make(web, tmp_path, timeout=60.0)
    delivery.write(lines(0, 10))
    until(delivery, lambda: len(web.bodies) == 1)
    assert not delivery.flush(0.05)
    assert delivery.volatile == 0
    delivery.close()
    web.take = ndjson
    second = make(web, tmp_path)
    assert second.flush(10)
    assert web.kept == dict.fromkeys(names(0, 10), 1)
    second.close()


def test_without_a_spool_what_is_not_confirmed_is_counted(web: Web, tmp_path: Path) -> None:
    """These lines are lost at the end, and counted."""
    web.kill()
    delivery = Delivery(make_output(web, tmp_path))
    delivery.open()
    delivery.write(lines(0, 10))
    assert (delivery.volatile, delivery.securable) == (10, False)
    delivery.flush(0.05)
    delivery.close()
    assert balanced(delivery)["dropped_by_reason"]["not confirmed at the end"] == 10


def test_the_loop_can_have_it_secured(web: Web, tmp_path: Path) -> None:
    """The output's thread does that, while a request is in flight."""
    web.take = hang
    output = make_output(web, tmp_path, timeout=60.0)
    thread = OutputThread(Delivery(output, spool=Spool(str(tmp_path / "spool"))))
    thread.open()
    thread.write(lines(0, 10))
    end = time.monotonic() + 10
    while not thread.secure():  # False until the thread has handled them
        assert time.monotonic() < end
    assert thread.volatile == 0
    assert thread.status()["queued"] + thread.status()["spooled"] == 10
    web.take = ndjson
    web.release.set()
    assert thread.flush(10)
    assert set(web.kept) == names(0, 10)
    thread.close()


def test_an_error_in_this_program_is_not_hidden(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that sends requests passes the exception on."""
    output = make_output(web, tmp_path)
    monkeypatch.setattr(output._format, "encode", lambda _: 1 / 0)
    output.write(lines(0, 1))

    def run() -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            output.tick(time.monotonic())

    with pytest.raises(ZeroDivisionError):
        run()
    output.close()
