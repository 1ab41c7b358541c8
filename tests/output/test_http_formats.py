"""The requests for each kind of server, and the meaning of its answers."""

from __future__ import annotations

import json
from typing import Any, get_args
from urllib.parse import urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.output.http_formats import Answer, Format, Preset, Refusal, target

PRESETS: tuple[Preset, ...] = get_args(Preset)


def line(name: str, host: str = "web-1", **event: Any) -> bytes:
    """A line as the daemon writes it."""
    return orjson.dumps(
        {
            "@timestamp": "2026-11-30T15:13:28.000042Z",
            "event": {"kind": "event", "category": ["process"], **event, "id": name, "sequence": 1},
            "host": {"name": host},
            "process": {"args": ["ü", '"event":{"id":"false"}']},
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


LINES = [line("a-1"), line("a-2", original='say "id":"false" {x} \\ "')]


def judge(preset: Preset, status: int, body: Any = b"", count: int = 3, **more: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Format(preset).judge(Answer(status, data, **more), count)


def test_elasticsearch_gets_each_event_under_its_id() -> None:
    """Any text may precede the id in the line."""
    body = Format("elasticsearch").encode(LINES).splitlines()
    assert [json.loads(action) for action in body[::2]] == [
        {"create": {"_id": "a-1"}},
        {"create": {"_id": "a-2"}},
    ]
    assert [text + b"\n" for text in body[1::2]] == LINES
    assert Format("elasticsearch").encode([b"{}\n"]) == b'{"create":{}}\n{}\n'


def test_ndjson_is_the_lines() -> None:
    """The body is exactly the lines."""
    assert Format("ndjson").encode(LINES) == b"".join(LINES)


def test_splunk_gets_the_time_of_the_event() -> None:
    """The time has microseconds; without a host Splunk would take that of the request."""
    events = [json.loads(text) for text in Format("splunk_hec").encode(LINES).splitlines()]
    assert [event["event"] for event in events] == [json.loads(text) for text in LINES]
    assert {(event["time"], event["host"], event["sourcetype"]) for event in events} == {
        (1796051608.000042, "web-1", "sessiond")
    }
    assert "host" not in json.loads(Format("splunk_hec").encode([b'{"event":{}}\n']))


def test_loki_gets_a_stream_of_the_host() -> None:
    """Each line is whole, with its time in ns."""
    (stream,) = json.loads(Format("loki").encode(LINES))["streams"]
    assert stream["stream"] == {"service_name": "sessiond", "host_name": "web-1"}
    texts = [text.decode().rstrip("\n") for text in LINES]
    assert stream["values"] == [["1796051608000042000", text] for text in texts]


def test_lines_of_several_hosts_are_separate() -> None:
    """A replay may send such ones in a request."""
    mixed = [line(f"{host}-{number}", host) for number in range(2) for host in ("ä", "b")]
    mixed.append(b'{"event":{}}\n')
    loki = json.loads(Format("loki").encode(mixed))["streams"]
    assert {each["stream"]["host_name"]: len(each["values"]) for each in loki} == {
        "ä": 2, "b": 2, "unknown": 1
    }  # fmt: skip
    for each in loki[:2]:
        hosts = {json.loads(text)["host"]["name"] for _, text in each["values"]}
        assert hosts == {each["stream"]["host_name"]}
    otlp = json.loads(Format("otlp").encode(mixed))["resourceLogs"]
    assert [len(each["scopeLogs"][0]["logRecords"]) for each in otlp] == [2, 2, 1]
    assert [each["resource"]["attributes"][1]["value"]["stringValue"] for each in otlp] == [
        "ä", "b", "unknown"
    ]  # fmt: skip


def test_a_collector_gets_log_records() -> None:
    """The names follow OpenTelemetry's conventions."""
    (resource,) = json.loads(Format("otlp").encode(LINES))["resourceLogs"]
    assert {"key": "host.name", "value": {"stringValue": "web-1"}} in resource["resource"][
        "attributes"
    ]
    (scope,) = resource["scopeLogs"]
    assert [record["body"]["stringValue"] for record in scope["logRecords"]] == [
        text.decode().rstrip("\n") for text in LINES
    ]
    assert scope["logRecords"][0]["timeUnixNano"] == "1796051608000042000"


@pytest.mark.parametrize(
    ("preset", "url", "wanted"),
    [
        ("elasticsearch", "https://es:9200", "/logs-x/_bulk?filter_path="),
        ("elasticsearch", "https://es/logs/_bulk?pipeline=p", "/logs/_bulk?pipeline=p&filter_path"),
        ("ndjson", "https://ch/?query=INSERT", "/?query=INSERT"),
        ("ndjson", "https://vector/in", "/in"),
        ("splunk_hec", "https://splunk:8088/", "/services/collector/event"),
        ("loki", "https://loki", "/loki/api/v1/push"),
        ("otlp", "https://otel:4318", "/v1/logs"),
    ],
)
def test_a_url_without_a_path_means_that_of_the_preset(
    preset: Preset, url: str, wanted: str
) -> None:
    """A given path is used as it is."""
    assert target(preset, urlsplit(url), "logs-x").startswith(wanted)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 408, 429, 500, 502, 503, 504])
def test_what_is_no_fault_of_the_lines_is_tried_again(preset: Preset, status: int) -> None:
    """Any failure of the server or its configuration leads to a retry of all lines."""
    verdict = judge(preset, status, b"why\n\x1b[31m")
    assert (verdict.again, verdict.refused, verdict.smaller) == ([0, 1, 2], {}, False)
    assert str(status) in verdict.problem
    assert "\x1b" not in verdict.problem


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_made_smaller_until_one_line_is_to_blame(
    preset: Preset, status: int
) -> None:
    """The last line is refused for good."""
    many = judge(preset, status, {"error": {"type": "t", "reason": "r"}})
    assert (many.again, many.refused, many.smaller) == ([0, 1, 2], {}, True)
    one = judge(preset, status, {"error": {"type": "t", "reason": "r"}}, 1)
    assert (one.again, one.refused) == ([], {0: Refusal(status, "", "t: r")})


@pytest.mark.parametrize("preset", ["ndjson", "splunk_hec", "loki"])
@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_2xx_is_the_acknowledgement(preset: Preset, status: int) -> None:
    """The body is ignored."""
    assert judge(preset, status, b"garbage") == ([], {}, "", False, 0)


def item(status: int, kind: str = "") -> dict[str, Any]:
    error = {"error": {"type": kind, "reason": "because"}} if kind else {}
    return {"create": {"status": status, **error}}


def test_elasticsearch_answers_for_each_line() -> None:
    """409: it exists already; 400: never; 429, 503, 403: later."""
    statuses = [201, 409, 429, 400, 503, 403]
    body = {"errors": True, "items": [item(s, "" if s == 201 else f"t{s}") for s in statuses]}
    verdict = judge("elasticsearch", 200, body, 6)
    assert verdict.again == [2, 4, 5]
    assert verdict.refused == {3: Refusal(400, "t400", "because")}
    assert verdict.problem == "3 of 6 lines: status 429: t429: because"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"[]",
        b"{}",
        b'{"errors":false}',
        b'{"items":[{},{},{}]}',
        b'{"items":[{"create":{}},{"create":{}},{"create":{}}]}',
        b'{"items":[{"create":{"status":201}}]}',
        b'{"items":[{"create":{"status":201}}],"errors":\xff',
        b'{"items":[{"create":{"status":201,"x":' + b"[" * 100_000 + b"}}]}",
    ],
)
def test_an_answer_that_lies_acknowledges_nothing(body: bytes) -> None:
    """Elasticsearch's status 200 does not acknowledge lines."""
    verdict = judge("elasticsearch", 200, body)
    assert (verdict.again, verdict.refused) == ([0, 1, 2], {})
    assert verdict.problem


def test_an_answer_too_long_to_read_is_asked_for_in_parts() -> None:
    """The answer for fewer lines is shorter."""
    assert judge("elasticsearch", 200, cut=True).smaller
    assert judge("ndjson", 200, cut=True).again == []


def test_a_collector_says_how_many_it_refuses() -> None:
    """The answer does not name these lines, and they must not be sent again."""
    body = {"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "too old"}}
    verdict = judge("otlp", 200, body)
    assert (verdict.again, verdict.refused, verdict.unnamed) == ([], {}, 2)
    assert verdict.problem == "too old"
    assert judge("otlp", 200, {"partialSuccess": {}}).unnamed == 0


@given(st.sampled_from(PRESETS), st.integers(100, 599), st.binary(max_size=200), st.integers(1, 5))
def test_no_answer_is_too_odd(preset: Preset, status: int, body: bytes, count: int) -> None:
    """Each line is accepted, refused or sent again; the numbers add up."""
    verdict = judge(preset, status, body, count)
    places = [*verdict.again, *verdict.refused]
    assert len(set(places)) == len(places)
    assert set(places) <= set(range(count))
    assert 0 <= verdict.unnamed <= count
    assert verdict.problem.isprintable()
