"""Auditbeat's YAML as a tree: dotted and nested keys are equal, and each setting has its line."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.errors import ConfigError
from sessiond.migrate.tree import MAX_SETTINGS, Setting, read


def tree(text: str, **variables: str) -> Setting:
    return read(text, "a.yml", variables)


@pytest.mark.parametrize(
    "text",
    [
        "output.file.path: /x\noutput.file.mode: 1",
        "output:\n  file:\n    path: /x\n    mode: 1",
        "output.file: {path: /x}\noutput: {file.mode: 1}",
        "x: &x {path: /x}\noutput.file: {<<: *x, mode: 1}",
    ],
)
def test_dotted_and_nested_keys_are_one(text: str) -> None:
    """Both forms can be used side by side."""
    file = tree(text).at("output.file")
    assert file is not None
    assert file.plain() == {"path": "/x", "mode": 1}


def test_each_setting_has_its_line() -> None:
    """This includes members of a list; a text block starts in the line after its key."""
    root = tree("a:\n- b: 1\n  c: |\n    first\n- d.e: 2\n")
    first, second = root.members["a"].items
    assert (first.line, first.members["b"].line) == (2, 2)
    assert (first.members["c"].line, first.members["c"].first_line) == (3, 4)
    assert second.members["d"].members["e"].line == 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${HOME_OF}/x", "/home/x"),
        ("${OTHER:/default}/x", "/default/x"),
        ("${HOME_OF:/default}", "/home"),
        ("${OTHER:}", ""),
        ("${OTHER}", "${OTHER}"),
        ("%{[agent.version]}", "%{[agent.version]}"),
    ],
)
def test_variables_are_replaced(text: str, value: str) -> None:
    """Unset variables have their default; without one they stay as they are."""
    assert tree(f"a: '{text}'", HOME_OF="/home").take("a") == value


def test_what_nobody_used_is_told_once() -> None:
    """A completely unused section is one entry, otherwise each unused member."""
    root = tree("a:\n  b: 1\n  c: {d: 2, e: 3}\nf.g.h: 4\ni: [1, {j: 2}]\n")
    root.take("a.b")
    assert list(root.unused()) == [("a.c", 3), ("f", 4), ("i", 5)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "a.yml:1: not valid YAML"),
        ("a:\n\tb: 1", "a.yml:2: not valid YAML"),
        ("- a", "a.yml: no configuration"),
        ("? [a]\n: 1", "a.yml:1: not valid YAML: a key is no text"),
        ("a: !!int x", "a.yml: not valid YAML"),
        ("a: !unknown x", "a.yml:1: not valid YAML"),
        ("a: &a [*a]", "a.yml: not valid YAML: nested too deeply"),
        ("\x00", "a.yml: not valid YAML"),
    ],
)
def test_what_is_no_configuration_is_one_line(text: str, message: str) -> None:
    """The message has file and line, as far as they are known."""
    with pytest.raises(ConfigError) as caught:
        tree(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_file_that_multiplies_itself_is_refused() -> None:
    """Nested aliases would exceed any memory."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match=f"more than {MAX_SETTINGS} settings"):
        tree("\n".join(lines))


@given(st.text(alphabet=st.sampled_from("ab.:-[]{}&*<>|!?'\"#,~ \n\t0$")))
def test_no_text_makes_it_fail(text: str) -> None:
    """Any text gives a tree or a configuration error."""
    with contextlib.suppress(ConfigError):
        list(tree(text).unused())
