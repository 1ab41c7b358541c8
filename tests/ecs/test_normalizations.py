"""The tables of normalizations: real names, and combinations that ECS allows."""

from __future__ import annotations

import pytest
from ecs_schema.validate import validate

from sessiond.ecs import normalizations


def test_every_meaning_is_what_ecs_allows() -> None:
    """Categories and types are those of ECS, in allowed combinations."""
    variants = [variant[2] for variants in normalizations.VARIANTS.values() for variant in variants]
    for meaning in (
        *normalizations.SYSCALLS.values(),
        *normalizations.RECORD_TYPES.values(),
        *variants,
    ):
        document = {"event": {"category": meaning.category, "type": meaning.types}}
        assert (meaning.action, validate(document)) == (meaning.action, [])
        assert meaning.action


def test_every_name_in_the_tables_is_a_real_one() -> None:
    """Each syscall exists on some machine, and each record type has that number."""
    libaudit = pytest.importorskip("sessiond.audit.rules.libaudit")
    machines = [libaudit.arch(name) for name in ("x86_64", "i386", "aarch64", "s390", "ppc")]
    kernel_names = pytest.importorskip("sessiond.audit.kernel_names")
    known = {kernel_names.syscall_name(number, each) for each in machines for number in range(600)}
    assert normalizations.SYSCALLS.keys() - known <= WORDS_OF_LIBC
    for number, name in normalizations.NAMES.items():
        assert libaudit.message_type_name(number) in (name, None)


# These names are not the kernel's, but those of libraries, manual pages and Auditbeat.
WORDS_OF_LIBC = {"seteuid", "setegid", "futimens", "fstatat", "sysctl"}


def test_an_action_that_peers_are_told_by_exists() -> None:
    """A misspelled name would silently drop source and destination."""
    known = {meaning.action for meaning in normalizations.SYSCALLS.values()}
    assert normalizations.PEER.keys() <= known
    assert known >= normalizations.HOW_IS_SYSCALL
