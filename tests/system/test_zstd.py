"""zstd with each available library: each reads the other's output, in bounded memory."""

from __future__ import annotations

import importlib
import io
import tracemalloc

import pytest

from sessiond.system import zstd

LINES = b"".join(b'{"event":{"sequence":%d}}\n' % number for number in range(20_000))


@pytest.fixture(params=["compression.zstd", "zstandard"])
def library(request: pytest.FixtureRequest) -> zstd.Implementation:
    """Each library; before Python 3.14 backports.zstd is that of the standard library."""
    made = zstd._KNOWN[request.param]
    for name in (request.param, "backports.zstd"):
        try:
            return made(importlib.import_module(name))
        except ImportError:
            continue
    pytest.skip(f"this Python has no {request.param}")


def packed(library: zstd.Implementation, data: bytes) -> bytes:
    packer = library.packer()
    return packer.compress(data[:100_000]) + packer.compress(data[100_000:]) + packer.flush()


def reader(library: zstd.Implementation, data: bytes) -> io.BufferedReader:
    return io.BufferedReader(zstd.Reader(io.BytesIO(data), library))


def test_what_was_packed_is_read(library: zstd.Implementation) -> None:
    """This includes several consecutive frames, with empty ones between."""
    frame = packed(library, LINES)
    assert len(frame) < len(LINES) / 5
    ours = zstd.implementation()
    assert ours is not None
    assert reader(ours, frame).read() == LINES
    frames = packed(library, b"") + frame + packed(library, b"") + frame
    assert reader(library, frames).read() == LINES * 2
    assert reader(library, b"").read() == b""


@pytest.mark.parametrize("damage", ["cut", "checksum", "middle", "behind"])
def test_damage_is_an_error(library: zstd.Implementation, damage: str) -> None:
    """It never looks like the end of the file."""
    frame = packed(library, LINES)
    damaged = {
        "cut": frame[:-1],
        "checksum": frame[:-4] + bytes(4),
        "middle": frame[: len(frame) // 2] + bytes(8) + frame[len(frame) // 2 + 8 :],
        "behind": frame + b"garbage",
    }[damage]
    with pytest.raises((EOFError, OSError)):
        reader(library, damaged).read()


def bomb(block_size: int, blocks: int, window: int) -> bytes:
    """Return a frame of blocks that repeat one byte: four bytes become ``block_size``."""
    head = b"\x28\xb5\x2f\xfd\x00" + bytes([(window.bit_length() - 11) << 3])
    block = (block_size << 3 | 1 << 1).to_bytes(3, "little") + b"x"
    last = (block_size << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"x"
    return head + block * (blocks - 1) + last


def test_a_bomb_is_unpacked_in_bounded_memory(library: zstd.Implementation) -> None:
    """16 KB expand to 512 MiB, of which only small parts are in memory at once."""
    size = 128 << 10
    read = 0
    tracemalloc.start()
    try:
        with reader(library, bomb(size, 4096, 1 << 20)) as source:
            while piece := source.read(1 << 20):
                read += len(piece)
        assert tracemalloc.get_traced_memory()[1] < 160 << 20
    finally:
        tracemalloc.stop()
    assert read == 512 << 20


def test_a_frame_that_wants_much_memory_is_refused(library: zstd.Implementation) -> None:
    """The decompressor would have to keep its window in memory."""
    assert reader(library, bomb(1024, 2, zstd.MAX_WINDOW)).read() == b"x" * 2048
    with pytest.raises(OSError, match="memory"):
        reader(library, bomb(1024, 2, 2 * zstd.MAX_WINDOW)).read()
