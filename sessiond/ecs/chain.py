"""Sealed lines: each has an HMAC over itself and the HMAC of the line before.

The key reveals lines that were changed, removed or inserted; without it nobody can forge a line.
The remaining lines do not show whether lines were removed from the end.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from typing import Final

from sessiond.ecs.line import identity

MIN_KEY: Final = 32  # bytes
# The size of a seal in a line, in bytes: SHA-256 in base64, without padding.
SEAL_SIZE: Final = len(b',"sessiond.chain":""') + 43

_SEAL: Final = re.compile(rb',"sessiond\.chain":"([A-Za-z0-9_-]{43})"\}\s*\Z')


class LineChain:
    """Seals lines, one after the other. ``previous`` is the seal of the last one."""

    def __init__(self, key: bytes, previous: bytes = b"") -> None:
        """Take a secret key, and the seal of the line from which the chain continues, if any.

        Raises ValueError for a key that is too short.
        """
        if len(key) < MIN_KEY:
            raise ValueError(f"a key has at least {MIN_KEY} bytes")
        self._key = key
        self.previous = previous

    def seal(self, line: bytes) -> bytes:
        """Return the line (a JSON object and a newline) with its seal as the last member."""
        body = line.rstrip()[:-1]
        self.previous = _mac(self._key, self.previous, body)
        return b'%b,"sessiond.chain":"%b"}\n' % (body, self.previous)


def sequence_of(line: bytes) -> int | None:
    """Return the event.sequence of a line, None without one."""
    found = identity(line)
    return found[1] if found is not None else None


def seal_of(line: bytes) -> bytes:
    """Return the seal of a line; b"" without one."""
    found = _SEAL.search(line[-128:])
    return found[1] if found else b""


class ChainCheck:
    """Checks sealed lines in the order in which they were written.

    ``lines`` is the number of checked lines, ``first`` and ``last`` are event.sequence values.
    """

    def __init__(self, key: bytes) -> None:
        """Take the key that sealed them."""
        self._key = key
        self._previous: bytes | None = None
        self.lines = 0
        self.unsealed = 0
        self.first: int | None = None
        self.last: int | None = None

    def take(self, line: bytes) -> str | None:
        """Check the next line; return a problem with it or just before it, None if there is none.

        The first line is verified only by the second one, which continues its seal, unless the
        chain starts with it.
        """
        number = sequence_of(line)
        seal = seal_of(line)
        if not seal:
            self.unsealed += 1
            if self._previous is not None:
                return f"{_named(number)} has no seal: it was put in, or event.chain was off"
            return None
        self.lines += 1
        self.first = number if self.first is None else self.first
        before, self.last = self.last, number
        previous, self._previous = self._previous, seal
        body = line[: line.rindex(b',"sessiond.chain":"')]
        if previous is not None and _equal(seal, _mac(self._key, previous, body)):
            return None
        if _equal(seal, _mac(self._key, b"", body)):
            # A chain starts here.
            return None if previous is None else f"a new chain begins with {_named(number)}"
        if previous is None:
            return None
        if number is not None and before is not None and number != before + 1:
            return f"after {_named(before)} comes {_named(number)}: lines are missing or moved"
        return f"{_named(number)} was changed or put in, or the key is another one"


def _named(number: int | None) -> str:
    return "a line without event.sequence" if number is None else f"line {number}"


def _mac(key: bytes, previous: bytes, body: bytes) -> bytes:
    import hmac  # when a line is sealed: it loads OpenSSL, which needs a megabyte

    digest = hmac.digest(key, previous + body, "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=")


def _equal(seal: bytes, computed: bytes) -> bool:
    """Compare in a time that does not tell how much of a forged seal is right."""
    import hmac  # see _mac

    return hmac.compare_digest(seal, computed)
