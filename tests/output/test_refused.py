"""The file of refused lines: bounded, safe, and never a reason to stop."""

from __future__ import annotations

import json
from pathlib import Path

from support.output import line

from sessiond.output.http_formats import Refusal
from sessiond.output.refused import RefusedLines

WHY = Refusal(400, "document_parsing_exception", "failed to parse")


def test_a_line_is_kept_with_the_reason(tmp_path: Path) -> None:
    """The line is unchanged, so that it can be sent again by hand."""
    refused = RefusedLines(tmp_path / "refused.ndjson", 1 << 20)
    refused.add([(line(1), WHY), (line(2), Refusal(413, "", ""))], 0.5)
    first, second = map(json.loads, (tmp_path / "refused.ndjson").read_text().splitlines())
    assert first == {
        "@timestamp": "1970-01-01T00:00:00.500000Z",
        "error": {"code": "400", "type": WHY.kind, "message": WHY.reason},
        "event": {"original": line(1).decode().rstrip("\n")},
    }
    assert second["error"] == {"code": "413"}
    assert refused.status()["kept"] == 2
    assert (tmp_path / "refused.ndjson").stat().st_mode & 0o777 == 0o600


def test_the_size_is_bounded(tmp_path: Path) -> None:
    """The oldest half is removed."""
    refused = RefusedLines(tmp_path / "refused.ndjson", 10_000)
    for number in range(200):
        refused.add([(line(number, 300), WHY)], 0.0)
    files = [tmp_path / "refused.ndjson.1", tmp_path / "refused.ndjson"]
    assert sum(file.stat().st_size for file in files) <= 10_000
    kept = [
        json.loads(json.loads(text)["event"]["original"])["event"]["sequence"]
        for file in files
        for text in file.read_text().splitlines()
    ]
    assert kept == list(range(kept[0], 200))
    assert len(kept) > 10


def test_what_can_not_be_kept_is_told(tmp_path: Path) -> None:
    """Reasons are a link in its place, a missing directory, a line larger than the file."""
    (tmp_path / "link").symlink_to("elsewhere")
    link = RefusedLines(tmp_path / "link", 1 << 20)
    link.add([(line(1), WHY)], 0.0)
    assert "symbolic link" in link.status()["problem"]
    assert not (tmp_path / "elsewhere").exists()
    nowhere = RefusedLines(tmp_path / "no" / "file", 1 << 20)
    nowhere.add([(line(1), WHY)], 0.0)
    assert nowhere.status() == {
        "path": str(tmp_path / "no" / "file"),
        "kept": 0,
        "problem": "No such file or directory",
    }
    small = RefusedLines(tmp_path / "small", 1000)
    small.add([(line(1, 600), WHY), (line(2), WHY)], 0.0)
    assert (small.status()["kept"], small.status()["problem"] is None) == (1, False)


def test_no_file_if_disabled(tmp_path: Path) -> None:
    """With a size of 0 there is no file."""
    RefusedLines(tmp_path / "refused", 0).add([(line(1), WHY)], 0.0)
    assert list(tmp_path.iterdir()) == []
