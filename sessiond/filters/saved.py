"""The types of the filters' state that a restart saves.

This module is not compiled: a state is read by the types of the members, and mypyc keeps only
plain ones such as ``str``.
"""

from __future__ import annotations

from typing import NamedTuple

from sessiond.process.table import Verdict


class Kind(NamedTuple):
    """The values that distinguish the lines of a folding filter.

    ``what`` is "process" for a process's life, else the action of the event; ``code`` is the exit
    code of a process, or the outcome of another event.
    """

    filter: str
    what: str
    executable: bytes | None
    parent: bytes | None
    user: int | None
    entry: str | None
    code: str


class SavedFilters(NamedTuple):
    """The state for a restart: the unreported counts, and the open windows."""

    since: int | None
    unreported: list[tuple[Verdict, int, int]]
    folds: list[tuple[Kind, tuple[int, int, int, int, int, bytes | None, str]]]
