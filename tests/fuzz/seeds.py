"""Real initial inputs: the logs of the golden tests, as lines and as netlink payloads."""

from __future__ import annotations

from pathlib import Path

from support.auditlog import as_received

from sessiond.audit.rules import libaudit

TESTS = Path(__file__).parent.parent
LOGS = [path.read_bytes() for path in sorted((TESTS / "ecs" / "golden").glob("*.log"))]
EVENTS = [[as_received(line, libaudit.message_type) for line in log.splitlines()] for log in LOGS]


def framed(records: list[tuple[int, bytes]]) -> bytes:
    """Records as one text: the type in two bytes, the length in two, the payload."""
    return b"".join(
        kind.to_bytes(2, "little") + len(payload).to_bytes(2, "little") + payload
        for kind, payload in records
    )


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Split such a text, whatever it contains."""
    records, at = [], 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at + 2 : at + 4], "little")
        records.append((int.from_bytes(data[at : at + 2], "little"), data[at + 4 : at + 4 + size]))
        at += 4 + size
    return records
