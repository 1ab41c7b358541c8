"""``sessiond record``: runs a command under its own daemon, and keeps the command's events.

Like strace, it leaves terminal and signals to the command and exits with the command's status.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from sessiond import errors
from sessiond.cli import declare
from sessiond.text import printable

NOT_FOUND: Final = 127  # as in shells and env(1)
NOT_EXECUTABLE: Final = 126
# Timeouts in seconds: for the daemon's start, for the command's end event, for the daemon's stop.
START_TIMEOUT: Final = 60.0
END_TIMEOUT: Final = 5.0


def add(commands: declare.Commands) -> None:
    """Declare the command."""
    parser = declare.command(
        commands,
        "record",
        _record,
        "run a command and record it with all its descendants",
        "Starts its own daemon, runs the command, and writes the events of the command's processes "
        "and an HTML page that shows them. Needs root, as run does. Like strace, it exits with the "
        "command's exit code and leaves Ctrl-C to the command. It restores the host's audit state; "
        "if another audit daemon runs, it only listens.",
        "sessiond record -- make -j4                sessiond-make.ndjson, sessiond-make.html\n"
        "sessiond record -o /tmp/ci -u builder -- ./ci.sh\n"
        "sessiond tree sessiond-make.ndjson         show the recording as text",
        (0, 2, 4, 5, 6),
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="NAME",
        help="write NAME.ndjson and NAME.html (default: sessiond-COMMAND)",
    )
    parser.add_argument("-u", "--user", metavar="USER", help="run the command as this user")
    parser.add_argument("--no-page", action="store_true", help="write only the events")
    parser.add_argument("-q", "--quiet", action="store_true", help="no summary on standard error")
    parser.add_argument("argv", metavar="COMMAND", nargs=argparse.REMAINDER)


def _record(arguments: argparse.Namespace) -> int:
    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    if not argv:
        raise errors.ConfigError("no command given: sessiond record -- COMMAND [ARGUMENT...]")
    if os.geteuid() != 0:
        raise errors.AuditUnavailableError("record needs root; run sudo sessiond record -- ...")
    account = _account(arguments.user)
    if shutil.which(argv[0]) is None:
        there = Path(argv[0]).exists()
        reason = "it can't be executed" if there else "no such command"
        sys.stderr.write(f"sessiond: {printable(argv[0])}: {reason}\n")
        return NOT_EXECUTABLE if there else NOT_FOUND
    name = arguments.output or f"sessiond-{Path(argv[0]).name}"
    target = Path(f"{name.removesuffix('.ndjson')}.ndjson")
    if not target.parent.is_dir():
        raise errors.OutputError(f"{target.parent}: no such directory")
    gc.disable()  # what is recorded stays alive to the end
    with tempfile.TemporaryDirectory(prefix="sessiond-record-") as directory:
        with _Daemon(Path(directory)) as daemon:
            begun = time.monotonic()
            status, recorded = _run(argv, account, daemon.output)
            took = time.monotonic() - begun
            recorded.await_end()
        recorded.take()  # what the daemon wrote as it stopped
        _keep(target, recorded, arguments, argv, took)
    return _end_as(status)


def _account(name: str | None) -> pwd.struct_passwd | None:
    if name is None:
        return None
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise errors.ConfigError(f"--user {printable(name)}: no such user") from None


class _Daemon:
    """A daemon with its own directory and session, so that Ctrl-C reaches only the command."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.output = directory / "events.ndjson"
        self._log = directory / "log"
        self._running: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        settings = {
            "output": {"file": {"path": str(self.output), "rotate": {"size": 0}}},
            "state_directory": str(self._directory / "state"),
            "runtime_directory": str(self._directory / "run"),
            # A recording keeps whole command lines, and leaves out older processes.
            "event": {
                "inventory": False,
                "max_args_bytes": "1MiB",
                "max_line_bytes": "16MiB",
            },
        }
        config = self._directory / "sessiond.yml"
        config.write_text(json.dumps(settings))  # JSON is valid YAML
        config.chmod(0o600)
        with ExitStack() as stack:
            address = self._directory / "notify"
            notify = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            notify.bind(str(address))
            notify.settimeout(0.1)
            log = stack.enter_context(self._log.open("wb"))
            self._running = subprocess.Popen(
                [sys.executable, "-m", "sessiond", "run", "-c", str(config)],
                env={**os.environ, "NOTIFY_SOCKET": str(address)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                self._await_ready(notify)
            except BaseException:
                self.__exit__()
                raise
        return self

    def _await_ready(self, notify: socket.socket) -> None:
        assert self._running is not None  # noqa: S101 -- it was started
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            with suppress(TimeoutError):
                if b"READY=1" in notify.recv(65536):
                    return
            if (code := self._running.poll()) is not None:
                said = self._log.read_text("utf-8", "replace").strip().splitlines()
                error = errors.SessiondError(
                    said[-1].removeprefix("sessiond: ") if said else "the daemon ended"
                )
                error.exit_code = code if code > 0 else 1
                raise error
        raise errors.SessiondError(f"the daemon was not ready within {START_TIMEOUT:.0f} s")

    def __exit__(self, *_: object) -> None:
        assert self._running is not None  # noqa: S101 -- it was started
        self._running.terminate()
        try:
            self._running.wait(30)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()


class _Recorded:
    """Selects the command's events from the daemon's output, and keeps them in a file beside it."""

    def __init__(self, pid: int, since: str, output: Path) -> None:
        from sessiond.viewer.belongs import Belongs
        from sessiond.viewer.files import Follower
        from sessiond.viewer.model import Recording

        self.belongs = Belongs(pid, since)
        self.recording = Recording()
        self.kept = output.with_name("kept.ndjson")
        self._follower = Follower(output)

    def take(self) -> bool:
        """Take the lines that the daemon has added; return whether there were any."""
        some = False
        with self.kept.open("ab") as file:
            for line in self._follower.lines():
                some = True
                kept = self.belongs.take(line)
                if kept is not None:
                    file.write(kept)
                    self.recording.feed(kept)
        return some

    def await_end(self) -> None:
        """Take lines until the command's end is one, or none has come for END_TIMEOUT."""
        deadline = time.monotonic() + END_TIMEOUT
        while time.monotonic() < deadline:
            if self.take():
                deadline = time.monotonic() + END_TIMEOUT
            if self.belongs.ended:
                return
            time.sleep(0.1)


def _run(argv: list[str], account: pwd.struct_passwd | None, output: Path) -> tuple[int, _Recorded]:
    """Run the command to its end; return its status as of wait(2), and its event selector."""
    # The daemon takes start times from the kernel's clock, which may be slightly behind this one.
    since = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    # The terminal sends these to the whole group: only the command reacts to them.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    pid = os.fork()
    if pid == 0:
        _become(argv, account)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    _, status = os.waitpid(pid, 0)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return status, _Recorded(pid, since, output)


def _become(argv: list[str], account: pwd.struct_passwd | None) -> None:
    """Execute the command in the forked child; never returns."""
    try:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        environment = dict(os.environ)
        if account is not None:
            os.initgroups(account.pw_name, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            environment |= {
                "HOME": account.pw_dir,
                "USER": account.pw_name,
                "LOGNAME": account.pw_name,
            }
        os.execvpe(argv[0], argv, environment)  # noqa: S606 -- no shell needed
    except OSError as error:
        sys.stderr.write(f"sessiond: {printable(argv[0])}: {(error.strerror or '').lower()}\n")
        sys.stderr.flush()
    finally:
        os._exit(NOT_EXECUTABLE)


def _keep(
    target: Path,
    recorded: _Recorded,
    arguments: argparse.Namespace,
    argv: list[str],
    seconds: float,
) -> None:
    """Write the events and the page; print a summary. Raises OutputError."""
    from sessiond.cli.viewer import private_file
    from sessiond.viewer import page
    from sessiond.viewer.words import short

    recording = recorded.recording
    with private_file(target) as file, recorded.kept.open("rb") as kept:
        shutil.copyfileobj(kept, file)
    written = [target]
    if not arguments.no_page:
        written.append(target.with_suffix(".html"))
        with private_file(written[-1]) as file:
            file.write(page.html(page.data(recording, recording.sessions())))
    if arguments.quiet:
        return
    seen = [each for each in recording.processes.values() if each.seen]
    parts = [f"{len(seen)} {'process' if len(seen) == 1 else 'processes'}"]
    if failed := sum(each.has_failed for each in seen):
        parts.append(f"{failed} failed")
    if running := sum(each.running for each in seen):
        parts.append(f"{running} still running")
    if recording.losses:
        parts.append("events were lost: " + "; ".join(each.text for each in recording.losses[:3]))
    if not recorded.belongs.ended:
        parts.append("its end was not recorded")
    said = f"{Path(argv[0]).name}: {', '.join(parts)}, in {short(timedelta(seconds=seconds))}"
    names = " and ".join(str(each) for each in written)
    sys.stderr.write(f"sessiond: {printable(said)}\n")
    sys.stderr.write(f"sessiond: {printable(names)}; try sessiond tree {printable(str(target))}\n")


def _end_as(status: int) -> int:
    """Exit as the command did: with its exit code, or by the signal that killed it."""
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    sys.stdout.flush()
    number = os.WTERMSIG(status)
    with suppress(OSError, ValueError):  # the disposition of SIGKILL can't change
        signal.signal(number, signal.SIG_DFL)
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    os.kill(os.getpid(), number)
    return 128 + number
