"""A rule file is refused with its line, or compiled to rules with valid descriptions.

The description of a rule, as by ``auditctl -l``, can be parsed as a rule again.
"""

from __future__ import annotations

import contextlib
import re
import stat

from sessiond.audit.rules import parser, ruleset
from sessiond.errors import RuleError

SEEDS = [
    b"-a always,exit -F arch=b64 -S execve,execveat -F auid>=1000 -F auid!=unset -k exec\n",
    b"-w /etc/passwd -p wa -k identity\n-a never,exclude -F msgtype=CWD\n",
    b"-D\n-b 8192\n-f 1\n--backlog_wait_time 0\n-e 1\n-c\n-i\n",
    b"-a exit,always -S 1,2 -F exit=-EPERM -C uid!=obj_uid -F exe=/bin/sh\n# c\n",
    b"-a always,exit -F dir=/etc -F perm=rwxa -F subj_user=x -F a0&0x7 -F success=0\n",
    b"-a always,user -F uid=root\n-A task,never -F pid=1\n-d exit,always -S open\n-W /x -p r\n",
    b"-a never,filesystem -F fstype=0x74726163\n-q /a,/b\n-t\n-r 10\n--loginuid-immutable\n",
]


_ODD = re.compile(rb"[\\\1]|[0-9]{9}")
_PLAIN = re.compile(r"[\w .,:/!<>&=-]*", re.ASCII)
_AMBIGUOUS = re.compile(r"-F \w+(?:[!<>&]=|[=<>&])[^ ]*[!<>&=]")


def _regular(_path: bytes) -> int:
    return stat.S_IFREG


def one(data: bytes) -> None:
    """Compile ``data`` strictly, and again with collected errors."""
    with contextlib.suppress(RuleError):
        parser.parse(data, "fuzz.rules", path_mode=_regular)
    found = parser.parse(data, "fuzz.rules", keep_going=True, path_mode=_regular)
    for error in found.errors:
        assert error.line >= 1
        assert str(error).isprintable()
    odd = _ODD.search(data) is not None
    for rule in found:
        described = ruleset.LoadedRule(rule.data).describe()
        # auditctl's format is ambiguous for unusual values: blanks in a path, operators in a value,
        # separators in a key, numbers beyond the kernel's. Also, -p is accepted where perm is not,
        # and a -w does not show whether its path is a file or a directory.
        if odd or described.startswith("-w") or _AMBIGUOUS.search(described):
            continue
        if not _PLAIN.fullmatch(described):
            continue
        with contextlib.suppress(RuleError):
            again = parser.parse(described, "again", path_mode=_regular)
            assert [each.canonical for each in again] == [rule.canonical], described
