"""Logins and processes that outlive them: every process has its entry and the client's address.

Each test executes a program at the end of one way into the host, and finds it by its argument.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import termios
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.daemon import Daemon, Document, value
from support.logins import Sshd, Tmux
from support.manager import UserManager
from support.stream import agree, inconsistent, malformed

pytestmark = pytest.mark.kernel

NOBODY = "65534"
UNKNOWN_USER = "4711"
CONSOLE = Path("/dev/tty63")  # a directory that no other process uses
SERIAL = Path("/dev/ttyS0")


@pytest.fixture
def token() -> str:
    """A unique argument."""
    return str(uuid.uuid4())


def executed(daemon: Daemon, token: str) -> Document:
    """Wait for the exec of ``/bin/true TOKEN``."""
    return daemon.await_one(event__action="exec", process__args=["/bin/true", token])


def came_by_ssh(document: Document, address: str = "127.0.0.1") -> bool:
    entry = document["process"]["entry_leader"]
    return bool(entry["entry_meta"] == {"type": "sshd", "source": {"ip": address}})


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_ssh_login(daemon: Daemon, sshd: Sshd, token: str, terminal: bool, address: str) -> None:
    """The login shell is session and entry leader, of type sshd, with the client's address."""
    sshd.login(f"/bin/true {token}; :", terminal=terminal, address=address)
    document = executed(daemon, token)
    process = document["process"]
    assert came_by_ssh(document, address)
    assert process["entry_leader"]["entity_id"] == process["session_leader"]["entity_id"]
    assert process["parent"]["entity_id"] == process["entry_leader"]["entity_id"]
    assert process["group_leader"]["entity_id"] == process["entry_leader"]["entity_id"]
    assert process["entry_leader"]["args"][1:] == ["-c", f"/bin/true {token}; :"]
    assert process["interactive"] is terminal
    assert (value(process, "tty.char_device.major") == 136) is terminal
    agree(inconsistent(daemon.documents()))
    agree(malformed(daemon))


def test_simultaneous_logins_have_their_own_addresses(
    daemon: Daemon, sshd: Sshd, token: str
) -> None:
    """The processes of each login have its own address."""
    addresses = {"127.0.0.2": f"{token}-2", "127.0.0.3": f"{token}-3"}
    logins = [
        subprocess.Popen(
            sshd.command(f"for i in 1 2 3 4 5; do /bin/true {own}; sleep 0.05; done", address=each),
            stdin=subprocess.DEVNULL,
        )
        for each, own in addresses.items()
    ]
    assert [each.wait(20) for each in logins] == [0, 0]
    daemon.settle()
    for address, own in addresses.items():
        found = daemon.find(event__action="exec", process__args=["/bin/true", own])
        assert len(found) == 5
        assert all(came_by_ssh(each, address) for each in found)
        assert len({each["process"]["entry_leader"]["entity_id"] for each in found}) == 1


def test_a_process_that_outlives_its_login(daemon: Daemon, sshd: Sshd, token: str) -> None:
    """A process in another session, adopted after the end of the login, still belongs to it."""
    wait = "while kill -0 $0; do sleep 0.1; done"  # for the end of the login shell
    sshd.login(f"setsid -f sh -c '{wait}; exec /bin/true {token}' $$ >/dev/null 2>&1 </dev/null")
    process = executed(daemon, token)
    assert came_by_ssh(process)
    entry, session = (process["process"][f"{name}_leader"] for name in ("entry", "session"))
    assert session["pid"] == process["process"]["pid"]
    assert entry["pid"] != session["pid"]
    ended = daemon.await_one(event__action="end", process__entity_id=entry["entity_id"])
    assert ended["@timestamp"] < process["@timestamp"]


@pytest.mark.parametrize(
    "command",
    ["su -s /bin/sh nobody -c '/bin/true {token}'", "sudo -n -u nobody /bin/true {token}"],
    ids=["su", "sudo"],
)
def test_another_user_by(daemon: Daemon, sshd: Sshd, token: str, command: str) -> None:
    """After su the entry is the same, and events keep the login user."""
    become = f"echo {UNKNOWN_USER} >/proc/self/loginuid && {command}"
    sshd.login(become.format(token=token), terminal=True)
    document = executed(daemon, token)
    assert came_by_ssh(document)
    assert document["user"]["id"] == NOBODY
    assert document["user"]["audit"]["id"] == UNKNOWN_USER
    assert document["process"]["user"]["id"] == NOBODY
    assert document["process"]["real_user"]["id"] == NOBODY
    assert document["process"]["entry_leader"]["user"]["id"] == "0"


def test_a_set_uid_program(daemon: Daemon, sshd: Sshd, token: str) -> None:
    """The effective and the real user differ."""
    sshd.login(f"su -s /bin/sh nobody -c '/bin/mount --version {token}'")
    document = daemon.await_one(
        event__action="exec", process__args=["/bin/mount", "--version", token]
    )
    assert came_by_ssh(document)
    assert document["process"]["user"]["id"] == "0"
    assert document["process"]["real_user"]["id"] == NOBODY
    assert document["user"]["id"] == NOBODY
    assert document["user"]["effective"]["id"] == "0"


def test_tmux_inside_ssh(daemon: Daemon, sshd: Sshd, tmux: Tmux, token: str) -> None:
    """A process in tmux has the login's entry, in its own session and on its own terminal."""
    sshd.login(" ".join(tmux.new_session(f"'sleep 1; /bin/true {token}; :'")), terminal=True)
    document = executed(daemon, token)
    assert came_by_ssh(document)
    process = document["process"]
    assert process["session_leader"]["pid"] == process["parent"]["pid"]
    assert process["session_leader"]["pid"] != process["entry_leader"]["pid"]
    assert process["interactive"] is True


def test_screen_inside_ssh(daemon: Daemon, sshd: Sshd, token: str, tmp_path: Path) -> None:
    """A process in screen has the login's entry, in a session of its own."""
    directory = tmp_path / "screens"
    directory.mkdir(mode=0o700)
    inner = f"sh -c 'sleep 1; /bin/true {token}; :'"
    sshd.login(f"SCREENDIR={directory} screen -dmS {token} {inner}")
    document = executed(daemon, token)
    assert came_by_ssh(document)
    process = document["process"]
    assert process["session_leader"]["pid"] != process["entry_leader"]["pid"]
    assert process["interactive"] is True


@contextmanager
def opened(terminal: Path) -> Iterator[int]:
    """Open a terminal without making it the controlling one; skip without one."""
    try:
        descriptor = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        pytest.skip(f"needs {terminal}: {error.strerror}")
    try:
        os.set_blocking(descriptor, True)
        yield descriptor
    finally:
        os.close(descriptor)


def test_a_console_login(daemon: Daemon, token: str) -> None:
    """Commands of a console shell have the entry login, with the login user from PAM."""
    with opened(CONSOLE) as console:
        login = subprocess.Popen(
            ["setsid", "-c", "login", "-f", "root"], stdin=console, stdout=console, stderr=console
        )
        try:
            daemon.await_one(event__action="exec", process__parent__pid=login.pid)
            for byte in f"unset HISTFILE; /bin/true {token}; exit\n".encode():
                fcntl.ioctl(console, termios.TIOCSTI, bytes([byte]))
            process = executed(daemon, token)["process"]
            assert login.wait(10) == 0
        finally:
            login.kill()
            login.wait()
    assert process["entry_leader"]["pid"] == login.pid
    assert process["entry_leader"]["name"] == "login"
    assert process["entry_leader"]["entry_meta"] == {"type": "console"}
    assert process["session_leader"]["pid"] == login.pid
    # The shell controls jobs: each job has its own group.
    assert process["group_leader"]["same_as_process"] is True
    assert process["tty"]["char_device"] == {"major": 4, "minor": 63}
    assert executed(daemon, token)["user"]["audit"]["id"] == "0"


def test_a_serial_line(daemon: Daemon, token: str) -> None:
    """The leader of a session on a serial line has the entry type terminal."""
    with opened(SERIAL) as line:
        shell = ["sh", "-c", f"/bin/true {token}; :"]
        subprocess.run(["setsid", "-c", "-w", *shell], stdin=line, check=True)
    entry = executed(daemon, token)["process"]["entry_leader"]
    assert entry["entry_meta"] == {"type": "terminal"}
    assert entry["args"] == shell


@pytest.fixture
def cron(token: str) -> Iterator[subprocess.Popen[bytes]]:
    """A cron with one job, which runs at its start."""
    table = Path("/etc/cron.d/sessiond-test")
    marks = [Path("/run/crond.reboot"), Path("/run/crond.pid")]
    if any(mark.exists() for mark in marks):
        pytest.skip("needs a host whose cron does not run")
    table.write_text(f"@reboot nobody /bin/true {token}\n")
    process = subprocess.Popen(["cron", "-f"], start_new_session=True)
    yield process
    process.terminate()
    process.wait(10)
    for path in (table, *marks):
        path.unlink(missing_ok=True)


def test_a_cron_job(daemon: Daemon, cron: subprocess.Popen[bytes], token: str) -> None:
    """It is a session below cron, as another user, without a terminal."""
    process = executed(daemon, token)["process"]
    assert process["user"]["id"] == NOBODY
    assert process["interactive"] is False
    assert process["session_leader"]["pid"] != cron.pid
    of_cron = daemon.await_one(event__action="exec", process__pid=cron.pid)["process"]
    assert process["entry_leader"]["entity_id"] == of_cron["entry_leader"]["entity_id"]


def test_a_service(daemon: Daemon, user_manager: UserManager, token: str) -> None:
    """A service leads its session; its parent is the manager."""
    user_manager.install(
        "once.service", f"[Service]\nType=oneshot\nExecStart=/bin/true {token}\nUser=nobody\n"
    )
    user_manager.systemctl("start", "once.service")
    process = executed(daemon, token)["process"]
    assert process["parent"]["name"] == "systemd"
    assert process["session_leader"]["same_as_process"] is True
    assert process["user"]["id"] == NOBODY
    assert process["interactive"] is False


def test_a_daemon_that_init_adopted(daemon: Daemon, token: str) -> None:
    """Its parent is pid 1 when it executes; its entry is still that of its creator."""
    wait = "while [ $(cut -d' ' -f4 /proc/$$/stat) != 1 ]; do sleep 0.05; done"
    made = subprocess.run(
        ["setsid", "-f", "sh", "-c", f"{wait}; exec /bin/true {token}"], check=True
    )
    assert made.returncode == 0
    document = executed(daemon, token)
    assert value(document, "sessiond.reparented_to.pid") == 1
    assert document["process"]["session_leader"]["same_as_process"] is True
    assert document["process"]["parent"]["pid"] != 1
