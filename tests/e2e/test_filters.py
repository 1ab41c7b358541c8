"""Filters on the real kernel: the processes of a script are dropped and counted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ecs_schema.validate import validate
from support.daemon import Daemon
from support.truth import until

pytestmark = pytest.mark.kernel

CHILDREN = 10


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A monitoring script that starts some programs."""
    path = tmp_path / "check.sh"
    path.write_text(f"for i in $(seq {CHILDREN}); do /bin/true $i; done; /bin/echo done\n")
    return path


def checks(script: Path, then: Any = "drop") -> list[dict[str, Any]]:
    """A filter of the processes that a script starts."""
    when = {"ancestor.args": str(script), "process.user.id": "0"}
    return [{"name": "checks", "when": when, "then": then}]


def run(script: Path, token: str = "") -> None:
    """Run the script to its end, then a program with the token."""
    subprocess.run(["/bin/sh", str(script)], check=True, stdout=subprocess.DEVNULL)
    if token:
        subprocess.run(["/bin/true", token], check=True)


def await_end_of(daemon: Daemon, token: str) -> None:
    """Wait until the end of the program with the token is written."""

    def told() -> bool:
        lines = daemon.find(event__action="end")
        return any(token in each["process"].get("args", ()) for each in lines)

    until(told, 10, f"the end of {token}")


def named(daemon: Daemon, name: str) -> list[str]:
    """Return the actions of the lines of a program."""
    return [
        each["event"]["action"]
        for each in daemon.documents()
        if each.get("process", {}).get("name") == name
        and "canary" not in each.get("sessiond", {})
        and "token" not in " ".join(each["process"].get("args", ()))
    ]


def test_dropped_processes_are_counted(make_daemon: Callable[..., Daemon], script: Path) -> None:
    """The script itself is written; seen = written + dropped; the stream reports it at the end."""
    daemon = make_daemon({"filters": checks(script)}).start()
    run(script, "token")
    await_end_of(daemon, "token")
    assert named(daemon, "true") == []
    assert named(daemon, "echo") == []
    account = daemon.status()["pipeline"]["filters"]
    assert account["balanced"] is True
    assert daemon.status()["ledger"]["balanced"] is True
    # The programs, and the command substitution, which is a fork and an exec of seq.
    expected = 2 * (CHILDREN + 2)
    assert expected <= account["by_filter"]["checks"]["lines"] <= expected + 2
    daemon.stop()
    (told,) = daemon.find(event__action="sessiond-filtered")
    assert told["sessiond"]["filter"]["lines"] == account["by_filter"]["checks"]["lines"]
    assert [problem for each in daemon.documents() for problem in validate(each)] == []


def test_a_script_is_folded(make_daemon: Callable[..., Daemon], script: Path) -> None:
    """Each kind is written once, then as a count."""
    daemon = make_daemon({"filters": checks(script, {"fold": "1d"})}).start()
    for _ in range(3):
        run(script)
    run(script, "token")
    await_end_of(daemon, "token")
    daemon.stop()
    counts: dict[str, list[int]] = {}
    for each in daemon.find(event__action="sessiond-folded"):
        name = each["process"]["name"]
        counts.setdefault(name, []).append(each["sessiond"]["filter"]["count"])
        assert validate(each) == []
    assert counts["true"] == [1, 4 * CHILDREN - 1]
    assert counts["echo"] == [1, 3]
    assert named(daemon, "echo") == ["sessiond-folded", "sessiond-folded"]


def test_filters_are_live_and_outlive_a_crash(
    make_daemon: Callable[..., Daemon], script: Path
) -> None:
    """A reload applies them; SIGKILL loses no count."""
    daemon = make_daemon().start()
    run(script, "token1")
    await_end_of(daemon, "token1")
    before = named(daemon, "true")
    assert len(before) == 2 * CHILDREN
    daemon.configure({"filters": checks(script)})
    daemon.reload()
    run(script, "token2")
    await_end_of(daemon, "token2")
    first = daemon.status()["pipeline"]["filters"]["by_filter"]["checks"]["lines"]
    daemon.send(9)
    daemon.wait()
    daemon.start()
    run(script, "token3")
    await_end_of(daemon, "token3")
    daemon.stop()
    assert named(daemon, "true") == before
    told = daemon.find(event__action="sessiond-filtered")
    assert sum(each["sessiond"]["filter"]["lines"] for each in told) == 2 * first


# This uid has no privileges; the service's account is daemon.
ORDINARY, SERVICE = 54_321, 1
PROBE = "/usr/bin/true"


def probes(**more: str) -> list[dict[str, Any]]:
    """A filter of the probes of a service's account, or of other users."""
    when = {"process.executable": PROBE, "process.args": "*healthz*", **more}
    return [{"name": "probes", "when": when, "then": "drop"}]


def as_user(uid: int, *command: str, **environment: str) -> None:
    """Run a command as a user without privileges."""
    subprocess.run(command, user=uid, group=uid, extra_groups=[], env=environment, check=False)


def in_private_mounts(uid: int, program: Path, token: str) -> None:
    """Run the user's file at the probe's path, in a user namespace that allows mounts."""
    script = f"mount --bind {program} {PROBE} && exec {PROBE} /healthz {token}"
    as_user(uid, "/usr/bin/unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script)


@pytest.fixture
def own_program(tmp_path: Path) -> Iterator[Path]:
    """A file of an ordinary user that everybody may execute."""
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    directory.chmod(0o755)
    program = directory / "true"
    shutil.copy(PROBE, program)
    os.chown(program, ORDINARY, ORDINARY)
    program.chmod(0o755)
    yield program
    shutil.rmtree(directory)


def hides(daemon: Daemon, token: str) -> bool:
    """Return whether no line of a probe with the token was written."""
    subprocess.run(["/bin/true", f"after-{token}"], check=True)
    await_end_of(daemon, f"after-{token}")
    return not any(token in each.get("process", {}).get("args", ()) for each in daemon.documents())


def test_an_ordinary_user_cannot_hide_behind_a_safe_filter(
    make_daemon: Callable[..., Daemon], own_program: Path
) -> None:
    """Tried are its arguments, path, libraries, namespaces, and a file of the user."""
    daemon = make_daemon({"filters": probes(**{"process.user.name": "daemon"})}).start()
    checked = daemon.command("check", "-c", str(daemon.config)).stdout
    assert "ok    probes: safe: no ordinary user fulfils process.user.name: daemon" in checked
    as_user(SERVICE, PROBE, "/healthz", "service")
    assert hides(daemon, "service")
    as_user(ORDINARY, PROBE, "/healthz", "arguments")
    as_user(ORDINARY, PROBE, "/healthz", "preload", LD_PRELOAD=str(own_program))
    as_user(ORDINARY, str(own_program), "/healthz", "copy")
    in_private_mounts(ORDINARY, own_program, "mounts")
    for token in ("arguments", "preload", "copy", "mounts"):
        assert not hides(daemon, token), token
    # Programs of other users and of other mount namespaces are written, even for the account.
    as_user(SERVICE, str(own_program), "/healthz", "file-of-another")
    in_private_mounts(SERVICE, own_program, "service-mounts")
    for token in ("file-of-another", "service-mounts"):
        assert not hides(daemon, token), token


def test_check_names_the_filter_that_an_ordinary_user_can_hide_behind(
    make_daemon: Callable[..., Daemon],
) -> None:
    """A user can really hide behind it; the log reports it too."""
    daemon = make_daemon({"filters": probes()}).start()
    checked = daemon.command("check", "-c", str(daemon.config)).stdout
    assert "warn  probes: unsafe: " in checked
    assert "can hide behind it: he chooses process.args, process.executable" in checked
    assert "can hide behind it" in daemon.log.read_text()
    as_user(ORDINARY, PROBE, "/healthz", "hidden")
    assert hides(daemon, "hidden")


def test_a_set_user_id_program_below_a_dropped_one_is_told_with_it(
    make_daemon: Callable[..., Daemon], own_program: Path, script: Path
) -> None:
    """Its children are written too, with all ancestors."""
    own_program.write_bytes(Path("/bin/dash").read_bytes())
    os.chown(own_program, 0, 0)
    own_program.chmod(0o4755)
    everything = [{"name": "all", "when": {"ancestor.args": "*start-here*"}, "then": "drop"}]
    daemon = make_daemon({"filters": everything}).start()
    inner = f"{own_program} -p -c '/bin/true gained; true'; /bin/true plain; true"
    as_user(ORDINARY, "/bin/sh", "-c", f'/bin/sh -c "{inner}"; : start-here')
    assert not hides(daemon, "gained")
    assert hides(daemon, "plain")
    (leaf,) = [
        each
        for each in daemon.find(event__action="exec")
        if "gained" in each["process"].get("args", ())
    ]
    told = {each["process"]["entity_id"] for each in daemon.find(event__action="exec")}
    assert leaf["process"]["parent"]["executable"] == str(own_program)
    assert set(leaf["process"]["Ext"]["ancestry"][:3]) <= told


def test_a_program_that_others_can_write_is_told(
    make_daemon: Callable[..., Daemon], own_program: Path
) -> None:
    """This also applies to a file of root."""
    when = {"process.args": "*healthz*", "process.user.name": "daemon"}
    filters = [{"name": "probes", "when": when, "then": "drop"}]
    daemon = make_daemon({"filters": filters}).start()
    os.chown(own_program, 0, 0)
    as_user(SERVICE, str(own_program), "/healthz", "mode-755")
    assert hides(daemon, "mode-755")
    own_program.chmod(0o777)
    as_user(SERVICE, str(own_program), "/healthz", "mode-777")
    assert not hides(daemon, "mode-777")
