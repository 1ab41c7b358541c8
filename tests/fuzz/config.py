"""A configuration is accepted, or refused in one printable line that names the file."""

from __future__ import annotations

from fuzz.seeds import TESTS

from sessiond.config import load, reference
from sessiond.errors import ConfigError

SEEDS = [
    (TESTS.parent / "etc" / "sessiond.yml").read_bytes(),
    b"output: {file: {path: /x, rotate: {size: 1MiB, interval: 1d}}, spool: {max_size: 0}}\n",
    b"auditd:\n  socket_type: multicast\n  audit_rules: |\n    -w /etc -p wa\n  rate_limit: 1\n",
    b"event: {relatives: [parent], redact: {patterns: ['a(b)']}}\nlogging: {level: debug}\n",
    b"a: &a [*a]\nb: !!python/name:os.system\n? [x]\n: y\n",
]


def one(data: bytes) -> None:
    """Load ``data`` like a file."""
    try:
        loaded = load.loads(data.decode("utf-8", "replace"), "fuzz.yml")
    except ConfigError as error:
        text = str(error)
        assert text.startswith("fuzz.yml"), text
        assert text.isprintable(), text
    else:
        assert reference.diff(loaded, loaded) == []
