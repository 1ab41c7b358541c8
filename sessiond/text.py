"""Converts bytes to text, and text to one printable line."""

from __future__ import annotations


def display(raw: bytes) -> str:
    r"""Decode bytes: valid UTF-8 stays, every other byte becomes \xNN, a backslash is unchanged."""
    return raw.decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """Return a text as one line that is safe on a terminal.

    Unprintable characters (newlines, escapes, bidirectional controls) are escaped as in Python.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
