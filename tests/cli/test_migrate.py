"""``sessiond migrate``: its output and its notes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def sessiond(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a separate process."""
    command = [sys.executable, "-m", "sessiond", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_migrate_makes_a_configuration_that_check_takes(tmp_path: Path) -> None:
    """The result goes to standard output, the notes with their lines to standard error."""
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "a.conf").write_text("-w /etc/passwd -p wa -k identity\n")
    old, new = tmp_path / "auditbeat.yml", tmp_path / "new.yml"
    old.write_text(
        "auditbeat.modules:\n- module: auditd\n"
        "  audit_rule_files: ['${path.config}/rules/*.conf']\n"
        "output.elasticsearch.hosts: [localhost]\n"
    )
    done = sessiond("migrate", old)
    assert done.returncode == 0
    kept, shipped = done.stderr.splitlines()
    assert kept == (
        f"sessiond: {old}:3: auditbeat.modules[0].audit_rule_files: {rules}/*.conf stays in use: "
        "keep it"
    )
    assert shipped.startswith(f"sessiond: {old}:4: output.elasticsearch: lines go to /var/log/")
    new.write_text(done.stdout)
    checked = sessiond("check", "-c", new)
    assert "rules: 1 would be loaded\n  -w /etc/passwd -p wa -k identity\n" in checked.stdout
    missing = sessiond("migrate", tmp_path / "none")
    assert missing.returncode == 2
    assert (
        missing.stderr == f"sessiond: {tmp_path}/none: can't be read: no such file or directory\n"
    )
