"""Process events as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scripted import Host
from support.story import Story

from sessiond.errors import SavedStateError
from sessiond.process.events import CgroupSeen, Lost, ProcessEvent
from sessiond.restart.event_log import decode, encode


def test_every_kind_of_event_comes_back_as_it_was() -> None:
    """Every kind of event is included."""
    events: list[ProcessEvent] = [*Host().snapshot(), *Story(Host()).events]
    events += [CgroupSeen(7, b"/system.slice"), Lost(5, "exec", 3)]
    assert {type(each) for each in events} == set(ProcessEvent.__args__)
    assert decode(encode(events)) == events


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(data: bytes) -> None:
    """Any bytes give a list of events or one error."""
    try:
        assert isinstance(decode(data), list)
    except SavedStateError:
        return


def test_an_unknown_kind_is_refused() -> None:
    """A later version may have further kinds."""
    with pytest.raises(SavedStateError):
        decode(b"\x91\x92\x63\x90")
