"""Attacks of an ordinary user: the daemon stays up and reports other processes correctly."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from support.attacks import USER, Attacks, peak_memory
from support.daemon import Daemon, Document, value
from support.logins import Sshd
from support.truth import until

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]
MIB = 1 << 20


@contextmanager
def attacking(attacks: Attacks, way: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run an attack, and end all its processes at the end."""
    process = attacks.start(way, *arguments)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def first_line(process: subprocess.Popen[bytes]) -> str:
    """Wait until the attack reports that it is running."""
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def test_arguments_can_not_fill_the_memory(make_daemon: MakeDaemon, attacks: Attacks) -> None:
    """300 processes with nine programs each, of 32 KB of short arguments, across a restart."""
    limits = {"max_args_bytes": "32KiB", "max_line_bytes": "32KiB"}  # the defaults
    daemon = make_daemon({"event": limits})
    daemon.prefix = ["nice", "-n", "-5"]  # as in the unit; a hundred programs compete for the CPUs
    daemon.start()
    with attacking(attacks, "arguments", 300, 9, 32_768, 300) as attack:
        assert first_line(attack) == "all"
        subprocess.run(["/bin/true", "after-the-flood"], check=True)
        until(lambda: daemon.find(process__args=["/bin/true", "after-the-flood"]), 60, "its exec")
        assert peak_memory(daemon.pid) < 128 * MIB
        assert daemon.stop() == 0
        daemon.start()
        assert peak_memory(daemon.pid) < 128 * MIB
    lines = daemon.output.read_bytes().splitlines(keepends=True)
    assert max(map(len, lines)) <= 32_768
    assert any(value(each, "sessiond.truncated") for each in daemon.find(event__action="exec"))


def test_long_arguments_take_no_room_from_others(make_daemon: MakeDaemon, attacks: Attacks) -> None:
    """1,080 execs that would fill the ring while it is unread, followed by another exec."""
    daemon = make_daemon({"session_metadata": {"ring_buffer": "4MiB"}}).start()
    os.kill(daemon.pid, signal.SIGSTOP)
    attacks.start("arguments", 120, 9, 32_768, 0).communicate(timeout=60)
    subprocess.run(["/bin/true", "after-the-flood"], check=True)
    os.kill(daemon.pid, signal.SIGCONT)
    until(lambda: daemon.find(process__args=["/bin/true", "after-the-flood"]), 60, "its exec")
    assert daemon.status()["ledger"]["tracer"]["lost"] == 0


SSHD = "/usr/sbin/sshd"


def executed(daemon: Daemon, token: str) -> Document:
    """Wait for the exec of ``/bin/true TOKEN``, and check that its entry is not an ssh login."""
    found: list[Document] = until(
        lambda: daemon.find(event__action="exec", process__args=["/bin/true", token]), 30, token
    )
    entry = value(found[0], "process.entry_leader.entry_meta") or {}
    assert entry.get("type") != "sshd"
    assert "source" not in entry
    return found[0]


def test_a_library_in_the_real_sshd_is_no_login(daemon: Daemon, attacks: Attacks) -> None:
    """The program belongs to root, but a library of the user runs in it (LD_PRELOAD)."""
    fake = attacks.execute(
        [SSHD],
        LD_PRELOAD=str(attacks.preload),
        ATTACK_LOGIN="/bin/true by-library; :",
        SSH_CONNECTION="192.0.2.66 1 192.0.2.1 22",
    )
    assert fake.wait(10) == 0
    executed(daemon, "by-library")


def test_a_program_mounted_over_sshd_is_no_login(daemon: Daemon, attacks: Attacks) -> None:
    """In a user's own mount namespace the user chooses the file at /usr/sbin/sshd."""
    mount = f"mount --bind {attacks.program} {SSHD} && exec {SSHD} login '/bin/true by-mount; :'"
    fake = attacks.execute(["unshare", "-Urm", "sh", "-c", mount])
    assert fake.wait(10) == 0, "this host gives users no namespaces"
    executed(daemon, "by-mount")
    fakes = daemon.find(event__action="exec", process__executable=SSHD)
    assert all(value(each, "sessiond.mount_namespace") for each in fakes)
    assert fakes


def test_a_path_through_another_namespace_is_no_login(daemon: Daemon, attacks: Attacks) -> None:
    """The program is executed through /proc/PID/root, from the host's own namespace."""
    mount = f"mount --bind {attacks.program} {SSHD} && echo ready && exec sleep 60"
    holder = attacks.execute(["unshare", "-Urm", "sh", "-c", mount])
    try:
        assert first_line(holder) == "ready"
        path = f"/proc/{holder.pid}/root{SSHD}"
        assert attacks.execute([path, "login", "/bin/true by-root; :"]).wait(10) == 0
    finally:
        holder.kill()
        holder.communicate()
    executed(daemon, "by-root")
    (fake,) = daemon.find(event__action="exec", process__executable=SSHD)
    assert value(fake, "sessiond.mount_namespace")


def test_a_path_of_no_namespace_is_marked(daemon: Daemon, attacks: Attacks) -> None:
    """A file of a mount that is gone: its path looks like one of the host, which it never was."""
    tree = attacks.program.parent / "tree"
    (tree / "usr/sbin").mkdir(parents=True)
    shutil.copy("/bin/true", tree / "usr/sbin/cron")
    attack = attacks.start("detached", tree, "usr/sbin/cron", "by-detached")
    assert attack.wait(10) == 0, "this host gives users no namespaces"
    for action in ("exec", "end"):
        document = daemon.await_one(
            event__action=action, process__args=["usr/sbin/cron", "by-detached"]
        )
        assert document["process"]["executable"] == "/usr/sbin/cron"
        assert value(document, "sessiond.mount_namespace")


def test_a_debugger_can_not_change_long_arguments(daemon: Daemon, attacks: Attacks) -> None:
    """The tracer reads the first 4 KiB during the exec; audit reads all, but later."""
    assert attacks.start("altered", 20_000, "as-executed").wait(10) == 0
    for action in ("exec", "end"):
        document: Document = until(
            lambda action=action: [
                each
                for each in daemon.find(event__action=action, process__executable="/usr/bin/true")
                if len(value(each, "process.args")[-1]) > 1_000
            ],
            10,
            f"the {action} of the altered process",
        )[0]
        args = document["process"]["args"]
        assert (args[:2], set(args[2])) == (["true", "as-executed"], {"a"})
        assert "process.args" in document["sessiond"]["truncated"]


def test_what_a_login_writes_into_its_environment_is_no_address(
    make_daemon: MakeDaemon, sshd: Sshd, tmp_path: Path
) -> None:
    """For a session older than the daemon, the connection is the one that sshd accepted."""
    forged = "SSH_CONNECTION='192.0.2.66 1 192.0.2.1 22'"
    started, ready = tmp_path / "started", tmp_path / "ready"
    wait = f"touch {started}; until [ -e {ready} ]; do sleep 0.1; done"
    script = f"{wait}; /bin/true after-the-start; :"
    login = subprocess.Popen(
        sshd.command(f"exec env {forged} sh -c '{script}'"), stdin=subprocess.DEVNULL
    )
    try:
        until(started.exists, 20, "the login")
        daemon = make_daemon().start()
        daemon.settle()
        ready.touch()
        document = until(
            lambda: daemon.find(
                event__action="exec", process__args=["/bin/true", "after-the-start"]
            ),
            30,
            "the exec in the old session",
        )[0]
    finally:
        ready.touch()
        login.wait(20)
    entry = document["process"]["entry_leader"]["entry_meta"]
    assert entry == {"type": "sshd", "source": {"ip": "127.0.0.1"}}


@pytest.mark.parametrize("backend", ["ebpf", "proc_connector", "procfs"])
def test_an_unreadable_process_delays_nothing(
    make_daemon: MakeDaemon, attacks: Attacks, backend: str
) -> None:
    """A page of FUSE in the process's memory delays neither the start nor other events."""
    device, folder = attacks.program.parent / "fuse", attacks.program.parent / "mounted"
    if not device.exists():
        os.mknod(device, 0o666 | stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
        device.chmod(0o666)
        folder.mkdir()
        folder.chmod(0o777)
    with attacking(attacks, "hang", device, folder, 60) as attack:
        victim = int(first_line(attack))
        began = time.monotonic()
        daemon = make_daemon({"session_metadata": {"backend": backend}}).start(20)
        assert time.monotonic() - began < 15
        subprocess.run(["/bin/true", f"beside-{backend}"], check=True)
        until(lambda: daemon.find(process__args=["/bin/true", f"beside-{backend}"]), 15, "its exec")
        status = daemon.status()["procfs"]
        assert status["unreadable"] >= 1
        assert victim
        assert daemon.stop() == 0


def test_descriptors_of_a_fake_sshd_delay_nothing(daemon: Daemon, attacks: Attacks) -> None:
    """A login server belongs to root: no connection of a user's program is looked up."""
    with attacking(attacks, "descriptors", 20_000, 2_000) as attack:
        assert first_line(attack) == "open"
        time.sleep(1)
        subprocess.run(["/bin/true", "beside-sshd"], check=True)
        until(lambda: daemon.find(process__args=["/bin/true", "beside-sshd"]), 10, "its exec")


def test_a_stopped_daemon_reports_the_stop(daemon: Daemon) -> None:
    """A process may stop the daemon by a signal: the time without reading is reported."""
    daemon.send(signal.SIGSTOP)
    time.sleep(4.5)
    daemon.send(signal.SIGCONT)

    def told() -> list[Document]:
        return [
            each
            for each in daemon.find(event__action="sessiond-degraded")
            if value(each, "sessiond.health.what") == "daemon"
        ]

    (document,) = until(told, 3, "the event of the stop")
    assert "did not run" in document["message"]
    assert document["event"]["start"] < document["event"]["end"]


@pytest.mark.parametrize("done", ["deleted", "truncated"])
def test_a_change_of_the_file_by_others_is_reported(daemon: Daemon, done: str) -> None:
    """The event is in the same file, and later lines follow."""
    until(lambda: daemon.output.stat().st_size, 10, "a line that can be taken away")
    if done == "deleted":
        daemon.output.unlink()
    else:
        os.truncate(daemon.output, 0)
    deadline = time.monotonic() + 15
    wanted = f"another process has {done} it".encode()
    while not (daemon.output.exists() and wanted in daemon.output.read_bytes()):
        assert time.monotonic() < deadline, "nothing was told"
        subprocess.run(["/bin/true", "a-line"], check=True)
        time.sleep(0.3)


FLOOD = "i=0; while [ $i -lt {0} ]; do /bin/true flood-$i; i=$((i+1)); done"
OTHER = 4243


def told(daemon: Daemon, prefix: str) -> Counter[str]:
    """Return the number of lines of each action about the runs of ``/bin/true PREFIX...``."""
    return Counter(
        each["event"]["action"]
        for each in daemon.documents()
        if (value(each, "process.args") or ["", ""])[0] == "/bin/true"
        and each["process"]["args"][-1].startswith(prefix)
        and each["event"]["action"] != "sessiond-folded"
    )


@contextmanager
def collected(address: Path, file: Path) -> Iterator[None]:
    """Read the socket of an output into a file."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(address))
    server.listen()

    def read() -> None:
        with server, file.open("ab", buffering=0) as into:
            connection = server.accept()[0]
            while data := connection.recv(1 << 20):
                into.write(data)

    reader = threading.Thread(target=read)
    reader.start()
    yield
    reader.join(10)


def execute_as(uid: int, *command: str) -> None:
    """Run a program as another user."""
    subprocess.run(command, check=True, user=uid, group=uid, extra_groups=[])


def test_a_flood_takes_nobody_elses_lines(make_daemon: MakeDaemon, attacks: Attacks) -> None:
    """The output's reader is away, and one user fills its spool: nobody's line is lost.

    Without folding, the flood's 24,000 lines would be more than the spool has room for.
    """
    flood = 12_000
    reader = attacks.program.parent / "reader"
    daemon = make_daemon(
        {
            "event": {"max_line_bytes": "32KiB"},
            "output": {
                "file": {"enabled": False},
                "socket": {"type": "unix_stream", "address": str(reader)},
                "spool": {"max_size": "64MiB"},
            },
        }
    ).start()
    flooding = attacks.execute(["/bin/sh", "-c", FLOOD.format(flood)])
    until(lambda: "pressure" in str(daemon.status()["health"]["problems"]), 60, "the pressure")
    time.sleep(2)
    assert flooding.poll() is None, "the flood was too short"
    for number in range(40):
        execute_as(OTHER, "/bin/true", f"other-{number}")
    assert flooding.wait(120) == 0
    time.sleep(2)
    (state,) = daemon.status()["outputs"].values()
    assert state["dropped"] == 0
    assert state["spool"]["size"] < 64 * MIB
    with collected(reader, daemon.output):
        until(lambda: daemon.status()["health"]["state"] == "healthy", 30, "the spool's end")
        daemon.settle()
        assert daemon.stop() == 0
    assert told(daemon, "other-") == {"exec": 40, "end": 40}
    folded = [
        each
        for each in daemon.find(event__action="sessiond-folded")
        if value(each, "sessiond.filter.name") == "under-pressure"
    ]
    assert {value(each, "process.user.id") for each in folded} == {str(USER)}
    written = told(daemon, "flood-")
    assert written["exec"] == written["end"]
    assert written["exec"] + sum(each["sessiond"]["filter"]["count"] for each in folded) == flood
    assert daemon.find(event__action="sessiond-recovered", sessiond__health__what="pressure")


def test_a_flood_of_empty_arguments_hides_nobody(daemon: Daemon, attacks: Attacks) -> None:
    """Each exec has 200,000 arguments of one byte, of which audit makes megabytes of records."""
    with attacking(attacks, "empties", 200_000, 5):
        for number in range(50):
            execute_as(OTHER, "/bin/true", f"beside-{number}")
            time.sleep(0.1)
    until(lambda: told(daemon, "beside-")["end"] == 50, 30, "the ends of the others")
    assert told(daemon, "beside-") == {"exec": 50, "end": 50}
    assert peak_memory(daemon.pid) < 256 * MIB
    assert daemon.status()["ledger"]["tracer"]["lost"] == 0


def test_a_flood_of_changes_hides_nobody(daemon: Daemon, attacks: Attacks) -> None:
    """Two processes change their group without pauses."""
    with attacking(attacks, "changes", 5), attacking(attacks, "changes", 5):
        for number in range(50):
            execute_as(OTHER, "/bin/true", f"beside-{number}")
            time.sleep(0.05)
    until(lambda: told(daemon, "beside-")["end"] == 50, 30, "the ends of the others")
    assert told(daemon, "beside-") == {"exec": 50, "end": 50}
    lost = daemon.status()["ledger"]["tracer"]["kinds"]
    assert not {"fork", "exec", "exit"} & {kind for kind, number in lost.items() if number}


@pytest.mark.parametrize("name", ["ssm-session-worker", "teleport", "kubelet", "sshd-session"])
def test_the_name_of_a_login_program_is_no_login(
    daemon: Daemon, attacks: Attacks, name: str
) -> None:
    """A user's copy of an interpreter runs a shell in a terminal, as a session leader."""
    program = attacks.program.with_name(name)
    shutil.copy(os.path.realpath("/usr/bin/python3"), program)
    script = f"import pty; pty.spawn(['/bin/sh', '-c', '/bin/true by-{name}; :'])"
    given = {"SSH_CONNECTION": "192.0.2.66 1 192.0.2.1 22"}
    assert attacks.execute([program, "-c", script], **given).wait(20) == 0
    (document,) = until(
        lambda: daemon.find(event__action="exec", process__args=["/bin/true", f"by-{name}"]),
        20,
        name,
    )
    assert document["process"]["interactive"]
    # Of the tests' own session, whose parent may have ended.
    assert document["process"]["entry_leader"]["entry_meta"] in (
        {"type": "unknown"},
        {"type": "init"},
    )


def test_an_sshd_of_an_ordinary_user_is_no_login(daemon: Daemon, attacks: Attacks) -> None:
    """The host's own sshd, run by a user: it accepts whom that user wants, from anywhere."""
    account = "sync"  # every Debian host has it, with /bin/sync as its shell
    directory = attacks.program.parent / "own-sshd"
    directory.mkdir()
    server = Sshd(directory, user=account)
    try:
        server.start()
        subprocess.run(server.command("by-own-sshd"), stdin=subprocess.DEVNULL, check=False)
    finally:
        server.stop()
    (document,) = until(
        lambda: [
            each
            for each in daemon.find(event__action="exec")
            if (value(each, "process.args") or [""])[-1] == "by-own-sshd"
            and value(each, "process.name") == "sync"
        ],
        20,
        "the shell of the login",
    )
    entry = value(document, "process.entry_leader.entry_meta") or {}
    assert entry.get("type") != "sshd"
    assert "source" not in entry


def test_another_clock_changes_no_start(daemon: Daemon, attacks: Attacks) -> None:
    """In its own time namespace a process sees another time since boot."""
    before = time.time()
    command = ["unshare", "-UrT", "--boottime", "1000000", "/bin/true", "in-the-future"]
    assert attacks.execute(command).wait(10) == 0
    document = daemon.await_one(event__action="end", process__args=["/bin/true", "in-the-future"])
    start = datetime.fromisoformat(document["process"]["start"]).timestamp()
    assert before - 1 < start < time.time() + 1
    assert before - 1 < datetime.fromisoformat(document["@timestamp"]).timestamp() < time.time() + 1


def test_a_path_longer_than_paths_is_told(daemon: Daemon, attacks: Attacks) -> None:
    """A program in directories whose names have 12,000 bytes together, entered one by one."""
    top = attacks.program.parent / "deep"
    top.mkdir()
    top.chmod(0o777)
    script = (
        "import os, shutil\n"
        f"os.chdir('{top}')\n"
        "for _ in range(60):\n"
        "    os.mkdir('d' * 200)\n"
        "    os.chdir('d' * 200)\n"
        "shutil.copy('/bin/true', 'program')\n"
        "os.execv('./program', ['./program', 'in-the-deep'])\n"
    )
    assert attacks.execute(["/usr/bin/python3", "-c", script]).wait(30) == 0
    for action in ("exec", "end"):
        document = daemon.await_one(
            event__action=action, process__args=["./program", "in-the-deep"]
        )
        assert document["process"]["name"] == "program"
        assert document["process"]["executable"].endswith("/program")
        assert document["process"]["user"]["id"] == str(USER)


def test_a_process_that_executes_itself_on_and_on_is_told(daemon: Daemon, attacks: Attacks) -> None:
    """Each of 2,000 programs of one process has a line, with few of the earlier ones."""
    script = '[ $1 -ge 2000 ] || exec /bin/sh -c "$0" "$0" $(($1 + 1)) "chain-$1"'
    assert attacks.execute(["/bin/sh", "-c", script, script, "0", "chain"]).wait(60) == 0
    ended = daemon.await_one(
        30,
        event__action="end",
        process__args=["/bin/sh", "-c", script, script, "2000", "chain-1999"],
    )
    chain = daemon.find(event__action="exec", process__pid=ended["process"]["pid"])
    names = [value(each, "process.args")[-1] for each in chain]
    assert names[-2000:] == [f"chain-{number}" for number in range(2000)]
    assert max(len(value(each, "process.previous") or []) for each in chain) < 100
    assert max(map(len, daemon.output.read_bytes().splitlines())) < 1 * MIB


def test_the_arguments_of_the_canary_make_no_canary(daemon: Daemon, attacks: Attacks) -> None:
    """A user's process that looks like the self-test is written as any other."""
    assert attacks.execute(["/usr/bin/true", "sessiond-canary"]).wait(10) == 0
    found: list[Document] = until(
        lambda: [
            each
            for each in daemon.find(event__action="exec")
            if (value(each, "process.args") or [""])[-1] == "sessiond-canary"
            and value(each, "process.user.id") == str(USER)
        ],
        10,
        "its exec",
    )
    assert not value(found[0], "sessiond.canary")


def test_a_debugger_of_the_daemon_is_reported(make_daemon: MakeDaemon) -> None:
    """Root can trace the daemon; who does so is told within two seconds."""
    daemon = make_daemon({"canary": {"interval": 0}}).start()  # its end would stop the daemon
    libc = ctypes.CDLL(None, use_errno=True)
    seize, interrupt, detach = 0x4206, 0x4207, 17  # sys/ptrace.h
    assert libc.ptrace(seize, daemon.pid, None, None) == 0
    try:
        document = daemon.await_one(
            2.5, event__action="sessiond-degraded", sessiond__health__what="debugger"
        )
    finally:
        libc.ptrace(interrupt, daemon.pid, None, None)
        os.waitpid(daemon.pid, 0)
        libc.ptrace(detach, daemon.pid, None, None)
    assert str(os.getpid()) in document["message"]
