"""zstd compression, with Python's own library from 3.14 on, else zstandard."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Level 2 makes half the size of gzip in an eighth of the time. Level 3 would take half as long
# again for 1% less.
LEVEL: Final = 2
# Maximum window size of a frame, as in the libraries and the program zstd.
MAX_WINDOW: Final = 128 << 20
# Bytes decompressed at once: four bytes expand to at most 128 KiB.
_PIECE: Final = 1024


class Packer(Protocol):
    """Compresses one frame; zlib's compressobj has the same methods."""

    def compress(self, data: bytes, /) -> bytes:
        """Take data; return the output so far."""
        ...

    def flush(self) -> bytes:
        """Return the remaining output."""
        ...


class Unpacker(Protocol):
    """Decompresses one frame."""

    @property
    def eof(self) -> bool:
        """Whether the frame is complete."""
        ...

    @property
    def unused_data(self) -> bytes:
        """The data after the frame."""
        ...

    def decompress(self, data: bytes, /) -> bytes:
        """Take compressed data; return the output. Raises the library's error."""
        ...


class Implementation(NamedTuple):
    """The functions of a library."""

    packer: Callable[[], Packer]
    unpacker: Callable[[], Unpacker]
    error: type[Exception]


def implementation() -> Implementation | None:
    """Return the available implementation; None if there is none."""
    for name, make in _KNOWN.items():
        try:
            return make(importlib.import_module(name))
        except ImportError:
            continue
    return None


def _of_python(module: ModuleType) -> Implementation:
    """Use compression.zstd (PEP 784)."""
    packing, unpacking = module.CompressionParameter, module.DecompressionParameter
    wanted = {packing.compression_level: LEVEL, packing.checksum_flag: 1}
    bound = {unpacking.window_log_max: MAX_WINDOW.bit_length() - 1}
    return Implementation(
        lambda: module.ZstdCompressor(options=wanted),
        lambda: module.ZstdDecompressor(options=bound),
        module.ZstdError,
    )


def _of_zstandard(module: ModuleType) -> Implementation:
    return Implementation(
        lambda: module.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj(),
        lambda: module.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj(),
        module.ZstdError,
    )


_KNOWN: Final[dict[str, Callable[[ModuleType], Implementation]]] = {
    "compression.zstd": _of_python,
    "zstandard": _of_zstandard,
}


class Reader(io.RawIOBase):
    """Reads consecutive zstd frames in bounded memory, whatever their origin.

    A read raises EOFError if the file ends within a frame, OSError if it is damaged.
    """

    def __init__(self, packed: BinaryIO, using: Implementation) -> None:
        """Read from ``packed``, which stays the caller's."""
        self._packed = packed
        self._library = using
        self._frame: Unpacker | None = None
        self._behind = b""  # the frame that has just ended
        self._unpacked = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer from at most one read of the file; 0 is the end."""
        while not self._unpacked:
            piece = self._behind or self._packed.read(_PIECE)
            self._behind = b""
            if not piece:
                if self._frame is not None:
                    raise EOFError
                return 0
            self._unpacked = memoryview(self._unpack(piece))
        with memoryview(buffer) as room:
            size = min(len(room), len(self._unpacked))
            room[:size] = self._unpacked[:size]
        self._unpacked = self._unpacked[size:]
        return size

    def _unpack(self, piece: bytes) -> bytes:
        if self._frame is None:
            self._frame = self._library.unpacker()
        try:
            unpacked = self._frame.decompress(piece)
        except self._library.error as error:
            raise OSError(str(error)) from None
        if self._frame.eof:
            self._behind = self._frame.unused_data
            self._frame = None
        return unpacked
