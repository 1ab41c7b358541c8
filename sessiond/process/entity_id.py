"""Entity ids: an opaque id for each process, which is never reused."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable
from struct import Struct
from typing import Final

from sessiond.blake2 import blake2b

# 18 bytes are 24 characters of base64 without padding, and 144 bits against collisions.
_DIGEST_SIZE: Final = 18
_PID_AND_START: Final = Struct("<Qq")
# RFC 4648, section 5
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def identifier(machine_id: str, boot_id: str) -> Callable[[int, int], str]:
    """Return a function that makes the entity id of (pid, start) on this machine in this boot.

    ``start`` is in ns of CLOCK_BOOTTIME. The host's part is hashed once: a call costs about 1 us.
    """
    # Lengths keep ("ab", "c") and ("a", "bc") apart.
    host = f"{len(machine_id)}:{machine_id}{len(boot_id)}:{boot_id}".encode()
    prepared = blake2b(host, digest_size=_DIGEST_SIZE, person=b"sessiond entity")
    pack = _PID_AND_START.pack

    def identify(pid: int, start: int) -> str:
        digest = prepared.copy()
        digest.update(pack(pid, start))
        return b2a_base64(digest.digest(), newline=False).translate(_URL_SAFE).decode()

    return identify


def entity_id(machine_id: str, boot_id: str, pid: int, start: int) -> str:
    """Return the entity id of one process: 24 characters of A-Z, a-z, 0-9, "-" and "_".

    The same four values give the same id in every run of the daemon; ``start`` (ns since boot, as
    exact as the source provides it) distinguishes processes with the same pid.
    """
    return identifier(machine_id, boot_id)(pid, start)
