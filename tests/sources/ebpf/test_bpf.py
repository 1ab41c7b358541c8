"""The calls of bpf(2), on the real kernel."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from sessiond.sources.ebpf import bpf
from sessiond.sources.ebpf.bpf import Map

pytestmark = pytest.mark.kernel

RETURN_0 = struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0)
RETURN_NOTHING = RETURN_0[8:]


@pytest.mark.parametrize(
    "wanted",
    [
        Map("ring", 27, 0, 0, 1 << 16, 0),
        Map("counters", 2, 4, 8, 16, 1024),  # BPF_F_MMAPABLE
        Map("ended", 9, 8, 8, 64, 0),
    ],
    ids=lambda wanted: wanted.name,
)
def test_a_map_is_what_it_was_created_from(wanted: Map) -> None:
    """What the kernel says of a map suffices to create another one."""
    first = bpf.create_map(wanted)
    again = bpf.create_map(bpf.map_of(first))
    assert bpf.map_of(again) == wanted
    assert not os.get_inheritable(first)
    os.close(first)
    os.close(again)


def test_a_map_that_the_kernel_refuses_is_an_error() -> None:
    """A ring's size is a power of two."""
    with pytest.raises(OSError, match="Invalid") as caught:
        bpf.create_map(Map("ring", 27, 0, 0, 3 * 4096, 0))
    assert caught.value.errno == errno.EINVAL


def test_a_program_of_a_long_name_is_loaded() -> None:
    """The kernel keeps 15 characters of a name."""
    os.close(bpf.load_program("a_name_of_many_characters", RETURN_0, None))


def test_the_verifier_says_why_it_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    """Its messages are on standard error, beside the exception."""
    with pytest.raises(PermissionError):
        bpf.load_program("unset", RETURN_NOTHING, None)
    assert "R0 !read_ok" in capsys.readouterr().err


def test_what_does_not_exist_is_not_attached() -> None:
    """No link is left over."""
    program = bpf.load_program("nothing", RETURN_0, None)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        bpf.attach_tracepoint(program, "sessiond_has_no_such_tracepoint")
    with pytest.raises(OSError, match="Invalid"):
        bpf.attach_iterator(program)
    with pytest.raises(OSError, match="Bad address"):
        bpf.attach_tracepoint(program, None)
    assert os.listdir("/proc/self/fd") == before
    os.close(program)
