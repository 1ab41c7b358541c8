"""The section ``living``: sessiond on a host with very many living processes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench.consumers import Sessiond, runtime_directory
from bench.host import BenchError, audit_lent, memory, raised
from bench.load import built
from bench.plan import FAILURES, Plan, Row, in_build, note, work

_SOURCE: Final = Path(__file__).with_name("living.c")
_LIMIT: Final = 400_000  # processes
# Seconds until procfs has been read for all processes and a state is saved.
_SETTLE: Final = 15.0


def living(plan: Plan) -> list[Row]:
    """Measure start, memory, save and restart with ``plan.living`` other processes."""
    if plan.living > _LIMIT // 2:
        raise BenchError(f"--living: at most {_LIMIT // 2}")
    rows = []
    for ours in (each for each in plan.installed if each.audit):
        try:
            with audit_lent(), work(plan) as directory, _processes(directory, plan.living):
                row = _measured(ours, directory, plan.living)
            row |= _saved(ours, plan.living)
        except FAILURES as error:
            plan.failed(ours, error)
            continue
        rows.append(row)
        note(f"{ours.name}: ready in {row['start_s']:.2f} s, again in {row['restart_s']:.2f} s")
    return rows


@contextmanager
def _processes(directory: Path, number: int) -> Iterator[None]:
    program = built(_SOURCE, directory)
    with ExitStack() as stack:
        for setting in ("pid_max", "threads-max"):
            stack.enter_context(raised(Path("/proc/sys/kernel") / setting, _LIMIT))
        process = stack.enter_context(
            subprocess.Popen(
                [str(program), str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        # It ends with its input, and with it all processes; the stack waits for that.
        stack.callback(process.stdin.close)
        if not process.stdout.readline():
            raise BenchError(f"can't start {number} processes: {process.stderr.read().strip()}")
        yield


def _measured(ours: Sessiond, directory: Path, number: int) -> Row:
    state = runtime_directory(directory) / "state"
    with ours.running(directory) as first:
        resident = memory(first.pid)["pss"]
        deadline = time.monotonic() + _SETTLE
        while time.monotonic() < deadline:
            subprocess.run(["/bin/true"], check=True)  # a state is saved only after input
            time.sleep(0.5)
        settled = memory(first.pid)["pss"]
        size = state.stat().st_size
        first.kill()
    with ours.running(directory) as second:
        again = memory(second.pid)["pss"]
    return {
        "consumer": ours.name,
        "living": number,
        "start_s": first.seconds_to_ready,
        "pss_start_mb": resident,
        "pss_settled_mb": settled,
        "state_mb": size / 1e6,
        "restart_s": second.seconds_to_ready,
        "pss_restart_mb": again,
    }


def _saved(ours: Sessiond, number: int) -> Row:
    """Measure saving and restoring a table of that size in a separate pipeline."""
    save, restore = map(float, in_build(ours, "bench.paper", "save", number).split())
    return {"save_s": save, "restore_s": restore}
