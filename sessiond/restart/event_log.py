"""Process events as bytes, for sources whose own messages can't be saved."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import msgspec

from sessiond.errors import SavedStateError
from sessiond.process.events import (
    CgroupSeen,
    Changed,
    Executed,
    Exited,
    Facts,
    Forked,
    Lost,
    Observed,
    ProcessEvent,
    Program,
)

_KINDS: Final = (Observed, Forked, Executed, Exited, Changed, CgroupSeen, Lost)
# A reader of another version can decode events with the same members.
LAYOUT: Final = zlib.crc32(
    "".join(f"{kind.__annotations__}" for kind in (*_KINDS, Facts, Program)).encode()
)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[tuple[int, msgspec.Raw]]).decode
_decoders: Final[list[msgspec.msgpack.Decoder[ProcessEvent]]] = [
    msgspec.msgpack.Decoder(kind) for kind in _KINDS
]


def encode(events: Sequence[ProcessEvent]) -> bytes:
    """Return the events as bytes for ``decode``."""
    return _encode([(_KINDS.index(type(event)), event) for event in events])


def decode(data: bytes) -> list[ProcessEvent]:
    """Return the events encoded by ``encode``. Raises SavedStateError for anything else."""
    try:
        return [_decoders[kind].decode(event) for kind, event in _decode(data)]
    except (msgspec.DecodeError, ValueError, IndexError) as error:
        raise SavedStateError(f"process events can't be read: {error}") from None
