r"""Secrets on command lines: found by patterns, replaced by a marker.

The arguments of a command line are searched as one text in which they are parted by NUL, so that a
pattern can distinguish an option from the value in the next argument. The number of arguments never
changes. What is too long to be searched in reasonable time is not shown either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

MARK: Final = "[REDACTED]"

# How much of one command line is searched, in characters: the time for it is bounded by this. One
# argument may have twice as much (MAX_ARG_STRLEN of include/uapi/linux/binfmts.h).
SEARCHED: Final = 65_536

_HEX: Final = re.compile(r"=([0-9A-Fa-f]{8,})(?![^\s'\"\x1d])")
_WORD_ENDS: Final = " \t\n\0"
# Records that hold nothing but a command line, in pieces that no pattern fits.
_COMMAND_LINES: Final = ("type=EXECVE ", "type=PROCTITLE ")


def read_patterns(text: str) -> list[tuple[int, str]]:
    """Return the (line number, pattern) pairs of a pattern file: one a line, # begins a comment."""
    return [
        (number, line.strip())
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


class Redactor:
    """Replaces what patterns find; of a pattern with groups, what these matched."""

    def __init__(self, patterns: Iterable[re.Pattern[str]]) -> None:
        """Take the patterns, which are searched one after the other."""
        self._patterns = list(patterns)

    def arguments(self, args: list[str], *, cut: bool = False) -> list[str]:
        """Return the argument list without secrets, as long as it was.

        ``cut`` says that its end is missing: then the last word is replaced whatever it is, for
        half a secret looks like none.
        """
        if not args:
            return []
        shown = self.text("\0".join(args), cut=cut).split("\0")
        if len(shown) == len(args):
            return shown
        # An argument with a NUL in it is in no argv, but a log may say anything.
        pieces = iter(shown)
        return ["\0".join(islice(pieces, each.count("\0") + 1)) for each in args]

    def text(self, text: str, *, cut: bool = False) -> str:
        r"""Return a command line without secrets; its arguments are parted by \0 or by blanks."""
        rest = ""
        if len(text) > SEARCHED:
            rest, cut = _marked(text[SEARCHED:]), True
            text = text[:SEARCHED]
        if cut:
            end = max(map(text.rfind, _WORD_ENDS)) + 1
            if end < len(text):
                # What is replaced is one with the rest where that goes on with the same word.
                text = text[:end] + (MARK if not rest else "")
        for pattern in self._patterns:
            text = pattern.sub(_replaced, text)
        return text + rest

    def document(self, document: dict[str, Any]) -> None:
        """Replace the secrets in what records left in a document, but for ``process``."""
        auditd = document.get("auditd")
        if auditd:
            document["auditd"] = {name: self._value(name, value) for name, value in auditd.items()}
        event = document.get("event", {})
        if "original" in event:
            original = [self._record(each) for each in event["original"]]
            document["event"] = {**event, "original": original}
        error = document.get("error", {})
        if "message" in error:
            document["error"] = {**error, "message": self._value("warnings", error["message"])}

    def _value(self, name: str, value: Any) -> Any:  # noqa: ANN401 -- JSON
        if isinstance(value, str):
            return self._named(name, value)
        if isinstance(value, dict):
            return {inner: self._value(inner, each) for inner, each in value.items()}
        if isinstance(value, list):
            if name == "messages":
                return [self._record(each) for each in value]
            if name == "warnings":
                return [self.text(each) for each in value]
            return [self._value(name, each) for each in value]
        return value

    def _named(self, name: str, value: str) -> str:
        """Search a field together with its name, which may be the sign of a secret."""
        head = f"{name}="
        found = self.text(head + _HEX.sub(self._in_hex, value))
        return found[len(head) :] if found.startswith(head) else MARK

    def _record(self, line: str) -> str:
        """Search a record as it was read."""
        head, _, text = line.partition("): ")
        if line.startswith(_COMMAND_LINES):
            return f"{head}): {MARK}"
        return f"{head}): {self.text(_HEX.sub(self._in_hex, text))}"

    def _in_hex(self, match: re.Match[str]) -> str:
        try:
            text = bytes.fromhex(match[1]).decode("utf-8", "backslashreplace")
        except ValueError:
            return match[0]
        return match[0] if self.text(text) == text else f"={MARK}"


def _replaced(match: re.Match[str]) -> str:
    """Put the marker where the groups matched, or everywhere."""
    spans = [match.span(n) for n in range(1, match.re.groups + 1) if match.start(n) >= 0]
    if not match.re.groups:
        return _marked(match[0])
    text, begin = match.string, match.start()
    pieces: list[str] = []
    for start, end in sorted(spans):
        if start >= begin and end > start:  # a group in a group is replaced with it
            pieces += text[begin:start], _marked(text[start:end])
            begin = end
    pieces.append(text[begin : match.end()])
    return "".join(pieces)


def _marked(secret: str) -> str:
    """Replace all but the NULs, so that arguments stay as many as they were."""
    return "\0".join(MARK if each else "" for each in secret.split("\0"))
