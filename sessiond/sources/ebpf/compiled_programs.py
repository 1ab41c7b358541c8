"""The compiled programs as bytes, independent of one load: for a file, and for the kernel.

An instruction that loads the address of a map (BPF_LD_IMM64 with BPF_PSEUDO_MAP_FD, linux/bpf.h)
contains the map's number in ``maps``; before a load the descriptor of a new map takes its place.
The file is only valid for the kernel and the program text for which it was written.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from sessiond.errors import OutputError
from sessiond.sources.ebpf.bpf import Map
from sessiond.system.files import read_file, replace_file

FILE: Final = "ebpf-programs"  # in the cache directory
_FORMAT: Final = 1  # of the file
_MAX_SIZE: Final = 4 << 20  # bytes of the file; the programs need 50 KB
_DIGEST: Final = hashlib.sha256().digest_size

_INSTRUCTION: Final = struct.Struct("=BBhi")  # code, registers, offset, immediate
_LD_IMM64: Final = 0x18  # BPF_LD | BPF_DW | BPF_IMM, which has two instructions' size
_PSEUDO_MAP_FD: Final = 1  # in the upper half of the registers, the source


class CompiledPrograms(NamedTuple):
    """The instructions of each program by its name, and the maps that all of them share."""

    maps: tuple[Map, ...]
    programs: dict[str, bytes]


class UnusableCacheError(Exception):
    """Why a file can't be used, as text."""


def from_compiler(programs: dict[str, bytes], map_of: Callable[[int], Map]) -> CompiledPrograms:
    """Take programs whose instructions contain descriptors, of which ``map_of`` tells the map."""
    maps: dict[int, Map] = {}

    def number(descriptor: int) -> int:
        if descriptor not in maps:
            maps[descriptor] = map_of(descriptor)
        return list(maps).index(descriptor)

    numbered = {name: with_maps(code, number) for name, code in programs.items()}
    return CompiledPrograms(tuple(maps.values()), numbered)


def with_maps(instructions: bytes, replace: Callable[[int], int]) -> bytes:
    """Replace the number or descriptor in each instruction that loads the address of a map.

    Raises ValueError if the bytes are no complete instructions, or refer to memory otherwise.
    """
    if len(instructions) % _INSTRUCTION.size:
        raise ValueError("not a whole number of instructions")
    replaced = bytearray(instructions)
    at = 0
    while at < len(instructions):
        code, registers, offset, immediate = _INSTRUCTION.unpack_from(instructions, at)
        size = _INSTRUCTION.size
        if code == _LD_IMM64:
            size *= 2
            kind = registers >> 4
            if kind not in (0, _PSEUDO_MAP_FD) or at + size > len(instructions):
                raise ValueError(f"an unknown load at byte {at}")
            if kind == _PSEUDO_MAP_FD:
                _INSTRUCTION.pack_into(replaced, at, code, registers, offset, replace(immediate))
        at += size
    return bytes(replaced)


def cache_key(text: str) -> bytes:
    """Return a hash of all that the compiled programs depend on, for the program ``text``.

    The text has the layouts of the kernel's structs and all limits. Beside it these matter: the
    kernel, which verifies the programs, the compiler, and the format of the file.
    """
    host = os.uname()
    parts = (host.release, host.version, host.machine, _compiler(), str(_FORMAT), text)
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _compiler() -> str:
    """Return the place and version of bcc, without importing it: that loads the compiler."""
    found = importlib.util.find_spec("bcc")
    if found is None or found.origin is None:
        return ""
    try:
        return found.origin + Path(found.origin).with_name("version.py").read_text()
    except OSError:
        return found.origin


def read(path: Path, key: bytes) -> CompiledPrograms:
    """Read the programs from a file that ``write`` has written for the same ``key``.

    Raises UnusableCacheError, also if another user could have written the file.
    """
    try:
        data = read_file(path, _MAX_SIZE)
    except FileNotFoundError:
        raise UnusableCacheError("there is none yet") from None
    except OutputError as error:
        raise UnusableCacheError(str(error).removeprefix(f"{path}: ")) from None
    except OSError as error:
        raise UnusableCacheError(f"it can't be read: {error.strerror}") from None
    return parse(data, key)


def parse(data: bytes, key: bytes) -> CompiledPrograms:
    """Return the programs in a file's content. Raises UnusableCacheError."""
    if data[:_DIGEST] != key:
        raise UnusableCacheError("it is of another kernel, version or configuration")
    encoded = data[2 * _DIGEST :]
    if data[_DIGEST : 2 * _DIGEST] != hashlib.sha256(encoded).digest():
        raise UnusableCacheError("it is damaged")
    maps, programs = json.loads(encoded)
    return CompiledPrograms(
        tuple(Map(*each) for each in maps),
        {name: base64.b64decode(code) for name, code in programs.items()},
    )


def content(programs: CompiledPrograms, key: bytes) -> bytes:
    """Return the content of a file with the programs."""
    code = {name: base64.b64encode(each).decode() for name, each in programs.programs.items()}
    encoded = json.dumps((programs.maps, code)).encode()
    return key + hashlib.sha256(encoded).digest() + encoded


def write(path: Path, key: bytes, programs: CompiledPrograms) -> None:
    """Replace the file atomically; create its directory. Raises OutputError or OSError."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    replace_file(path, content(programs, key), mode=0o600)
