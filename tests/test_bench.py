"""bench/run: its help, its errors, and a measurement."""

import gzip
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import instructions, report, sections, slowdown
from bench.consumers import Running
from bench.host import BenchError, raised
from bench.load import Spawner, arrived, built
from bench.plan import Plan
from bench.rotation import Stored

RUN = Path(__file__).parent.parent / "bench" / "run"
MACHINE = {"cpu": "A processor", "cores": 2, "memory_mb": 8000, "kernel": "6.1.0",
           "python": "3.11.2", "load_average": 0.1}  # fmt: skip


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(RUN), *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def plan_in(directory: Path) -> Plan:
    return Plan(
        consumers=[], ours=[], spawner=None, directory=directory, rounds=1, seconds=None,
        flat_seconds=1, idle_seconds=1, rate=500, living=1, quick=True, backend="ebpf",
    )  # fmt: skip


def cells(section: str, rows: list[dict[str, Any]]) -> list[list[str]]:
    """Return the table that is printed for a section, by line and cell."""
    found: dict[str, Any] = {
        "machine": MACHINE, "date": "2026-01-01", "commit": None, "command": "bench/run",
        "left_out": [], "sections": {section: rows},
        "options": {"rate": 500, "seconds": 10, "rounds": 1, "living": 100_000},
    }  # fmt: skip
    _, table = report.text(found).split("\n\n")
    return [re.split(r"  +", line.strip()) for line in table.splitlines()[1:]]


# --- the command -----------------------------------------------------------------------------


def test_help_names_every_section() -> None:
    """A user of a single section finds its name."""
    done = bench("--help")
    assert done.returncode == 0
    for section in sections.SECTIONS:
        assert re.search(rf"^  {section} +\w", done.stdout, re.MULTILINE), section


def test_a_wrong_option_is_one_line() -> None:
    """There is no traceback, and nothing is measured."""
    done = bench("--rate", "0")
    assert done.returncode == 2
    assert "argument --rate: must be at least 1" in done.stderr


def test_the_growing_table_is_measured() -> None:
    """A pipeline runs with 100 and with 10,000 processes, and both cost something."""
    done = bench("--quick", "--section", "table", "--no-save")
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^sessiond +([\d,]+) +([\d.]+) +[\d.]+$", done.stdout, re.MULTILINE)
    assert [size for size, _ in rows] == ["100", "10,000"]
    assert all(float(cost) > 1 for _, cost in rows)


# --- the load --------------------------------------------------------------------------------


def test_every_process_of_a_load_has_a_token(tmp_path: Path) -> None:
    """Plain: the number of tokens is that of the processes."""
    truth = Spawner(tmp_path).run(rate=500, seconds=0.2, number=2)
    assert len(truth.started) == truth.pids.total() == truth.number > 10


def test_a_varied_load_has_sessions_of_ten_processes(tmp_path: Path) -> None:
    """Their children count at the same pace, and have the numbers in between."""
    truth = Spawner(tmp_path).run(rate=0, seconds=0.3, number=1, varied=True)
    numbers = [int(token.rsplit(b"-", 1)[1]) for token in truth.started]
    leaders = [number for number in numbers if number % 100 == 0]
    assert numbers[:3] == [0, 10, 11]
    assert truth.number == len(numbers) + 9 * len(leaders)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start something as nobody")
def test_what_a_flooder_tries_always_fails() -> None:
    """It goes on until its time is over, and says how often it tried."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        with Spawner(Path(directory)).refused(0.1) as flooder:
            said, _ = flooder.communicate(timeout=10)
    assert int(said) > 100


def test_what_is_missing_in_the_output_is_counted(tmp_path: Path) -> None:
    """The output has one exec of two processes, and no end."""
    truth = Spawner(tmp_path).run(rate=100, seconds=0.015, number=1)
    first, *others = truth.started
    output = tmp_path / "output"
    output.write_bytes(first + b"\n")
    came = arrived(output, lambda line: line.strip(), truth)
    assert others
    assert (came.execs, came.ends) == (1, 0)


def test_many_processes_live_until_their_input_ends(tmp_path: Path) -> None:
    """Each is a process with a pid of its own; none is left behind."""
    program = built(RUN.with_name("living.c"), tmp_path)
    with subprocess.Popen(
        [str(program), "50"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "50\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 50
    assert process.returncode == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_a_program_that_is_not_built_is_told(tmp_path: Path) -> None:
    """The message has the compiler's output."""
    (tmp_path / "wrong.c").write_text("int main(void) { return missing; }\n")
    with pytest.raises(BenchError, match=r"gcc can't build wrong\.c: .*missing"):
        built(tmp_path / "wrong.c", tmp_path)


# --- the host --------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "meanwhile"), [("32768\n", "400000"), ("500000\n", "500000")])
def test_a_limit_is_raised_for_a_time(tmp_path: Path, before: str, meanwhile: str) -> None:
    """It never sinks, and is as before also after a failure."""
    setting = tmp_path / "pid_max"
    setting.write_text(before)
    seen = []

    def fail() -> None:
        with raised(setting, 400_000):
            seen.append(setting.read_text())
            raise BenchError

    with pytest.raises(BenchError):
        fail()
    assert seen == [meanwhile]
    assert setting.read_text() == before


def test_a_consumer_is_killed_on_purpose_only(tmp_path: Path) -> None:
    """A crash that a section wants is none that it reports."""
    with subprocess.Popen(["sleep", "60"]) as process:
        running = Running(process.pid, tmp_path, 0.0)
        running.kill()
        assert running.killed
        assert process.wait(1) == -9


# --- sections --------------------------------------------------------------------------------


def test_rotated_files_are_counted_as_they_were_written(tmp_path: Path) -> None:
    """Of 6,000 bytes 4,000 are compressed; the ratio is that of these."""
    output = tmp_path / "events.ndjson"
    output.write_bytes(b"x" * 500)
    (tmp_path / "events.ndjson.1").write_bytes(b"x" * 1500)
    (tmp_path / "other").write_bytes(b"x" * 100)
    packed = gzip.compress(b"x" * 4000)
    (tmp_path / "events.ndjson.2.gz").write_bytes(packed)
    stored = Stored.of(output)
    assert stored == Stored(files=3, written=6000, packed=len(packed), unpacked=4000)
    assert stored.share == len(packed) / 4000


def test_without_compression_all_stays_as_it_was_written(tmp_path: Path) -> None:
    """Without compressed bytes there is no division by zero."""
    output = tmp_path / "events.ndjson"
    output.write_bytes(b"x" * 500)
    assert Stored.of(output) == Stored(files=1, written=500, packed=0, unpacked=0)
    assert Stored.of(output).share == 1


def test_slowdown_without_make_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is one line."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match="no make here; it is in the Debian package make"):
        slowdown.slowdown(plan_in(tmp_path))


def test_slowdown_builds_and_runs_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undisturbed, the same work is done as beside a consumer."""

    @contextmanager
    def lent() -> Iterator[None]:
        yield

    monkeypatch.setattr(slowdown, "audit_lent", lent)
    plan = plan_in(tmp_path)
    (row,) = slowdown.slowdown(Plan(**{**vars(plan), "spawner": Spawner(tmp_path)}))
    assert row["consumer"] == "undisturbed"
    assert row["execs_per_s"] > 100
    assert row["build_s"] > 0.01
    assert row["script_s"] > 0.01


def test_instructions_without_valgrind_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a line that says so; that is no failure."""
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = plan_in(tmp_path)
    assert instructions.instructions(plan) == []
    assert plan.left_out == ["instructions: valgrind is not installed"]
    assert plan.failures == []


# --- the report ------------------------------------------------------------------------------


def test_rotation_is_compared_with_auditd() -> None:
    """CPU as a ratio; bytes as they were written, and as they are on disk."""
    row = {"lost": 0, "rotated": 5, "pss_end_mb": 50.0, "rate": 500.0, "processes": 30_000}
    auditd = {"consumer": "auditd", "cpu_us": 100.0, "bytes": 2000.0, "disk_bytes": 2000.0}
    ours = {"consumer": "sessiond, zstd", "cpu_us": 65.0, "bytes": 14000.0, "disk_bytes": 160.0}
    table = cells("rotation", [{**row, **auditd}, {**row, **ours}])
    assert table[1:] == [
        ["auditd", "100.0", "1.00", "2,000", "2,000", "5", "0", "50.0"],
        ["sessiond, zstd", "65.0", "0.65", "14,000", "160", "5", "0", "50.0"],
    ]


def test_slowdown_is_compared_with_the_undisturbed_host() -> None:
    """The median of the rounds, each kind of work for itself."""
    table = cells("slowdown", [
        {"consumer": "undisturbed", "execs_per_s": 8000, "build_s": 2.0, "script_s": 1.0},
        {"consumer": "auditd", "execs_per_s": 4000, "build_s": 2.1, "script_s": 1.5},
        {"consumer": "auditd", "execs_per_s": 4000, "build_s": 2.5, "script_s": 1.5},
    ])  # fmt: skip
    assert table[1:] == [
        ["undisturbed", "8,000", "1.00", "2.00", "1.00", "1.00", "1.00"],
        ["auditd", "4,000", "0.50", "2.30", "1.15", "1.50", "1.50"],
    ]


def test_a_flood_shows_the_number_of_missing_execs() -> None:
    """None is what it should be; a share would hide the few."""
    table = cells("flood", [{
        "consumer": "sessiond", "processes": 80_000, "execs": 79_999, "ends": 80_000, "rate": 8000,
        "refused_per_s": 60_000, "lost": 12_345, "cpu_s": 9.5, "pss_end_mb": 60.0,
    }])  # fmt: skip
    assert table[1] == [
        "sessiond", "80,000", "1", "0", "8,000", "60,000", "12,345", "9.5", "60.0",
    ]  # fmt: skip


def test_memory_has_a_line_for_each_minute() -> None:
    """And a column for each consumer; one that failed has no more figures."""
    table = cells("memory", [
        {"consumer": "sessiond", "seconds": 0.0, "pss": 40.0},
        {"consumer": "sessiond", "seconds": 60.0, "pss": 41.5},
        {"consumer": "sessiond traced", "seconds": 0.0, "pss": 39.0},
    ])  # fmt: skip
    assert table == [
        ["seconds", "sessiond", "sessiond traced"],
        ["0", "40.0", "39.0"],
        ["60", "41.5", "-"],
    ]


def test_living_and_instructions_are_shown() -> None:
    """Each figure is in its column."""
    (_, living) = cells("living", [{
        "consumer": "sessiond", "start_s": 2.5, "pss_start_mb": 110.0, "pss_settled_mb": 115.0,
        "state_mb": 9.0, "save_s": 0.4, "restart_s": 2.9, "pss_restart_mb": 120.0,
    }])  # fmt: skip
    assert living == ["sessiond", "2.50", "110.0", "115.0", "9.0", "0.40", "2.90", "120.0"]
    (_, counted) = cells("instructions", [{"consumer": "sessiond", "instructions": 254_400.0}])
    assert counted == ["sessiond", "254,400"]
