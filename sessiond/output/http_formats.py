"""The formats of HTTP servers: lines to request bodies, answers to verdicts.

Pure: this module sends nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import SplitResult

import msgspec
import orjson

from sessiond.ecs.line import identity
from sessiond.text import printable

Preset = Literal["elasticsearch", "ndjson", "splunk_hec", "loki", "otlp"]

_DATE: Final = re.compile(rb'\{"@timestamp":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{6})Z"')
# The useful part of Elasticsearch's answer, which is long otherwise.
_FILTER_PATH: Final = "filter_path=items.*.status,items.*.error.type,items.*.error.reason"
_PATHS: Final[Mapping[Preset, str]] = {
    "ndjson": "/",
    "splunk_hec": "/services/collector/event",
    "loki": "/loki/api/v1/push",
    "otlp": "/v1/logs",
}
# Statuses for invalid lines, as opposed to problems of the server or its configuration.
_LINE_ERRORS: Final = frozenset({400, 413, 422})
_TEXT_LIMIT: Final = 200  # characters of a server's message that are reported


class Answer(NamedTuple):
    """A server's answer: its status code, and its body unless that is ``cut`` for its length."""

    status: int
    body: bytes = b""
    cut: bool = False
    retry_after: float | None = None  # seconds
    location: str = ""  # the target of a redirect


class Refusal(NamedTuple):
    """Why a server rejects a line for good."""

    status: int
    kind: str
    reason: str


class Verdict(NamedTuple):
    """The results of the lines of a request, by their index.

    A line in neither ``again`` nor ``refused`` was accepted, except ``unnamed`` ones, of which only
    the number is known. ``smaller`` says that a request with fewer lines may succeed. ``problem``
    says why not all lines were accepted.
    """

    again: list[int]
    refused: dict[int, Refusal]
    problem: str = ""
    smaller: bool = False
    unnamed: int = 0


class Format:
    """The preset's format of requests and answers."""

    def __init__(self, preset: Preset) -> None:
        """Take the preset, as in output.http.preset."""
        self._preset = preset
        self._encode = _ENCODERS[preset]
        self.content_type = (
            "application/x-ndjson"
            if preset in ("elasticsearch", "ndjson")
            else "application/json; charset=utf-8"
        )

    def encode(self, lines: list[bytes]) -> bytes:
        """Return the body of a request for ``lines``, each with its newline."""
        return self._encode(lines)

    def judge(self, answer: Answer, count: int) -> Verdict:
        """Return the results of the ``count`` lines of a request from its answer."""
        everything = list(range(count))
        if not 200 <= answer.status <= 299:
            return _judge_failure(answer, count)
        if self._preset == "elasticsearch":
            if answer.cut:
                return Verdict(everything, {}, "its answer is too long", smaller=count > 1)
            return _judge_bulk(answer.body, count)
        if self._preset == "otlp":
            return _judge_otlp(answer.body, count)
        return Verdict([], {})


def target(preset: Preset, url: SplitResult, index: str) -> str:
    """Return the target of a request: the URL's path and query, or those of the preset."""
    path, query = url.path, url.query
    if path in ("", "/"):
        path = f"/{index}/_bulk" if preset == "elasticsearch" else _PATHS[preset]
    if preset == "elasticsearch" and "filter_path=" not in query:
        query = f"{query}&{_FILTER_PATH}".removeprefix("&")
    return f"{path}?{query}" if query else path


def _judge_failure(answer: Answer, count: int) -> Verdict:
    reason = _words(answer.body)
    problem = f"status {answer.status}{reason and f': {reason}'}"
    if answer.status in _LINE_ERRORS:
        if count == 1:
            return Verdict([], {0: Refusal(answer.status, "", reason)}, problem)
        return Verdict(list(range(count)), {}, problem, smaller=True)
    if answer.status in (401, 403):
        problem += "; is what output.http.secret_headers names right?"
    if 300 <= answer.status <= 399:
        to = f" to {_cut(answer.location)}" if answer.location else ""
        problem = f"status {answer.status}: a redirect{to}, which is not followed; give that URL"
    return Verdict(list(range(count)), {}, problem)


class _Error(msgspec.Struct):
    type: str = ""
    reason: str | None = None


class _Item(msgspec.Struct):
    status: int
    error: _Error | str | None = None


class _Bulk(msgspec.Struct):
    items: list[dict[str, _Item]]


_BULK: Final = msgspec.json.Decoder(_Bulk)


def _judge_bulk(body: bytes, count: int) -> Verdict:
    """Parse Elasticsearch's answer to _bulk, which has an item for each line, in order."""
    everything = list(range(count))
    try:
        items = [next(iter(item.values())) for item in _BULK.decode(body).items]
    except (msgspec.MsgspecError, UnicodeDecodeError, StopIteration, RecursionError):
        return Verdict(everything, {}, "its answer is none of Elasticsearch")
    if len(items) != count:
        return Verdict(everything, {}, f"it answered for {len(items)} of {count} lines")
    again: list[int] = []
    refused: dict[int, Refusal] = {}
    problem = ""
    for index, item in enumerate(items):
        # 409: the document exists already, because it was sent before.
        if 200 <= item.status <= 299 or item.status == 409:
            continue
        error = item.error if isinstance(item.error, _Error) else _Error(reason=item.error)
        refusal = Refusal(item.status, _cut(error.type), _cut(error.reason or ""))
        if item.status in _LINE_ERRORS:
            refused[index] = refusal
        else:
            again.append(index)
        words = ": ".join(filter(None, (refusal.kind, refusal.reason)))
        problem = problem or f"status {item.status}{words and f': {words}'}"
    if again and len(items) > 1:
        problem = f"{len(again)} of {count} lines: {problem}"
    return Verdict(again, refused, problem)


def _judge_otlp(body: bytes, count: int) -> Verdict:
    """Parse a collector's answer, which has only the number of rejected lines."""
    try:
        partial = orjson.loads(body)["partialSuccess"]
        number = max(0, min(count, int(partial["rejectedLogRecords"])))
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError):
        return Verdict([], {})
    return Verdict([], {}, _cut(str(partial.get("errorMessage", ""))), unnamed=number)


def _words(body: bytes) -> str:
    """Return a server's message as readable text."""
    try:
        document = orjson.loads(body)
        error = document.get("error", document)
        if isinstance(error, dict):
            kind = error.get("type")
            text = error.get("reason") or error.get("text") or error.get("message")
            error = ": ".join(filter(None, (kind, text)))
        return _cut(str(error))
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return _cut(body[: 4 * _TEXT_LIMIT].decode("utf-8", "replace"))


def _cut(text: str) -> str:
    return printable(" ".join(text[: 4 * _TEXT_LIMIT].split())[:_TEXT_LIMIT])


# --- requests ------------------------------------------------------------------------------------


def _bulk(lines: list[bytes]) -> bytes:
    """Create each line under its event's id, so that no event is indexed twice."""
    parts: list[bytes] = []
    for line in lines:
        found = identity(line)
        name = b'"_id":"%b"' % found[0] if found is not None else b""
        parts += b'{"create":{%b}}\n' % name, line
    return b"".join(parts)


def _hec(lines: list[bytes]) -> bytes:
    """Wrap each line as an event of Splunk's collector, with the event's own time and host."""
    parts: list[bytes] = []
    for line in lines:
        seconds, micros = _time(line)
        host = _host(line)
        source = b'"host":%b,' % orjson.dumps(host) if host else b""
        parts.append(
            b'{"time":%d.%06d,%b"sourcetype":"sessiond","event":%b}\n'
            % (seconds, micros, source, line.rstrip(b"\n"))
        )
    return b"".join(parts)


def _loki(lines: list[bytes]) -> bytes:
    streams = [
        {
            "stream": {"service_name": "sessiond", "host_name": host},
            "values": [[_nanoseconds(line), _text(line)] for line in its_lines],
        }
        for host, its_lines in _by_host(lines).items()
    ]
    return orjson.dumps({"streams": streams})


def _otlp(lines: list[bytes]) -> bytes:
    resources = []
    for host, its_lines in _by_host(lines).items():
        records = [
            {"timeUnixNano": _nanoseconds(line), "body": {"stringValue": _text(line)}}
            for line in its_lines
        ]
        names = {"service.name": "sessiond", "host.name": host}
        attributes = [{"key": name, "value": {"stringValue": text}} for name, text in names.items()]
        scope = {"scope": {"name": "sessiond"}, "logRecords": records}
        resources.append({"resource": {"attributes": attributes}, "scopeLogs": [scope]})
    return orjson.dumps({"resourceLogs": resources})


_ENCODERS: Final[Mapping[Preset, Callable[[list[bytes]], bytes]]] = {
    "elasticsearch": _bulk,
    "ndjson": b"".join,
    "splunk_hec": _hec,
    "loki": _loki,
    "otlp": _otlp,
}


def _text(line: bytes) -> str:
    return line.rstrip(b"\n").decode("utf-8", "replace")


def _nanoseconds(line: bytes) -> str:
    seconds, micros = _time(line)
    return f"{seconds}{micros:06d}000"


def _time(line: bytes) -> tuple[int, int]:
    """Return a line's @timestamp: seconds since the epoch, and microseconds."""
    found = _DATE.match(line)
    return (_seconds(found[1]), int(found[2])) if found is not None else (0, 0)


@lru_cache(maxsize=64)
def _seconds(date: bytes) -> int:
    return int(datetime.fromisoformat(date.decode()).replace(tzinfo=UTC).timestamp())


def _by_host(lines: list[bytes]) -> dict[str, list[bytes]]:
    """Return the lines of each host; a replay has those of several."""
    hosts: dict[str, list[bytes]] = {}
    for line in lines:
        hosts.setdefault(_host(line) or "unknown", []).append(line)
    return hosts


def _host(line: bytes) -> str | None:
    """Return host.name of a line, None if it has none."""
    try:
        document: Any = orjson.loads(line)
        return str(document["host"]["name"])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return None
