"""Runs one fuzz target, guided by coverage: ``python tests/fuzz/run.py TARGET [OPTION...]``.

A target is a module in this directory: its docstring is its invariant, ``one`` checks it for some
bytes, ``SEEDS`` are initial inputs. ``corpus/TARGET`` has the earlier findings, one file each.
Options are libFuzzer's, such as ``-max_total_time=60`` (seconds) or a file to repeat.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TARGETS = sorted(
    path.stem for path in HERE.glob("*.py") if path.stem not in ("run", "seeds", "test_fuzz")
)
LIMITS = ("-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1")


def inputs(name: str, target: Any) -> Iterable[bytes]:
    """Return all inputs that a target must handle: its seeds, and earlier findings."""
    yield from target.SEEDS
    for path in sorted((HERE / "corpus" / name).glob("*")):
        yield path.read_bytes()


def main(name: str, options: list[str]) -> None:
    """Fuzz until a finding, or as long as an option says."""
    import atheris

    sys.path.insert(0, str(HERE.parent))
    with atheris.instrument_imports(include=["sessiond"]):
        target = importlib.import_module(f"fuzz.{name}")
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(inputs(name, target)):
            Path(corpus, str(number)).write_bytes(data)
        again = [option for option in options if not option.startswith("-")]
        atheris.Setup([sys.argv[0], *LIMITS, *options, *([] if again else [corpus])], target.one)
        atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: run.py TARGET [OPTION...]; targets: {' '.join(TARGETS)}")
    main(sys.argv[1], sys.argv[2:])
