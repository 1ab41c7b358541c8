"""Bytes as text, and text as one printable line."""

from __future__ import annotations


def display(raw: bytes) -> str:
    r"""Show bytes as text: valid UTF-8 as it is, every other byte as \xNN, backslash unchanged."""
    return raw.decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """Return a text as one line that is safe on a terminal.

    What is not printable (newlines, escapes, bidirectional controls) is written as in Python.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
