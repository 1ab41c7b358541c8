r"""Redacts secrets on command lines: replaces text that matches patterns by a marker.

The arguments of a command line are searched as one text, separated by NUL, so that a pattern can
distinguish an option from the value in the next argument. The number of arguments never changes.
Text that is too long to be searched in reasonable time is replaced as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

MARK: Final = "[REDACTED]"

# Characters of a command line that are searched, to bound the time. One argument may have twice as
# many (MAX_ARG_STRLEN of include/uapi/linux/binfmts.h).
SEARCHED: Final = 65_536

_HEX: Final = re.compile(r"=([0-9A-Fa-f]{8,})(?![^\s'\"\x1d])")
_WORD_ENDS: Final = " \t\n\0"
# Records that only contain a command line, in pieces that no pattern can match.
_COMMAND_LINES: Final = ("type=EXECVE ", "type=PROCTITLE ")


def read_patterns(text: str) -> list[tuple[int, str]]:
    """Return the (line number, pattern) pairs of a pattern file: one per line, # for comments."""
    return [
        (number, line.strip())
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


class Redactor:
    """Replaces matches of patterns, or of their groups."""

    def __init__(self, patterns: Iterable[re.Pattern[str]]) -> None:
        """Take the patterns, which are applied in order."""
        self._patterns = list(patterns)

    def arguments(self, args: list[str], *, cut: bool = False) -> list[str]:
        """Return the argument list without secrets, with the same number of arguments.

        ``cut`` says that its end is missing: then the last word is always replaced, because half a
        secret may not match any pattern.
        """
        if not args:
            return []
        shown = self.text("\0".join(args), cut=cut).split("\0")
        if len(shown) == len(args):
            return shown
        # No argv has an argument with a NUL, but a log may contain anything.
        pieces = iter(shown)
        return ["\0".join(islice(pieces, each.count("\0") + 1)) for each in args]

    def text(self, text: str, *, cut: bool = False) -> str:
        r"""Return a command line without secrets; arguments are separated by \0 or blanks."""
        rest = ""
        if len(text) > SEARCHED:
            rest, cut = _marked(text[SEARCHED:]), True
            text = text[:SEARCHED]
        if cut:
            end = max(map(text.rfind, _WORD_ENDS)) + 1
            if end < len(text):
                # Extend the replacement if the rest continues the same word.
                text = text[:end] + (MARK if not rest else "")
        for pattern in self._patterns:
            text = pattern.sub(_replaced, text)
        return text + rest

    def document(self, document: dict[str, Any]) -> None:
        """Replace secrets in a document's fields from records, except ``process``."""
        auditd = document.get("auditd")
        if auditd:
            document["auditd"] = {name: self._value(name, value) for name, value in auditd.items()}
        event = document.get("event", {})
        if "original" in event:
            original = [self._record(record) for record in event["original"]]
            document["event"] = {**event, "original": original}
        error = document.get("error", {})
        if "message" in error:
            document["error"] = {**error, "message": self._value("warnings", error["message"])}

    def _value(self, name: str, value: Any) -> Any:  # noqa: ANN401 -- JSON
        if isinstance(value, str):
            return self._named(name, value)
        if isinstance(value, dict):
            return {inner: self._value(inner, member) for inner, member in value.items()}
        if isinstance(value, list):
            if name == "messages":
                return [self._record(element) for element in value]
            if name == "warnings":
                return [self.text(element) for element in value]
            return [self._value(name, element) for element in value]
        return value

    def _named(self, name: str, value: str) -> str:
        """Search a field together with its name, which may indicate a secret."""
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
    """Replace the groups' matches, or the whole match, by the marker."""
    spans = [match.span(n) for n in range(1, match.re.groups + 1) if match.start(n) >= 0]
    if not match.re.groups:
        return _marked(match[0])
    text, begin = match.string, match.start()
    pieces: list[str] = []
    for start, end in sorted(spans):
        if start >= begin and end > start:  # the outer group includes inner ones
            pieces += text[begin:start], _marked(text[start:end])
            begin = end
    pieces.append(text[begin : match.end()])
    return "".join(pieces)


def _marked(secret: str) -> str:
    """Replace everything except NULs, so that the number of arguments stays the same."""
    return "\0".join(MARK if each else "" for each in secret.split("\0"))
