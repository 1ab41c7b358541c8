"""Several processes with one pid: each keeps its own data."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest
from support.daemon import Daemon, value
from support.stream import agree, inconsistent, malformed

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]

NUMBER = 300

# Makes the kernel assign the same pid repeatedly (proc(5): ns_last_pid), unless another process
# is faster; prints its own pid and the repeated one.
REUSE = f"""
import os, time
pid = next(n for n in range(9000, 30000) if not os.path.exists(f"/proc/{{n}}"))
number = 0
while number < {NUMBER}:
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write(str(pid - 1))
    child = os.fork()
    if not child:
        if os.getpid() != pid:
            os._exit(0)
        if number % 3 == 0:
            os.execv("/bin/sh", ["sh", "-c", f"exit {{number % 200 + 1}}"])
        os._exit(number % 200 + 1)
    os.waitpid(child, 0)
    if child == pid:
        number += 1
        if number % 10 == 0:
            time.sleep(0.02)
print(os.getpid(), pid)
"""


@pytest.mark.parametrize("backend", ["ebpf", "proc_connector"])
def test_a_pid_that_is_reused_repeatedly(make_daemon: MakeDaemon, backend: str) -> None:
    """This includes reuse within the tick in which procfs and the connector measure starts."""
    daemon = make_daemon({"session_metadata": {"backend": backend}}).start()
    printed = subprocess.run(
        [sys.executable, "-c", REUSE], capture_output=True, text=True, check=True
    )
    starter, pid = map(int, printed.stdout.split())
    documents = daemon.settle()
    own = [each for each in documents if value(each, "process.pid") == pid]
    told = Counter((each["process"]["entity_id"], each["event"]["action"]) for each in own)
    assert set(told.values()) == {1}
    # Other processes may have had the pid in between.
    ends = [
        each
        for each in own
        if each["event"]["action"] == "end" and value(each, "process.parent.pid") == starter
    ]
    codes = Counter(value(each, "process.exit_code") for each in ends)
    assert codes == Counter(number % 200 + 1 for number in range(NUMBER))
    agree(malformed(daemon))
    agree(inconsistent(documents))


def test_a_group_that_nothing_can_have_changed_is_its_creators(make_daemon: MakeDaemon) -> None:
    """The connector sees its fork; a possible change of the group is inferred, and marked."""
    daemon = make_daemon({"session_metadata": {"backend": "proc_connector"}}).start()
    with subprocess.Popen(
        ["/usr/bin/setsid", "/bin/sh", "-c", "for i in $(seq 200); do /bin/true; done"],
        stdin=subprocess.DEVNULL,
    ) as shell:
        shell.wait()
    short = [
        each
        for each in daemon.settle()
        if each["event"]["action"] == "exec"
        and value(each, "process.parent.pid") == shell.pid
        and value(each, "process.executable") is None
    ]
    for line in short:
        assert value(line, "process.group_leader.pid") == shell.pid
        assert value(line, "process.session_leader.pid") == shell.pid
        assert any("inferred" in note for note in line["sessiond"]["incomplete"])
