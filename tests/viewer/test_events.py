"""Lines are decoded as far as the viewer needs them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.viewer.events import decode, identity


@given(st.text(max_size=20))
def test_an_entity_id_is_found_without_decoding(text: str) -> None:
    """The id may contain any characters, and may be any member of the object."""
    first = msgspec.json.encode({"entity_id": text, "pid": 1})
    later = msgspec.json.encode({"pid": 1, "entity_id": text})
    assert identity(first) == identity(later) == text


def test_no_relative_has_no_id() -> None:
    """A relative that is left out."""
    assert identity(b"") == ""


def test_a_wrong_type_is_an_error() -> None:
    """A value of another type is not converted."""
    with pytest.raises(msgspec.DecodeError):
        decode(b'{"@timestamp":"2026-05-01T10:00:00Z","event":{"action":7}}')
