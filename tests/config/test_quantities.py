"""Sizes, durations and modes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.config.quantities import Duration, Labels, Mode, OctalInt, Size, show


@pytest.mark.parametrize(
    ("written", "size"),
    [(4096, 4096), ("10MB", 10_000_000), ("64MiB", 64 << 20), ("1 gib", 1 << 30), ("7b", 7)],
)
def test_a_size_has_a_unit_or_is_bytes(written: object, size: int) -> None:
    """MB is a power of ten, MiB a power of two."""
    assert Size.parse(written) == size


@pytest.mark.parametrize(
    ("written", "seconds"), [(2, 2), (0.5, 0.5), ("500ms", 0.5), ("1h30m", 5400), ("2d", 172_800)]
)
def test_a_duration_has_units_or_is_seconds(written: object, seconds: float) -> None:
    """Several units add up."""
    assert Duration.parse(written) == seconds


@pytest.mark.parametrize("written", ["0640", "640", 640, OctalInt(0o640), "0o640"])
def test_a_mode_is_octal_however_it_is_written(written: object) -> None:
    """YAML reads 0640 as octal and 640 as decimal; both mean the same."""
    assert Mode.parse(written) == 0o640


@pytest.mark.parametrize("kind", [Size, Duration, Mode])
@pytest.mark.parametrize("wrong", [True, None, "", "-1", "1 parsec", [], 1e999, "9" * 99])
def test_what_is_none_is_refused(kind: type[Size | Duration | Mode], wrong: object) -> None:
    """Ambiguous values are refused."""
    with pytest.raises(ValueError, match="not "):
        kind.parse(wrong)


@given(st.integers(0, 10**15 - 1))
def test_a_shown_size_is_read_back(number: int) -> None:
    """The shown value is valid in the file."""
    assert Size.parse(show(Size(number))) == number


@given(st.integers(0, 10**9))
def test_a_shown_duration_is_read_back(milliseconds: int) -> None:
    """Parsing the shown text gives the same duration."""
    duration = Duration(milliseconds / 1000)
    assert abs(Duration.parse(show(duration)) - duration) <= duration * 1e-5


@given(st.integers(0, 0o777))
def test_a_shown_mode_is_read_back(bits: int) -> None:
    """Parsing the shown text gives the same mode."""
    assert Mode.parse(show(Mode(bits))) == bits


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_any_value_can_be_shown_in_one_short_line(value: object) -> None:
    """Any value is shown as one line."""
    shown = show(value)
    assert "\n" not in shown
    assert len(shown) < 700


def test_labels_are_names_with_a_text_each() -> None:
    """Numbers and booleans become text, as ECS defines labels."""
    given = {"env": "prod", "rack": 7, "spot": True, "load": 0.5}
    assert Labels.parse(given) == {"env": "prod", "rack": "7", "spot": "true", "load": "0.5"}
    assert show(Labels.parse({"env": "prod"})) == "{env: prod}"


@pytest.mark.parametrize(
    "wrong", [["env"], "env", {"": "x"}, {"a.b": "x"}, {1: "x"}, {"a": ""}, {"a": None}, {"a": []}]
)
def test_what_cannot_be_a_label_is_refused(wrong: object) -> None:
    """A name with a dot would become an object; empty texts are refused as well."""
    with pytest.raises(ValueError, match="label"):
        Labels.parse(wrong)
