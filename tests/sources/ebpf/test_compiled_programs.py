"""The file of compiled programs: it gives back what was compiled, or says why it does not."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.sources.ebpf import compiled_programs as compiled
from sessiond.sources.ebpf.bpf import Map
from sessiond.sources.ebpf.compiled_programs import CompiledPrograms, UnusableCacheError

KEY = bytes(range(32))
RING = Map("ring", 27, 0, 0, 8192, 0)
LOST = Map("lost", 2, 4, 8, 8, 1024)
RETURN = struct.pack("=BBhi", 0x95, 0, 0, 0)
PROGRAMS = CompiledPrograms((RING, LOST), {"on_fork": RETURN, "on_exec": RETURN * 3})


def load(value: int, *, of_map: bool) -> bytes:
    """Return BPF_LD_IMM64 of a map's address or of a constant, into register 2."""
    high = 0 if of_map else 7
    return struct.pack("=BBhiBBhi", 0x18, 2 | of_map << 4, 0, value, 0, 0, 0, high)


def test_only_loads_of_maps_are_changed() -> None:
    """A constant that equals a descriptor stays, and so does the second half of a load."""
    code = load(9, of_map=True) + load(9, of_map=False) + RETURN
    changed = compiled.with_maps(code, {9: 4}.__getitem__)
    assert changed == load(4, of_map=True) + load(9, of_map=False) + RETURN


def test_programs_share_their_maps() -> None:
    """A map that two programs use is one map in the next load as well."""
    code = {
        "first": load(7, of_map=True) + load(5, of_map=True),
        "second": load(5, of_map=True),
    }
    programs = compiled.from_compiler(code, {7: RING, 5: LOST}.__getitem__)
    assert programs.maps == (RING, LOST)
    assert programs.programs["second"] == load(1, of_map=True)


INSTRUCTIONS = st.lists(
    st.one_of(
        st.builds(load, st.integers(0, 1000), of_map=st.booleans()),
        st.just(RETURN),
        st.binary(min_size=8, max_size=8).filter(lambda code: code[0] != 0x18),
    )
).map(b"".join)


@given(INSTRUCTIONS)
def test_the_kernel_gets_what_was_compiled(code: bytes) -> None:
    """If the new maps have the old descriptors, the instructions are those of the compiler."""
    seen: list[int] = []

    def map_of(descriptor: int) -> Map:
        seen.append(descriptor)
        return Map(f"map{descriptor}", 2, 4, 8, 1, 0)

    programs = compiled.from_compiler({"program": code}, map_of)
    assert len(programs.maps) == len(seen) == len(set(seen))
    assert compiled.with_maps(programs.programs["program"], seen.__getitem__) == code


@given(st.binary(max_size=64))
def test_any_bytes_are_instructions_or_refused(data: bytes) -> None:
    """Whatever the bytes are, the result has their size, or there is a ValueError."""
    try:
        changed = compiled.with_maps(data, lambda _: 1)
    except ValueError:
        return
    assert len(changed) == len(data)


@pytest.mark.parametrize(
    "code",
    [RETURN[:-1], load(1, of_map=True)[:8], struct.pack("=BBhi", 0x18, 0x20, 0, 1) + bytes(8)],
    ids=["half an instruction", "half a load", "the value of a map"],
)
def test_instructions_that_can_not_be_changed_are_refused(code: bytes) -> None:
    """They would refer to a descriptor of the process that compiled them."""
    with pytest.raises(ValueError, match=r"instructions|load"):
        compiled.with_maps(code, lambda _: 1)


def test_the_file_returns_the_programs(tmp_path: Path) -> None:
    """Its directory is created; nobody else can read or write there."""
    file = tmp_path / "cache/ebpf-programs"
    compiled.write(file, KEY, PROGRAMS)
    assert compiled.read(file, KEY) == PROGRAMS
    assert (file.parent.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_new_version_replaces_the_file(tmp_path: Path) -> None:
    """Only the current programs are kept."""
    file = tmp_path / "ebpf-programs"
    compiled.write(file, KEY, PROGRAMS)
    new = PROGRAMS._replace(programs={"on_fork": RETURN})
    compiled.write(file, KEY[::-1], new)
    assert os.listdir(tmp_path) == [file.name]
    assert compiled.read(file, KEY[::-1]) == new


@given(st.integers(0), st.integers(1, 255))
def test_a_damaged_file_is_refused(place: int, change: int) -> None:
    """No changed byte gets into the kernel."""
    data = bytearray(compiled.content(PROGRAMS, KEY))
    data[place % len(data)] ^= change
    with pytest.raises(UnusableCacheError):
        compiled.parse(bytes(data), KEY)


@given(st.integers(0))
def test_a_truncated_file_is_refused(size: int) -> None:
    """A host may have lost its power while the file was written."""
    data = compiled.content(PROGRAMS, KEY)
    with pytest.raises(UnusableCacheError):
        compiled.parse(data[: size % len(data)], KEY)


def test_a_file_of_another_key_is_refused() -> None:
    """The programs of another kernel would read other members."""
    with pytest.raises(UnusableCacheError, match="another kernel"):
        compiled.parse(compiled.content(PROGRAMS, KEY), KEY[::-1])


def test_a_file_that_another_user_could_have_written_is_refused(tmp_path: Path) -> None:
    """The reason says why."""
    file = tmp_path / "ebpf-programs"
    with pytest.raises(UnusableCacheError, match="none yet"):
        compiled.read(file, KEY)
    compiled.write(file, KEY, PROGRAMS)
    for mode, reason in ((0o620, "its group can write"), (0o602, "others can write")):
        file.chmod(mode)
        with pytest.raises(UnusableCacheError, match=reason):
            compiled.read(file, KEY)
    file.chmod(0o600)
    (tmp_path / "again").hardlink_to(file)
    with pytest.raises(UnusableCacheError, match="2 names"):
        compiled.read(file, KEY)
    (tmp_path / "again").unlink()
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(UnusableCacheError, match="can't be read"):
        compiled.read(tmp_path / "link", KEY)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its content could be chosen by that user."""
    file = tmp_path / "ebpf-programs"
    compiled.write(file, KEY, PROGRAMS)
    os.chown(file, 65534, 65534)
    with pytest.raises(UnusableCacheError, match="belongs to uid 65534"):
        compiled.read(file, KEY)


@pytest.mark.parametrize("changed", ["release", "version", "machine"])
def test_the_key_is_that_of_one_kernel(monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    """The same text has another key on another kernel; the name of the host does not matter."""
    here = {"nodename": "a", "release": "6.1.0-9", "version": "#1 SMP", "machine": "x86_64"}
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(**here))
    key = compiled.cache_key("text")
    here["nodename"] = "b"
    assert compiled.cache_key("text") == key
    here[changed] += "1"
    assert compiled.cache_key("text") != key


def test_the_key_is_that_of_one_text_and_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The text has the layouts of the structs and the limits; another bcc compiles differently."""
    keys = {compiled.cache_key("text"), compiled.cache_key("text of other limits")}
    monkeypatch.delitem(sys.modules, "bcc", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc/__init__.py").write_text("raise ImportError('it is not imported')")
    keys.add(compiled.cache_key("text"))
    for version in ("0.26.0", "0.30.0"):
        (tmp_path / "bcc/version.py").write_text(f"__version__ = '{version}'\n")
        keys.add(compiled.cache_key("text"))
    assert len(keys) == 5
