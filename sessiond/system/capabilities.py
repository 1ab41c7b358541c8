"""Gives up capabilities of this thread, for the rest of its life (capabilities(7)).

A thread gets the capabilities of the one that starts it, and capset(2) changes only the calling
thread. So a process gives capabilities up before it starts threads.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from typing import Final, NamedTuple

from sessiond.system.proc import CAPABILITIES

_VERSION_3: Final = 0x20080522  # linux/capability.h: two words of 32 bits for each set


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Word(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


class CapabilitySets(NamedTuple):
    """The sets of a thread, bit n for capability n of linux/capability.h."""

    effective: int
    permitted: int
    inheritable: int


def capability_bits(names: Iterable[str]) -> int:
    """Return a set of capabilities, by their names in CAPABILITIES."""
    return sum(1 << CAPABILITIES[name] for name in set(names))


def current_capabilities() -> CapabilitySets:
    """Return the sets of the calling thread. Raises OSError."""
    words = (_Word * 2)()
    _call("capget", words)
    low, high = words
    return CapabilitySets(
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def give_up(names: Iterable[str], *, inherit: Iterable[str]) -> frozenset[str]:
    """Give up the capabilities ``names``; return those that the calling thread had.

    Programs that it executes from now on get at most ``inherit``, unless they are root's: the
    kernel keeps the ambient set within the inheritable set. Raises OSError if a seccomp filter
    forbids capset(2).
    """
    names = frozenset(names)
    before = current_capabilities()
    kept = ~capability_bits(names)
    sets = CapabilitySets(
        before.effective & kept,
        before.permitted & kept,
        before.inheritable & kept & capability_bits(inherit),
    )
    words = (_Word * 2)(
        *(_Word(*(each >> shift & 0xFFFFFFFF for each in sets)) for shift in (0, 32))
    )
    _call("capset", words)
    return frozenset(name for name in names if before.permitted >> CAPABILITIES[name] & 1)


def _call(function: str, words: ctypes.Array[_Word]) -> None:
    """Call capget(2) or capset(2) for the calling thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(ctypes.byref(_Header(_VERSION_3, 0)), ctypes.byref(words)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
