"""The command line of ``bench/run``."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import builds, host, report, sections
from bench.consumers import Auditd, Consumer, Laurel, Sessiond
from bench.load import Spawner
from bench.plan import Plan

_RESULTS = Path(__file__).with_name("results")

_DESCRIPTION = """\
Measures sessiond side by side with auditd (ENRICHED log) and auditd with LAUREL,
in turns and under the same load, prints one table with ratios, and saves it with
all figures as .json and .txt in bench/results/. A peer that is not installed is
left out. The kernel's audit settings and rules are put back as they were, also
after Ctrl-C. Needs root, gcc, and that no audit daemon runs."""

_EPILOG = """\
sections:
  load         CPU per process, completeness, memory and start, at --rate
  flat         the same, as fast as two spawners can
  delay        from exec to the line in the file, at --rate
  idle         CPU while nothing happens, over --idle-seconds
  rules        CPU per process of ours with 1,000 more rules loaded
  rotation     CPU and disk per process with rotation and compression, a varied load
  slowdown     execs a second, a build and a script, undisturbed and beside each
  flood        execs lost while a user floods the host with execs that fail
  memory       memory of ours at --rate, each minute
  living       ours with --living processes: memory, save, restart
  table        CPU of the pipeline as the process table grows (needs no root)
  filters      CPU of the pipeline with filters (needs no root)
  instructions per process in the pipeline, by valgrind (needs no root)
  replay       records a second and peak memory of `sessiond replay` (needs no root)

examples:
  bench/run                                  everything: about 40 minutes
  bench/run --quick                          everything, briefly: figures are rough
  bench/run --section load --section flat --rounds 5
  bench/run --section load --consumer sessiond --rate 2000
  bench/run --compile                        ours compiled, too (built once per state)
  bench/run --section rotation --section memory --seconds 3600
                                             an hour of each consumer
  bench/run --section table --section replay what needs neither root nor peers

The figures differ from run to run; the ratios within one run are what counts.
bench/README.md says what each number means, and how to find where time goes."""


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--section",
        action="append",
        choices=tuple(sections.SECTIONS),
        help="measure only this (can be repeated)",
    )
    parser.add_argument(
        "--consumer",
        action="append",
        choices=("auditd", "laurel", "sessiond"),
        help="measure only this one (can be repeated)",
    )
    parser.add_argument("--rounds", type=_positive, metavar="N", help="default: 3; quick: 1")
    parser.add_argument(
        "--rate",
        type=_positive,
        default=500,
        metavar="N",
        help="processes a second (default: 500)",
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        metavar="S",
        help="of each measurement but flat and idle (default: 10; rotation: 60; slowdown: 3; "
        "memory: 60)",
    )
    parser.add_argument(
        "--flat-seconds", type=_positive, metavar="S", help="of flat (default: 20; quick: 3)"
    )
    parser.add_argument(
        "--idle-seconds", type=_positive, metavar="S", help="of idle (default: 60; quick: 5)"
    )
    parser.add_argument(
        "--living", type=_positive, metavar="N", help="processes of living (default: 100000)"
    )
    parser.add_argument(
        "--backend",
        choices=("auto", "ebpf", "proc_connector", "procfs"),
        default="ebpf",
        help="ours: where processes are learned from (default: ebpf)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="measure a compiled build as well; one that was built of the same source is found "
        "without this",
    )
    parser.add_argument(
        "--compiled",
        type=Path,
        metavar="DIR",
        help="measure the package sessiond in DIR as the compiled one",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round, small tables: to see that it works"
    )
    parser.add_argument(
        "--no-save", action="store_true", help="only print, leave bench/results/ alone"
    )
    return parser.parse_args(words)


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _terminate(number: int, _: object) -> None:
    raise KeyboardInterrupt(number)


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, save; return the exit code: 1 when something could not be measured."""
    asked = _arguments(words)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with tempfile.TemporaryDirectory(prefix="sessiond-bench-") as directory:
            Path(directory).chmod(0o711)
            found = _measure(asked, Path(directory))
    except KeyboardInterrupt:
        print("bench: interrupted; audit is as it was before", file=sys.stderr)
        return 130
    except host.BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    table = report.text(found)
    print(table, end="")
    if not asked.no_save:
        name = found["date"].replace(":", "").replace("+0000", "Z")
        _RESULTS.mkdir(exist_ok=True)
        file = _RESULTS / f"{name}.json"
        file.write_text(json.dumps(found, indent=1) + "\n")
        file.with_suffix(".txt").write_text(table)
        print(f"\nsaved as {file} and .txt")
    return 1 if found["failed"] else 0


def _measure(asked: argparse.Namespace, directory: Path) -> dict[str, Any]:
    left_out: list[str] = []
    wanted = asked.section or list(sections.SECTIONS)
    reason = host.why_not() if sections.KERNEL.intersection(wanted) else None
    if reason:
        if asked.section:
            raise host.BenchError(reason)
        left_out.append(
            f"{', '.join(each for each in wanted if each in sections.KERNEL)}: {reason}"
        )
        wanted = [each for each in wanted if each not in sections.KERNEL]
    ours = _ours(asked, directory) if _wants(asked, "sessiond") else []
    consumers: list[Consumer] = []
    for peer in (Auditd(), Laurel()):
        if not _wants(asked, peer.name) or not sections.KERNEL.intersection(wanted):
            continue
        missing = peer.missing()
        if missing:
            left_out.append(f"{peer.name}: not installed: {missing}")
        else:
            consumers.append(peer)
    consumers += ours
    for each in left_out:
        print(f"bench: left out: {each}", file=sys.stderr)

    plan = Plan(
        consumers=consumers,
        ours=ours,
        spawner=Spawner(directory) if sections.KERNEL.intersection(wanted) else None,
        directory=directory,
        rounds=asked.rounds or (1 if asked.quick else 3),
        seconds=asked.seconds,
        flat_seconds=asked.flat_seconds or (3 if asked.quick else 20),
        idle_seconds=asked.idle_seconds or (5 if asked.quick else 60),
        rate=asked.rate,
        living=asked.living or (2_000 if asked.quick else 100_000),
        quick=asked.quick,
        backend=asked.backend,
        left_out=left_out,
    )
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["bench/run", *sys.argv[1:]]),
        "commit": builds.commit(),
        "machine": host.machine(),
        "options": {
            name: getattr(plan, name)
            for name in ("rounds", "flat_seconds", "idle_seconds", "rate", "living", "backend")
        }
        | {"seconds": plan.length(10)},
        "left_out": left_out,
        "failed": False,
        "sections": {},
    }
    for name in wanted:
        print(f"bench: {name}", file=sys.stderr)
        plan.failures.clear()
        try:
            found["sections"][name] = sections.SECTIONS[name](plan)
        except host.BenchError as error:
            print(f"bench: {name}: {error}", file=sys.stderr)
            plan.failures.append(str(error))
        left_out += [f"{name}: {each}" for each in plan.failures]
        found["failed"] |= bool(plan.failures)
    return found


def _wants(asked: argparse.Namespace, name: str) -> bool:
    return not asked.consumer or name in asked.consumer


def _ours(asked: argparse.Namespace, directory: Path) -> list[Sessiond]:
    plain = builds.plain(directory)
    found = [
        Sessiond("sessiond", plain, backend=asked.backend),
        Sessiond("sessiond traced", plain, backend=asked.backend, audit=False),
    ]
    if asked.compile:
        print("bench: compiling, which takes a minute or two", file=sys.stderr)
        packages: Path | None = builds.build()
    else:
        packages = asked.compiled or builds.compiled()
    if packages:
        if not builds.is_compiled(packages):
            raise host.BenchError(f"{packages}: no compiled package sessiond in it")
        built = packages.resolve()
        found += [
            Sessiond("sessiond compiled", built, backend=asked.backend),
            Sessiond("sessiond compiled traced", built, backend=asked.backend, audit=False),
        ]
    return found
