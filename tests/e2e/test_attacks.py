"""Attacks of an ordinary user: the daemon stays up and reports other processes correctly."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.attacks import Attacks, peak_memory
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


def test_what_a_login_writes_into_its_environment_is_no_address(
    make_daemon: MakeDaemon, sshd: Sshd
) -> None:
    """For a session older than the daemon, the connection is the one that sshd accepted."""
    forged = "SSH_CONNECTION='192.0.2.66 1 192.0.2.1 22'"
    script = "sleep 6; /bin/true after-the-start; :"
    login = subprocess.Popen(
        sshd.command(f"exec env {forged} sh -c '{script}'"), stdin=subprocess.DEVNULL
    )
    try:
        time.sleep(1)
        daemon = make_daemon().start()
        document = until(
            lambda: daemon.find(
                event__action="exec", process__args=["/bin/true", "after-the-start"]
            ),
            30,
            "the exec in the old session",
        )[0]
    finally:
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
