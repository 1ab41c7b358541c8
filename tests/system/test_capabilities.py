"""Capabilities that a process gives up are gone for good, also in what it starts later."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from sessiond.system.capabilities import capability_bits

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can grant capabilities")

NOBODY = 65534
GRANTED = ("CAP_AUDIT_CONTROL", "CAP_BPF", "CAP_DAC_READ_SEARCH", "CAP_PERFMON")

# Prints the sets of the main thread, of a thread and of a program that start after giving up.
PROGRAM = """
import json, subprocess, threading
from pathlib import Path
from sessiond.system.capabilities import give_up

def sets(status):
    lines = (line.split(":") for line in status.splitlines() if line.startswith("Cap"))
    return {name: int(value, 16) for name, value in lines}

given_up = give_up(["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"], inherit=["CAP_DAC_READ_SEARCH"])
own = sets(Path("/proc/thread-self/status").read_text())
threads = []
thread = threading.Thread(
    target=lambda: threads.append(sets(Path("/proc/thread-self/status").read_text()))
)
thread.start()
thread.join()
program = sets(subprocess.run(
    ["cat", "/proc/self/status"], check=True, capture_output=True, text=True).stdout)
print(json.dumps([sorted(given_up), own, threads[0], program]))
"""


@pytest.fixture(scope="module")
def after() -> tuple[list[str], dict[str, int], dict[str, int], dict[str, int]]:
    """What was given up, and the sets of the process, a thread and a program afterwards."""
    names = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in GRANTED)
    done = subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
         f"--bounding-set=-all,{names}", f"--inh-caps=-all,{names}", f"--ambient-caps=-all,{names}",
         sys.executable, "-c", PROGRAM],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    given_up, *sets = json.loads(done.stdout)
    return given_up, sets[0], sets[1], sets[2]


def test_what_was_given_up_is_what_there_was(
    after: tuple[list[str], dict[str, int], dict[str, int], dict[str, int]],
) -> None:
    """A capability that the process never had isn't listed."""
    assert after[0] == ["CAP_BPF", "CAP_PERFMON"]


def test_a_thread_has_what_is_left(
    after: tuple[list[str], dict[str, int], dict[str, int], dict[str, int]],
) -> None:
    """Both sets lack the capabilities: what is not permitted can't become effective again."""
    left = capability_bits(("CAP_AUDIT_CONTROL", "CAP_DAC_READ_SEARCH"))
    for sets in after[1:3]:
        assert (sets["CapEff"], sets["CapPrm"]) == (left, left)


def test_a_program_gets_what_it_needs_alone(
    after: tuple[list[str], dict[str, int], dict[str, int], dict[str, int]],
) -> None:
    """An executed program has only the capabilities to inherit, in every set."""
    sets = after[3]
    inherited = capability_bits(["CAP_DAC_READ_SEARCH"])
    assert {sets[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {inherited}
