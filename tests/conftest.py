"""The fixtures of several tests; the module ``support`` implements those of the real kernel."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog
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
    """Skip tests marked ``kernel`` where they can't run, with the reason.

    With SESSIOND_KERNEL_TESTS=1 in the environment they fail instead, so that no test is
    skipped unnoticed.
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


# A run in the background of a shell starts with SIGINT ignored, which its children would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The duration of an example depends on the machine, not on the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Undo what a command does to the log of this process."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


@pytest.fixture
def kernel_lock() -> Iterator[None]:
    """Hold the lock of the tests that use the kernel's audit or create heavy load."""
    with kernel.lock():
        yield


@pytest.fixture
def audit_state(kernel_lock: None) -> Iterator[AuditState]:
    """Audit as after a boot, without rules; the test must leave it so."""
    with kernel.after_boot() as clean:
        yield clean
        left = AuditState.read()
        clean.restore()
        assert left == clean


@pytest.fixture(scope="session")
def truth() -> Iterator[Truth]:
    """The generator of processes that record their own attributes."""
    # Other users need access, which pytest's own directories do not allow.
    with tempfile.TemporaryDirectory(prefix="sessiond-truth-") as directory:
        Path(directory).chmod(0o755)
        yield Truth.build(Path(directory))


@pytest.fixture(scope="session")
def spawns() -> Iterator[Spawns]:
    """The program that starts many processes and measures the duration of each."""
    with tempfile.TemporaryDirectory(prefix="sessiond-spawns-") as directory:
        Path(directory).chmod(0o755)  # it runs as another user
        yield Spawns.build(Path(directory))


@pytest.fixture(scope="session")
def attacks() -> Iterator[Attacks]:
    """The program of a hostile user."""
    with tempfile.TemporaryDirectory(prefix="sessiond-attacks-") as directory:
        Path(directory).chmod(0o755)  # it runs as another user
        yield Attacks(Path(directory))


@pytest.fixture
def make_daemon(audit_state: AuditState, tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """A function that creates daemons, not started yet, with their own settings and directories.

    At the end of the test running daemons are stopped, and the audit state must be as before.
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
    """A ready daemon with default settings."""
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
    """An sshd on the loopback interface that accepts the tests' user."""
    server = Sshd(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    """A tmux server for this test, started by its first session."""
    server = Tmux(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def runc(tmp_path: Path) -> Runc:
    """Runs containers."""
    directory = tmp_path / "containers"
    directory.mkdir()
    return Runc(directory)
