"""A real auditd, with its configuration and log in a directory of the test."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.kernel import AuditState, auditctl
from support.truth import until

RULES = (
    "-a always,exit -F arch=b64 -S execve,execveat -k exec",
    "-a always,exit -F arch=b64 -S exit_group,setsid",
)


class Auditd:
    """The audit daemon of the audit project, with its configuration and log in a directory."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "audit.log"
        directory.mkdir(mode=0o700)
        (directory / "plugins.d").mkdir()
        (directory / "auditd.conf").write_text(
            f"log_file = {self.log}\nwrite_logs = yes\nlog_format = RAW\nflush = NONE\n"
            f"plugin_dir = {directory}/plugins.d\nspace_left = 75\nadmin_space_left = 50\n"
            "space_left_action = IGNORE\nadmin_space_left_action = IGNORE\n"
            "disk_full_action = IGNORE\ndisk_error_action = IGNORE\n"
        )
        self.process = subprocess.Popen(
            ["/usr/sbin/auditd", "-n", "-s", "nochange", "-c", directory],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: AuditState.read().owner == self.process.pid, 10, "a registered auditd")

    def load(self) -> None:
        """Load its rules, and enable auditing."""
        for rule in RULES:
            auditctl(*rule.split())
        auditctl("-b", "8192")
        auditctl("-e", "1")

    def stop(self) -> None:
        """Remove its rules and stop it."""
        auditctl("-D")
        self.process.terminate()
        self.process.wait(10)
