"""Hiding behind filters, tried as an ordinary user on the real kernel."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.containers import Runc
from support.control_groups import ControlGroups, run
from support.control_groups import as_user as as_user_command
from support.daemon import Daemon
from support.truth import until

from sessiond.config import load
from sessiond.daemon.monitor import BLIND_CHECKS

pytestmark = pytest.mark.kernel

# This uid has no privileges; the service's account is daemon.
ORDINARY, SERVICE = 54_321, 1
PROBE = "/usr/bin/true"


def await_end_of(daemon: Daemon, token: str) -> None:
    """Wait until the end of the program with the token is written."""

    def told() -> bool:
        lines = daemon.find(event__action="end")
        return any(token in each["process"].get("args", ()) for each in lines)

    until(told, 10, f"the end of {token}")


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
    return not any(
        args[0].endswith("/true") and token in args
        for each in daemon.documents()
        if (args := each.get("process", {}).get("args"))
    )


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
    make_daemon: Callable[..., Daemon], own_program: Path
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


# What a user can't choose. Each filter is safe by one of these, and takes programs by an argument.
UNIT = "sessiond-test-backup.service"
LOGIN = 4711
SAFE: dict[str, dict[str, str]] = {
    "root": {"process.user.id": "0"},
    "login": {"user.audit.id": str(LOGIN)},
    "unit": {"systemd.unit": UNIT},
    "container": {"entry_leader.entry_meta.type": "container"},
}
OF_USER = f"/user.slice/user-{ORDINARY}.slice/user@{ORDINARY}.service"


def safe_filters() -> list[dict[str, Any]]:
    """A filter for each, which drops what has its name as an argument."""
    return [
        {"name": name, "when": {**when, "process.args": f"hide-by-{name}"}, "then": "drop"}
        for name, when in SAFE.items()
    ]


def shell(script: str) -> list[str]:
    """A command line of a shell."""
    return ["/bin/sh", "-c", script]


def probe(name: str, token: str) -> list[str]:
    """A program that the filter of that name would take."""
    return [PROBE, f"hide-by-{name}", token]


def give_login(number: int, command: list[str]) -> list[str]:
    """A command that sets its own login user, and then runs another one."""
    return shell(f"echo {number} >/proc/self/loginuid && exec {shlex.join(command)}")


@pytest.fixture
def groups() -> Iterator[ControlGroups]:
    """Control groups, removed at the end."""
    made = ControlGroups()
    yield made
    made.remove()


def test_what_a_user_cannot_choose_is_nothing_to_hide_behind(
    make_daemon: Callable[..., Daemon], groups: ControlGroups, runc: Runc, own_program: Path
) -> None:
    """Root's id, a login user, a system unit, an entry: who has them is dropped, who fakes not."""
    daemon = make_daemon({"filters": safe_filters()}).start()
    checked = daemon.command("check", "-c", str(daemon.config)).stdout
    assert [f"ok    {name}: safe" in checked for name in SAFE] == [True] * len(SAFE), checked
    unit = groups.make(f"/system.slice/{UNIT}")
    run(probe("root", "real-root"))
    run(give_login(LOGIN, as_user_command(ORDINARY, probe("login", "real-login"))))
    run(groups.inside(unit, *as_user_command(ORDINARY, probe("unit", "real-unit"))))
    runc.run("/bin/true", "hide-by-container", "real-container")
    for name in SAFE:
        assert hides(daemon, f"real-{name}"), name

    # Root in a user namespace of the user's own.
    run(as_user_command(ORDINARY, ["unshare", "-U", "-r", *probe("root", "fake-root")]))
    # Whoever has no login user can set any: for itself, and for its children.
    of_itself = give_login(LOGIN, probe("login", "fake-login"))
    assert run(as_user_command(ORDINARY, of_itself)) == 0
    children = shlex.join(probe("login", "fake-login-child"))
    assert run(as_user_command(ORDINARY, give_login(LOGIN, shell(f"{children}; true")))) == 0
    # A unit of the user's own manager, and a group of its own, with that name.
    own = groups.make(OF_USER, ORDINARY)
    for place in (UNIT, f"system.slice/{UNIT}"):
        own_unit = groups.make(f"{OF_USER}/{place}", ORDINARY)
        enters = groups.inside(own_unit, *probe("unit", f"fake-unit-{place.count('/')}"))
        assert run(groups.inside(own, *as_user_command(ORDINARY, enters))) == 0
    # A container's name for a group of its own, and a runtime of its own.
    scope = groups.make(f"{OF_USER}/docker-{'ab' * 32}.scope", ORDINARY)
    own_runtime = own_program.with_name("runc")
    shutil.copy("/usr/bin/unshare", own_runtime)
    namespaces = [str(own_runtime), "-U", "-r", "-m", "-p", "-f", "--", "setsid"]
    contained = groups.inside(scope, *namespaces, *probe("container", "fake-container"))
    assert run(groups.inside(own, *as_user_command(ORDINARY, contained))) == 0
    # A real container without root.
    rootless_container(runc, own_program.parent, probe("container", "rootless-container"))
    faked = ["fake-root", "fake-login", "fake-login-child", "fake-unit-0", "fake-unit-1"]
    for token in (*faked, "fake-container", "rootless-container"):
        assert not hides(daemon, token), token


def rootless_container(runc: Runc, directory: Path, command: list[str]) -> None:
    """Run a command in a container that an ordinary user makes from a copy of a file system."""
    bundle = directory / "bundle"
    bundle.mkdir()
    shutil.copytree(runc.file_system, bundle / "rootfs", symlinks=True)
    inside = bundle / "rootfs" / PROBE.strip("/")
    inside.parent.mkdir(parents=True)
    shutil.copy("/bin/busybox", inside)
    for path in (bundle, *bundle.rglob("*")):
        os.chown(path, ORDINARY, ORDINARY, follow_symlinks=False)
    made = ["runc", "spec", "--rootless", "--bundle", str(bundle)]
    assert run(as_user_command(ORDINARY, made)) == 0
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"] |= {"terminal": False, "args": command}
    # Without a group of its own, whose parent would have to be the user's.
    spec["linux"].pop("cgroupsPath", None)
    spec["linux"].pop("resources", None)
    (bundle / "config.json").write_text(json.dumps(spec))
    runs = ["runc", "--root", str(bundle / "state"), "run", "--bundle", str(bundle), "rootless"]
    assert run(as_user_command(ORDINARY, runs)) == 0


def test_what_a_dropped_process_gains_is_told(
    make_daemon: Callable[..., Daemon], groups: ControlGroups
) -> None:
    """A new login user, and another unit; what it had before is not told."""
    filters = [{"name": "jobs", "when": {"process.args": "*job*"}, "then": "drop"}]
    daemon = make_daemon({"filters": filters}).start()
    run(shell(f": job; exec {PROBE} job plain"))
    login = f"echo {LOGIN} >/proc/self/loginuid; {PROBE} job login-child; exec {PROBE} job login"
    run(shell(f": job; {login}"))
    one, other = (groups.make(f"/system.slice/sessiond-test-{name}.service") for name in "ab")
    moves = "".join(f"echo $$ >{file}; " for file in other.split())
    run(groups.inside(one, *shell(f": job; {moves}exec {PROBE} job moved")))
    assert hides(daemon, "plain")
    for token in ("login-child", "login", "moved"):
        assert not hides(daemon, token), token


def test_a_chroot_of_ones_own_is_no_place_of_root(
    make_daemon: Callable[..., Daemon], own_program: Path
) -> None:
    """A path counts from the host's root, also for a fold, whoever may chroot where."""
    when = {"process.executable": PROBE, "process.user.name": "daemon"}
    daemon = make_daemon({"filters": [{"name": "probes", "when": when, "then": "fold"}]}).start()
    inside = own_program.parent / PROBE.strip("/")
    inside.parent.mkdir(parents=True)
    shutil.copy("/bin/busybox", inside)
    script = ["unshare", "-U", "-r", "/usr/sbin/chroot", str(own_program.parent), PROBE, "chrooted"]
    assert run(as_user_command(SERVICE, script)) == 0
    assert not hides(daemon, "chrooted")


def test_the_kernel_can_drop_what_a_filter_drops(
    make_daemon: Callable[..., Daemon], own_program: Path
) -> None:
    """check offers the rule; with it, audit makes no record, and gained privileges are told."""
    when = {"process.user.name": "daemon", "process.real_user.name": "daemon"}
    filters = [{"name": "probes", "when": when, "then": "drop"}]
    daemon = make_daemon({"filters": filters}).start()

    def probe_often() -> int:
        """Let the service run its probe; return how many of its execs audit left out."""
        as_user(SERVICE, *shell(f"for i in $(seq 50); do {PROBE} $i; done"))
        assert hides(daemon, "20")
        left_out: int = daemon.status()["pipeline"]["execs_unaudited"].get("dropped", 0)
        return left_out

    assert probe_often() == 0
    checked = daemon.command("check", "-c", str(daemon.config)).stdout
    assert "rule  probes: audit can leave out what it drops; that saves 10 records" in checked
    assert "in the running daemon" in checked
    rules = [line.strip() for line in checked.splitlines() if line.startswith(" " * 12 + "-a")]
    assert [rule.split()[1] for rule in rules] == ["never,exit"] * len(rules)
    daemon.configure({"filters": filters, "auditd": {"audit_rules": _with(rules)}})
    daemon.reload()
    assert probe_often() >= 50
    checked = daemon.command("check", "-c", str(daemon.config)).stdout
    assert "ok    probes: the kernel leaves out what it drops, too" in checked
    # A set-user-id program, and another user's program below: told, with their parents.
    own_program.write_bytes(Path("/bin/dash").read_bytes())
    os.chown(own_program, 0, 0)
    own_program.chmod(0o4755)
    as_user(SERVICE, *shell(f"{own_program} -p -c '{PROBE} gained; true'; true"))
    assert not hides(daemon, "gained")
    (gained,) = [
        each
        for each in daemon.find(event__action="exec")
        if "gained" in each["process"].get("args", ())
    ]
    told = {each["process"]["entity_id"] for each in daemon.find(event__action="exec")}
    assert set(gained["process"]["Ext"]["ancestry"][:2]) <= told
    status = daemon.status()
    assert status["ledger"]["balanced"] is True
    assert status["pipeline"]["filters"]["balanced"] is True
    time.sleep(BLIND_CHECKS + 1)
    assert daemon.status()["health"]["problems"] == []


def _with(rules: list[str]) -> str:
    """The rules before the built-in ones."""
    built_in = [text for _, text in load.read_rules(load.loads("{}", "x"))]
    return "\n".join([*rules, *built_in])
