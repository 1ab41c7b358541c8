"""Terminal, title, arguments and program in a line are those at the time of the event."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon, Document, value
from support.stream import agree, malformed
from support.truth import until

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]

MEMFD = """
import os
fd = os.memfd_create("hidden")
os.write(fd, open("/bin/true", "rb").read())
os.execve(f"/proc/self/fd/{fd}", ["hidden"], {})
"""

# Strict mode (seccomp(2)): any call except read, write and exit ends the process and is recorded.
SECCOMP = """
import ctypes, os
ctypes.CDLL(None).prctl(22, 1)
os.getppid()
"""

# A session on a pseudo terminal whose other end is closed while it runs.
HANG_UP = """
import os, pty, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup(1) ignores it for all that it starts
pid, terminal = pty.fork()
if not pid:
    os.execv("/bin/sleep", ["sleep", "60"])
print(pid, flush=True)
sys.stdin.readline()
os.close(terminal)
os.waitpid(pid, 0)
"""

# Becomes another user in another session by 32-bit calls, and starts a program in it.
LEADER = """
import ctypes, mmap, os

def call(number, argument=0):
    # push rbx; mov eax, number; mov ebx, argument; int 0x80; pop rbx; ret
    code = b"\\x53\\xb8%b\\xbb%b\\xcd\\x80\\x5b\\xc3" % (
        number.to_bytes(4, "little"), argument.to_bytes(4, "little"))
    memory = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if ctypes.CFUNCTYPE(ctypes.c_int)(address)() < 0:
        os._exit(1)

setsid, setgid32, setuid32 = 66, 214, 213
pid = os.fork()
if not pid:
    call(setsid)
    call(setgid32, 65534)
    call(setuid32, 65534)
    if not os.fork():
        os.execv("/bin/true", ["true"])
    os.wait()
    os._exit(0)
os.waitpid(pid, 0)
print(pid)
"""


def lines_of(daemon: Daemon, pid: int) -> list[Document]:
    return [each for each in daemon.settle() if value(each, "process.pid") == pid]


def by_action(daemon: Daemon, pid: int, action: str) -> list[Document]:
    return [each for each in lines_of(daemon, pid) if each["event"]["action"] == action]


def run(*command: str) -> int:
    """Run a command to its end; return its pid."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        process.wait()
    return process.pid


def test_a_cut_connection_leaves_the_session_interactive(daemon: Daemon) -> None:
    """The kernel takes the terminal away before the process ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HANG_UP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        pid = int(server.stdout.readline())
        until(lambda: "sleep" in os.readlink(f"/proc/{pid}/exe"), 5, "the exec")
        server.communicate("\n")
    (end,) = by_action(daemon, pid, "end")
    assert value(end, "process.tty.char_device.major") == 136
    assert value(end, "process.interactive") is True
    assert value(end, "sessiond.signal.number") == signal.SIGHUP


def test_the_title_is_the_programs_own(daemon: Daemon) -> None:
    """The kernel repeats the first title of a task after each exec."""
    pid = run("/bin/bash", "-c", "exec /bin/true X")
    bash, true = by_action(daemon, pid, "exec")
    (end,) = by_action(daemon, pid, "end")
    assert value(bash, "process.title") == "/bin/bash -c exec /bin/true X"
    assert value(true, "process.args") == ["/bin/true", "X"]
    assert value(true, "process.title") is None
    assert value(end, "process.title") is None


def test_arguments_are_counted_as_they_were(make_daemon: MakeDaemon) -> None:
    """The number needs no audit record, and is the same in every line and reference."""
    daemon = make_daemon({"auditd": {"audit_rules": ""}, "event": {"max_args_bytes": 1000}}).start()
    script = "/bin/true; /bin/false; exit 3"
    pid = run("/bin/sh", "-c", script, "sh", *["xy"] * 30_000)
    own = [value(each, "process.args_count") for each in lines_of(daemon, pid)]
    assert set(own) == {30_004}
    children = [
        value(each, "process.parent.args_count")
        for each in daemon.documents()
        if value(each, "process.parent.pid") == pid
    ]
    assert len(children) >= 4
    assert set(children) == {30_004}


def test_a_program_without_a_file_is_marked(daemon: Daemon, tmp_path: Path) -> None:
    """A memfd, and a program that was deleted while it ran, as seen by its children."""
    pid = run(sys.executable, "-c", MEMFD)
    *_, hidden = by_action(daemon, pid, "exec")
    assert value(hidden, "sessiond.executable_deleted") is True
    assert value(hidden, "process.executable") == "/memfd:hidden"
    there = by_action(daemon, run("/bin/true"), "exec")[0]
    assert value(there, "sessiond.executable_deleted") is None


def test_a_killed_process_is_told_by_the_kernels_record(daemon: Daemon) -> None:
    """SECCOMP has no system call; it shows the program that made the call."""
    pid = run(sys.executable, "-c", SECCOMP)
    line = daemon.await_one(5, event__action="violated-seccomp-policy", process__pid=pid)
    assert value(line, "process.executable") == os.path.realpath(sys.executable)
    (end,) = by_action(daemon, pid, "end")
    assert line["@timestamp"] < end["@timestamp"]
    agree(malformed(daemon))


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs 32-bit system calls of x86")
def test_a_fork_tells_what_its_creator_has_become(make_daemon: MakeDaemon) -> None:
    """32-bit calls of setsid and set*id are not reported by themselves."""
    daemon = make_daemon({"auditd": {"audit_rules": ""}})
    daemon.start()
    with subprocess.Popen(
        [sys.executable, "-c", LEADER], stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        leader = int(starter.stdout.read())
    (exec_,) = (
        each
        for each in daemon.settle()
        if value(each, "process.parent.pid") == leader and each["event"]["action"] == "exec"
    )
    assert value(exec_, "process.session_leader.pid") == leader
    assert value(exec_, "process.group_leader.pid") == leader
    assert value(exec_, "process.parent.user.id") == "65534"
    assert [each["event"]["action"] for each in lines_of(daemon, leader)].count("setsid") == 1
    agree(malformed(daemon))
