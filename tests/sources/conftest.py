"""The sources under test, on the real kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from sessiond.sources import ARGS_LIMIT, RING_BYTES, Source, open_source
from sessiond.sources.ebpf.source import EbpfSource
from sessiond.sources.procfs.reader import Procfs


@pytest.fixture
def procfs() -> Procfs:
    """The host's procfs."""
    return Procfs()


@pytest.fixture(scope="module")
def shared_ebpf() -> Iterator[EbpfSource]:
    """One eBPF source for a whole module: loading it takes most of a second."""
    source, declined = open_source("ebpf", Procfs())
    assert isinstance(source, EbpfSource)
    assert declined == []
    yield source
    source.close()


@pytest.fixture
def ebpf(shared_ebpf: EbpfSource) -> EbpfSource:
    """The eBPF source, drained of events before the test."""
    shared_ebpf.drain()
    return shared_ebpf


@pytest.fixture
def open_ebpf(procfs: Procfs) -> Iterator[Callable[..., Source]]:
    """A function that opens further eBPF sources; they are closed after the test."""
    opened: list[Source] = []

    def open_one(ring_bytes: int = RING_BYTES, args_limit: int = ARGS_LIMIT) -> Source:
        source, _ = open_source("ebpf", procfs, ring_bytes=ring_bytes, args_limit=args_limit)
        opened.append(source)
        return source

    yield open_one
    for source in opened:
        source.close()
