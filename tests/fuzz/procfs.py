"""Files of /proc are parsed or refused with ValueError; a name never affects a number."""

from __future__ import annotations

import contextlib

from sessiond.sources.procfs.parse import (
    parse_args,
    parse_cgroup,
    parse_stat,
    parse_status,
    parse_variable,
)
from sessiond.system.proc import parse_namespace

SEEDS = [
    b"7 (a) R 1) S 1 7 7 34816 7 4194304 " + b"1 " * 45 + b"0\n",
    (
        b"Name:\ta\\nb\nTgid:\t7\nNgid:\t0\nPid:\t7\nUid:\t1\t2\t3\t4\nGid:\t1\t2\t3\t4\nFDSize:\t64\n"
        b"Groups:\t4 24 \nNSpid:\t7\t1\nCapPrm:\t00ff\nCapEff:\t0000\n"
    ),
    b"0::/user.slice/user-0.slice/session-1.scope\n",
    b"12:pids:/docker/" + b"0a" * 32 + b"\n1:name=systemd:/\n",
    b"PATH=/bin\0SSH_CONNECTION=10.0.0.1 22 10.0.0.2 22\0",
    b"ls\0\0-l\0",
    b"pid:[4026531836]",
]


def one(data: bytes) -> None:
    """Read ``data`` as each of the files."""
    with contextlib.suppress(ValueError):
        stat = parse_stat(data)
        assert stat.comm in data
    with contextlib.suppress(ValueError):
        parse_status(data)
    args = parse_args(data)
    assert len(args) <= len(data) + 1
    with contextlib.suppress(ValueError):
        parse_cgroup(data)
    parse_variable(data, b"SSH_CONNECTION")
    parse_namespace(data)
