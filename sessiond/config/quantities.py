"""Types of settings that YAML does not have: sizes, durations, labels and more."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import MappingProxyType


class Size(int):
    """A number of bytes; in YAML a number, or text with a unit: ``64MiB``, ``10MB``."""

    units = MappingProxyType(
        {"": 1, "b": 1}
        | {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
        | {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
    )

    @classmethod
    def parse(cls, value: object) -> Size:
        """Parse a YAML scalar; raises ValueError if it is not a size."""
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(value)
        match = re.fullmatch(r"([0-9]{1,15}) ?([A-Za-z]{0,3})", _text(value))
        if match is None or match[2].lower() not in cls.units:
            raise ValueError("not a size")
        return cls(int(match[1]) * cls.units[match[2].lower()])


class Duration(float):
    """A time in seconds; in YAML a number, ``off`` (0), or text: ``500ms``, ``2s``, ``1h30m``."""

    units = MappingProxyType({"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0})

    @classmethod
    def parse(cls, value: object) -> Duration:
        """Parse a YAML scalar; raises ValueError if it is not a duration."""
        if value is False:  # "off" in YAML
            return cls(0)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not math.isfinite(value) or value > 10**12:
                raise ValueError("not a duration")
            return cls(value)
        part = r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)"
        text = _text(value)
        if not re.fullmatch(f"(?:{part})+", text):
            raise ValueError("not a duration")
        parts = re.findall(part, text)
        return cls(math.fsum(float(number) * cls.units[unit] for number, unit in parts))


class OctalInt(int):
    """An integer that was written with a leading 0."""


class Mode(int):
    """Permission bits; in YAML octal digits, with or without the leading 0, quoted or not."""

    @classmethod
    def parse(cls, value: object) -> Mode:
        """Parse a YAML scalar; raises ValueError if it is not a file mode."""
        if isinstance(value, OctalInt):
            digits = f"{value:o}"
        elif isinstance(value, int) and not isinstance(value, bool):
            digits = (
                f"{value:d}" if 0 <= value <= 777 else ""
            )  # 640 in YAML is decimal, and means 0640
        else:
            digits = _text(value).removeprefix("0o")
        if not re.fullmatch(r"0*[0-7]{1,3}", digits):
            raise ValueError("not permission bits")
        return cls(int(digits, 8))


class Labels(dict[str, str]):
    """Names with texts; in YAML a mapping to texts, numbers and booleans."""

    @classmethod
    def parse(cls, value: object) -> Labels:
        """Parse a YAML mapping; raises ValueError if it is none, or a name is not a valid field."""
        if not isinstance(value, dict):
            raise ValueError("not labels")  # noqa: TRY004 - as in _text
        made = cls()
        for name, text in value.items():
            if not isinstance(name, str) or not name.strip() or "." in name:
                raise ValueError("no name of a label")
            if not isinstance(text, str | int | float) or text == "":
                raise ValueError("no value of a label")
            made[name] = text if isinstance(text, str) else show(text)
        return made


class Headers(Labels):
    """HTTP headers; in YAML a mapping of names to texts or numbers."""

    @classmethod
    def parse(cls, value: object) -> Headers:
        """Parse a YAML mapping; raises ValueError if it is none, or not valid in HTTP."""
        made = cls(super().parse(value))
        for name, text in made.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
                raise ValueError("no name of a header field")
            if not re.fullmatch(r"[\x21-\x7e](?:[\x20-\x7e]{0,4000}[\x21-\x7e])?", text):
                raise ValueError("no value of a header field")
        return made


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not text")  # noqa: TRY004 - msgspec's hook expects ValueError
    return value


def show(value: object) -> str:
    """Return a setting's value as a person would write it in YAML; long text is cut."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case Mode():
            return f"{int(value):04o}"
        case Size():
            return _show_size(value)
        case Duration():
            return _show_duration(value)
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case int():
            return f"{value:d}" if abs(value) < 10**30 else "a huge number"
        case float() | Path():
            return str(value)
        case Labels():
            return "{" + ", ".join(f"{name}: {text}" for name, text in value.items()) + "}"
        case tuple():
            return "[" + ", ".join(map(str, value)) + "]"
        case list() | dict():
            return "a list" if isinstance(value, list) else "a section"
    return f"a {type(value).__name__}"


def _show_size(size: Size) -> str:
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return f"{int(size)}"


def _show_duration(duration: Duration) -> str:
    for seconds, name in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if duration >= seconds and duration % seconds == 0:
            return f"{duration / seconds:.0f}{name}"
    return f"{duration * 1000:.12g}ms" if duration else "0s"
