"""The fixtures that tests of the real kernel share; what they do is in ``support``."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from support import kernel
from support.attacks import Attacks
from support.containers import Runc
from support.daemon import Daemon
from support.kernel import AuditState
from support.logins import Sshd, Tmux
from support.manager import UserManager
from support.spawns import Spawns
from support.truth import Truth


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked ``kernel`` where they can't run, and say why.

    With SESSIOND_KERNEL_TESTS=1 in the environment they fail instead: nothing is skipped unseen.
    """
    if item.get_closest_marker("kernel") is None:
        return
    reason = item.config.stash.setdefault(_MISSING, kernel.missing())
    if reason is None:
        return
    if os.environ.get("SESSIOND_KERNEL_TESTS") == "1":
        pytest.fail(f"kernel tests are demanded, but this one {reason}")
    pytest.skip(reason)


_MISSING = pytest.StashKey[str | None]()


# In the background of a shell a run begins with SIGINT ignored, and so would all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something about the machine, nothing about the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def kernel_lock() -> Iterator[None]:
    """Be the only test on this machine that uses the kernel's audit or makes a storm."""
    with kernel.lock():
        yield


@pytest.fixture
def audit_state(kernel_lock: None) -> Iterator[AuditState]:
    """Audit as after a boot, with no rules; the test must leave it so, and then it is as before."""
    with kernel.after_boot() as clean:
        yield clean
        left = AuditState.read()
        clean.restore()
        assert left == clean


@pytest.fixture(scope="session")
def truth() -> Iterator[Truth]:
    """The generator of processes that write down themselves what they were."""
    # Other users must reach it, which pytest's own directories don't allow.
    with tempfile.TemporaryDirectory(prefix="sessiond-truth-") as directory:
        Path(directory).chmod(0o755)
        yield Truth.build(Path(directory))


@pytest.fixture(scope="session")
def spawns() -> Iterator[Spawns]:
    """The program that starts many processes and measures how long each takes."""
    with tempfile.TemporaryDirectory(prefix="sessiond-spawns-") as directory:
        Path(directory).chmod(0o755)  # it runs as another user
        yield Spawns.build(Path(directory))


@pytest.fixture(scope="session")
def attacks() -> Iterator[Attacks]:
    """The program of a user who wants the daemon to fail."""
    with tempfile.TemporaryDirectory(prefix="sessiond-attacks-") as directory:
        Path(directory).chmod(0o755)  # it runs as another user
        yield Attacks(Path(directory))


@pytest.fixture
def make_daemon(audit_state: AuditState, tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """A function that makes daemons, not started yet, each with its settings and directory.

    What still runs at the end of the test is ended, and then the audit state must be as before.
    """
    made: list[Daemon] = []

    def make(settings: dict[str, Any] | None = None, **environment: str) -> Daemon:
        made.append(Daemon(tmp_path / f"daemon-{len(made)}", settings, environment))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon with default settings that is ready."""
    return make_daemon().start()


@pytest.fixture
def user_manager(tmp_path: Path) -> Iterator[UserManager]:
    """A running service manager."""
    manager = UserManager()
    try:
        manager.start()
        yield manager
    finally:
        manager.stop()


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """An sshd on the loopback interface that lets the tests' user in."""
    server = Sshd(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    """A tmux server of the test's own, started by its first session."""
    server = Tmux(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def runc(tmp_path: Path) -> Runc:
    """What runs containers."""
    directory = tmp_path / "containers"
    directory.mkdir()
    return Runc(directory)
