"""``sessiond detect``, and its findings in the commands that show events."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.recording import LOGIN, poisoned_lines

from sessiond.cli import main


def test_rules_are_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As lines and as alerts, which the tree and the page show with their processes."""
    pytest.importorskip("sigma", reason="needs pysigma, of PyPI")
    rule = tmp_path / "rule.yml"
    rule.write_text(
        "title: Sudo\nid: 0b6f2d5e-6a0a-4d3c-9f57-5c2b0f0a7f01\nlevel: high\n"
        "logsource: {product: linux, category: process_creation}\n"
        "detection: {s: {Image|endswith: /sudo}, condition: s}\n"
    )
    assert main.run(["detect", str(LOGIN), "--rules", str(rule)]) == 0
    assert sum("sudo -n" in line for line in capsys.readouterr().out.splitlines()) == 3
    assert main.run(["detect", str(LOGIN), "--rules", str(rule), "--json"]) == 0
    alerts = tmp_path / "alerts.ndjson"
    alerts.write_text(capsys.readouterr().out)
    assert main.run(["tree", str(LOGIN), str(alerts), "12278"]) == 0
    assert sum("! Sudo" in line for line in capsys.readouterr().out.splitlines()) == 3
    assert main.run(["explain", str(LOGIN), str(alerts), "12331"]) == 0
    assert "high  Sudo" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main.run(["view", str(LOGIN), "--rules", str(rule), "-o", str(page)]) == 0
    assert page.read_bytes().count(b'"Sudo","high"') == 3
    poisoned = tmp_path / "poisoned.ndjson"
    poisoned.write_bytes(b"".join(poisoned_lines()))
    rule.write_text(rule.read_text().replace("endswith", "contains"))
    assert main.run(["detect", str(poisoned), "--rules", str(rule)]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())
    assert main.run(["detect", str(poisoned), "--rules", str(rule), "--json"]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())
    assert main.run(["detect", str(LOGIN)]) == 1
    assert main.run(["detect", str(LOGIN), "--rules", str(tmp_path / "none")]) == 2
