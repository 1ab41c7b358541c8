"""The audit client against the running kernel."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kernel import send_user_message
from support.truth import until

from sessiond.audit.kernel.client import (
    RECEIVE_BUFFER,
    AuditClient,
    KernelAuditStatus,
    as_listed,
    never_audit,
)
from sessiond.audit.kernel.errors import AuditRequestError
from sessiond.audit.kernel.settings import AuditState
from sessiond.audit.rules.binary import canonical
from sessiond.errors import AuditUnavailableError

pytestmark = pytest.mark.kernel

EXECVE, USER_AVC = 1309, 1107
EXECUTIONS = "-a always,exit -F arch=b64 -S execve"
QUIET = {"backlog_limit": 8192, "backlog_wait_time": 0}


@pytest.fixture
def kernel(audit_state: object) -> Iterator[AuditClient]:
    """A client for queries; audit's state is restored after the test."""
    with AuditClient.open() as client:
        before, rules = client.status(), client.list_rules()
        yield client
        for rule in client.list_rules():
            if rule not in rules:
                client.delete_rule(rule)
        for name in ("enabled", "failure", "rate_limit", "backlog_limit", "backlog_wait_time"):
            client.set(name, getattr(before, name))
        if client.status().pid == os.getpid():
            client.unregister()


@pytest.fixture
def auditd(kernel: AuditClient, tmp_path: Path) -> Iterator[int]:
    """The pid of a real auditd that is registered, and logs to a file of its own."""
    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "auditd.conf").write_text(
        f"log_file = {tmp_path}/audit.log\nplugin_dir = {tmp_path}/plugins.d\n"
        "log_format = RAW\nspace_left = 2\nadmin_space_left = 1\n"
    )
    tmp_path.chmod(0o700)
    process = subprocess.Popen(["/usr/sbin/auditd", "-n", "-c", str(tmp_path)])
    try:
        deadline = time.monotonic() + 10
        while kernel.status().pid != process.pid:
            assert time.monotonic() < deadline, "auditd did not register"
            time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


EXECUTABLE = os.path.realpath("/proc/self/exe").encode()


def listening(receive_buffer: int = RECEIVE_BUFFER) -> tuple[AuditClient, AuditState]:
    """Return a registered client with auditing on, and its earlier settings."""
    client = AuditClient.open(receive_buffer=receive_buffer)
    state = AuditState.capture(client)
    client.register()
    state.apply(client, enabled=1, **QUIET)
    return client, state


def compiled(client: AuditClient, *rules: str) -> list[bytes]:
    """Return rules as the kernel's bytes, which auditctl makes from their text."""
    before = client.list_rules()
    for text in rules:
        subprocess.run(["auditctl", *text.split()], check=True)
    made = [rule for rule in client.list_rules() if rule not in before]
    for rule in made:
        client.delete_rule(rule)
    return made


def run_processes(number: int) -> set[bytes]:
    """Run /bin/true ``number`` times, each with a unique argument; return the arguments."""
    name = f"proof-{secrets.token_hex(4)}"
    script = f"for i in $(seq {number}); do /bin/true {name}-$i; done"
    subprocess.run(["/bin/sh", "-c", script], check=True)
    return {f"{name}-{i}".encode() for i in range(1, number + 1)}


def records(client: AuditClient) -> list[tuple[int, bytes]]:
    """Return all records up to one sent now, which proves that none is still on its way."""
    marker = f"marker-{secrets.token_hex(4)}".encode()
    send_user_message(USER_AVC, marker)
    seen: list[tuple[int, bytes]] = []
    deadline = time.monotonic() + 10
    while not any(marker in payload for _, payload in seen):
        assert time.monotonic() < deadline, "the marker did not come back"
        seen += client.receive()
        time.sleep(0.001)
    return seen


def executed(seen: list[tuple[int, bytes]]) -> list[bytes]:
    """Return the arguments of ``run_processes`` in EXECVE records."""
    return [
        name
        for kind, payload in seen
        if kind == EXECVE
        for name in re.findall(rb'a1="(proof-[^"]*)"', payload)
    ]


def auditctl(option: str) -> str:
    """Return the output of auditctl, without numbers that change by themselves."""
    done = subprocess.run(["auditctl", option], check=True, capture_output=True, text=True)
    return re.sub(r"(?m)^(lost|backlog|backlog_wait_time_actual) .*\n", "", done.stdout)


# Reading


def test_every_process_is_read_exactly_once(kernel: AuditClient) -> None:
    """Hundreds of execs cause hundreds of EXECVE records, and no loss is counted."""
    client, state = listening()
    lost = client.status().lost
    with client:
        for rule in compiled(client, EXECUTIONS):
            client.add_rule(rule)
        wanted = run_processes(300)
        seen = records(client)
        status = client.status()
        state.restore(client)
    names = executed(seen)
    assert len(names) == len(set(names))
    assert set(names) == wanted
    assert all(payload.startswith(b"audit(") for _, payload in seen)
    assert status.lost == lost
    assert client.counters.received >= len(seen)
    assert client.counters.congested == 0


def test_records_flow_while_rules_load_in_a_running_loop(kernel: AuditClient) -> None:
    """Control, reading and registration work inside asyncio's loop, without a second loop."""
    seen: list[tuple[int, bytes]] = []
    slowest = 0.0

    async def main() -> set[bytes]:
        nonlocal slowest
        loop = asyncio.get_running_loop()
        client, state = listening()
        loop.add_reader(client.fileno(), lambda: seen.extend(client.receive()))
        (execve,) = compiled(client, EXECUTIONS)
        client.add_rule(execve)
        storm = asyncio.to_thread(run_processes, 200)
        running = asyncio.create_task(storm)
        for pid in range(1_000_000, 1_000_100):
            before = time.monotonic()
            client.add_rule(never_audit(pid, 0, b"/bin/true", [execve]) or b"")
            slowest = max(slowest, time.monotonic() - before)
            await asyncio.sleep(0)
        wanted = await running
        loop.remove_reader(client.fileno())
        seen.extend(records(client))
        for rule in client.list_rules():
            client.delete_rule(rule)
        state.restore(client)
        client.close()
        return wanted

    threads = threading.active_count()
    wanted = asyncio.run(main())
    assert set(executed(seen)) == wanted
    assert slowest < 0.5
    assert threading.active_count() == threads


def test_small_buffer_delays_registered_reader_but_loses_nothing(kernel: AuditClient) -> None:
    """With unicast, ENOBUFS is congestion: the kernel keeps and resends what does not fit."""
    client, state = listening(receive_buffer=65536)
    lost = client.status().lost
    with client:
        for rule in compiled(client, EXECUTIONS):
            client.add_rule(rule)
        wanted = run_processes(300)  # no reader at this time
        seen: list[tuple[int, bytes]] = []
        while batch := client.receive():
            seen += batch
            time.sleep(0.005)
        seen += records(client)
        status = client.status()
        state.restore(client)
    assert set(executed(seen)) == wanted
    assert client.counters.congested > 0
    assert status.lost == lost


def test_multicast_overflow_is_counted_to_the_record(kernel: AuditClient) -> None:
    """The records that a full multicast buffer refused are counted: sent = received + dropped."""
    owner, state = listening()
    records(owner)  # what the kernel sent before there was a listener
    with owner, AuditClient.open(multicast=True, receive_buffer=8192) as listener:
        sent: list[tuple[int, bytes]] = []
        for number in range(500):
            send_user_message(USER_AVC, f"numbered-{number}".encode())
            sent += owner.receive()
        # The kernel sends each record to the listeners first. Some are its own.
        sent += records(owner)
        received: list[tuple[int, bytes]] = []
        while batch := listener.receive():
            received += batch
        dropped, congested = listener.dropped, listener.counters.congested
        state.restore(owner)
    assert sum(b"numbered-" in payload for _, payload in sent) == 500
    assert dropped > 0
    assert congested == 1
    assert len(received) + dropped == len(sent)


def test_what_the_kernel_did_not_send_is_dropped(kernel: AuditClient) -> None:
    """Messages of a process with CAP_NET_ADMIN do not count as the kernel's."""
    with AuditClient.open() as client:
        port = socket.fromfd(client.fileno(), socket.AF_NETLINK, socket.SOCK_RAW).getsockname()[0]
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9) as forger:
            forged = b"audit(1.000:1): forged=" + b"x" * 10_000
            header = (len(forged) + 16).to_bytes(4, sys.byteorder) + (1300).to_bytes(
                2, sys.byteorder
            )
            forger.sendto(header + bytes(10) + forged, (port, 0))
        assert client.receive() == []
        assert client.counters.forged == 1
        assert client.counters.truncated == 1


# Registration


def test_multicast_reads_beside_auditd(kernel: AuditClient, auditd: int, tmp_path: Path) -> None:
    """With auditd registered, multicast sees every process, and so does auditd."""
    with AuditClient.open(multicast=True) as listener:
        (execve,) = compiled(kernel, EXECUTIONS)
        kernel.add_rule(execve)
        wanted = run_processes(100)
        seen = records(listener)
        kernel.delete_rule(execve)
        assert set(executed(seen)) == wanted
        assert listener.dropped == 0
    assert kernel.status().pid == auditd
    log = tmp_path / "audit.log"
    until(
        lambda: all(b'a1="%b"' % name in log.read_bytes() for name in wanted),
        10,
        "auditd's records",
    )


def test_registering_beside_auditd_names_it(kernel: AuditClient, auditd: int) -> None:
    """Only one process can be registered: the error names it, and the remedy."""
    with AuditClient.open() as client, pytest.raises(AuditRequestError) as refusal:
        client.register()
    assert f"auditd (pid {auditd}) is registered" in str(refusal.value)
    assert "multicast" in str(refusal.value)


def test_registered_socket_notices_who_else_tries(kernel: AuditClient) -> None:
    """The kernel pings the registered socket if another process tries to register; no record."""
    client, state = listening()
    code = "from sessiond.audit.kernel.client import AuditClient; AuditClient.open().register()"
    with client:
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        seen = records(client)
        state.restore(client)
    assert b"is registered as the audit daemon" in other.stderr
    assert client.counters.pings == 1
    assert 1329 not in {kind for kind, _ in seen}


HOLDER = """
import os, signal, socket, sys
from sessiond.audit.kernel.client import AuditClient
client = AuditClient.open()
print(client.register(), flush=True)
socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b"socket"], [client.fileno()])
signal.pause()
"""


def test_adopted_socket_goes_on_where_the_killed_process_stopped(kernel: AuditClient) -> None:
    """After its holder is killed, a registered socket collects records for the next holder."""
    here, there = socket.socketpair()
    state = AuditState.capture(kernel)
    state.apply(kernel, enabled=1, **QUIET)
    (execve,) = compiled(kernel, EXECUTIONS)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(there.fileno())], pass_fds=[there.fileno()]
    ) as holder:
        there.close()  # a holder that could not start then ends the wait
        _, (descriptor, *_), _, _ = socket.recv_fds(here, 16, 1)
        here.close()
        kernel.add_rule(execve)
        wanted = run_processes(50)
        holder.send_signal(signal.SIGKILL)
    wanted |= run_processes(100)  # the socket has no holder
    with AuditClient.open(adopted_fd=descriptor) as client:
        assert client.register() == "adopted"
        assert client.status().pid == holder.pid
        wanted |= run_processes(50)
        seen = records(client)
        client.delete_rule(execve)
        assert state.restore(client) == []
        assert client.status().pid == 0
    names = executed(seen)
    assert len(names) == 200
    assert set(names) == wanted


def test_registration_without_a_socket_is_taken_over(kernel: AuditClient) -> None:
    """The kernel still shows a killed owner, which does not prevent the next registration."""
    code = HOLDER.replace("signal.pause()", "os.kill(os.getpid(), signal.SIGKILL)")
    here, there = socket.socketpair()
    with (
        here,
        there,
        subprocess.Popen(
            [sys.executable, "-c", code, str(there.fileno())], pass_fds=[there.fileno()]
        ) as holder,
    ):
        holder.wait()
        assert kernel.status().pid == holder.pid
    with AuditClient.open() as client:
        assert client.register() == "registered"
        assert client.status().pid == os.getpid()
        client.unregister()


def test_descriptor_that_is_no_audit_socket_is_refused(kernel: AuditClient) -> None:
    """A stored descriptor that is not an audit socket is reported and left alone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        with pytest.raises(AuditUnavailableError, match="isn't an audit socket"):
            AuditClient.open(adopted_fd=other.fileno())
        other.getsockname()


# Control


def test_everything_is_left_as_found(kernel: AuditClient) -> None:
    """After restore and the deletion of our rules, auditctl prints the same as before."""
    status, rules = auditctl("-s"), auditctl("-l")
    client, state = listening()
    with client:
        state.apply(client, failure=0, rate_limit=100_000)
        for rule in compiled(client, EXECUTIONS, "-a always,exit -F arch=b64 -S setsid -k mine"):
            client.add_rule(rule)
        assert auditctl("-s") != status
        assert "-S setsid" in auditctl("-l")
        for rule in client.list_rules():
            client.delete_rule(rule)
        assert state.restore(client) == []
    assert auditctl("-s") == status
    assert auditctl("-l") == rules


def test_setting_that_someone_changed_meanwhile_stays(kernel: AuditClient) -> None:
    """A setting that another program has changed is not restored, and the report says so."""
    client, state = listening()
    with client:
        subprocess.run(["auditctl", "-b", "320"], check=True, capture_output=True)
        left = state.restore(client)
        assert left == ["backlog_limit stays 320: it was changed after it was set to 8192"]
        assert client.status().backlog_limit == 320
        assert client.status().enabled == state.found.enabled


def test_status_equals_what_auditctl_shows(kernel: AuditClient) -> None:
    """Every member of the status is read from its own position."""
    kernel.set("rate_limit", 12345)
    kernel.set("backlog_limit", 321)
    kernel.set("backlog_wait_time", 5)
    shown = dict(
        line.split(" ", 1)
        for line in subprocess.run(
            ["auditctl", "-s"], check=True, capture_output=True, text=True
        ).stdout.splitlines()
    )
    status = kernel.status()
    for name in KernelAuditStatus.__struct_fields__:
        if name not in ("features", "backlog"):
            assert int(shown[name]) == getattr(status, name), name
    assert status.features & 0x20  # lost can be reset


def test_lost_counter_is_reset_and_returned(kernel: AuditClient) -> None:
    """The rate limit makes the kernel lose records; resetting the counter returns their number."""
    client, state = listening()
    with client:
        client.reset_lost()
        state.apply(client, failure=0, rate_limit=1)
        for rule in compiled(client, EXECUTIONS):
            client.add_rule(rule)
        run_processes(5)
        lost = client.status().lost
        assert lost > 0
        assert client.reset_lost() >= lost
        for rule in client.list_rules():
            client.delete_rule(rule)
        state.restore(client)
        client.reset_lost()
    assert kernel.status().lost == 0


def test_loginuid_can_be_made_immutable_and_not(kernel: AuditClient) -> None:
    """The feature is switched without locking it, and read back."""
    kernel.set_loginuid_immutable(on=True, lock=False)
    assert "loginuid_immutable 1 unlocked" in auditctl("-s")
    kernel.set_loginuid_immutable(on=False, lock=False)
    assert "loginuid_immutable 0 unlocked" in auditctl("-s")


def test_refusals_say_why(kernel: AuditClient) -> None:
    """Deleting a loaded, a missing and an invalid rule gives different results."""
    (execve,) = compiled(kernel, EXECUTIONS)
    kernel.add_rule(execve)
    with pytest.raises(AuditRequestError, match="loaded already"):
        kernel.add_rule(execve)
    kernel.delete_rule(execve)
    with pytest.raises(AuditRequestError, match="no such rule"):
        kernel.delete_rule(execve)
    with pytest.raises(AuditRequestError, match="doesn't know such"):
        kernel.add_rule(bytes([200]) + execve[1:])


UNPRIVILEGED = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("AuditClient.open().register()", "CAP_AUDIT_CONTROL"),
        ("AuditClient.open().status()", "CAP_AUDIT_CONTROL"),
        ("AuditClient.open().list_rules()", "CAP_AUDIT_CONTROL"),
        ("AuditClient.open(multicast=True)", "CAP_AUDIT_READ"),
    ],
)
def test_missing_capability_is_named(kernel: AuditClient, code: str, missing: str) -> None:
    """Without privileges, each call names the missing capability."""
    script = f"from sessiond.audit.kernel.client import AuditClient\n{code}"
    done = subprocess.run(
        [*UNPRIVILEGED, sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    last_line = done.stderr.splitlines()[-1]
    assert "AuditRequestError: can't " in last_line
    assert missing in last_line


@pytest.mark.parametrize(
    ("namespace", "code", "named"),
    [
        (["--user", "--map-root-user"], "AuditClient.open().status()", "user namespace"),
        (["--pid", "--fork", "--mount-proc"], "AuditClient.open().status()", "pid namespace"),
        (["--net"], "AuditClient.open(multicast=True)", "network namespace"),
    ],
)
def test_wrong_namespace_is_named(
    kernel: AuditClient, namespace: list[str], code: str, named: str
) -> None:
    """In a container's namespaces, the error names the one that is not the host's."""
    script = f"from sessiond.audit.kernel.client import AuditClient\n{code}"
    done = subprocess.run(
        ["unshare", *namespace, sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"not the host's {named}" in done.stderr.splitlines()[-1]


# Own activity


# Makes a directory, and lets a child make one.
MAKE = """
import os, subprocess, sys
for line in sys.stdin:
    os.mkdir(line.rstrip() + "/own")
    subprocess.run(["mkdir", line.rstrip() + "/child"], check=True)
    print(flush=True)
"""


@pytest.fixture
def maker(kernel: AuditClient) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs MAKE.

    It starts after auditing was enabled: the kernel never audits a process that started before
    the first time since the boot (kernel/auditsc.c, audit_alloc), as this one may have.
    """
    kernel.set("enabled", 1)
    command = [sys.executable, "-c", MAKE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def makes_directories(
    client: AuditClient, path: Path, maker: subprocess.Popen[str]
) -> dict[str, int]:
    """Let ``maker`` and its child make a directory; count the audited calls of each by key."""
    assert maker.stdin is not None
    assert maker.stdout is not None
    maker.stdin.write(f"{path}\n")
    maker.stdin.flush()
    assert maker.stdout.readline()
    return audited_calls(client, maker.pid)


def audited_calls(client: AuditClient, pid: int) -> dict[str, int]:
    """Count the audited calls of a process, and those of mkdir."""
    keyed = [payload for _, payload in records(client) if b'key="proof"' in payload]
    own = sum(b" pid=%d " % pid in payload for payload in keyed)
    return {"own": own, "child's": sum(b'comm="mkdir"' in payload for payload in keyed)}


def test_registered_process_is_not_audited(kernel: AuditClient, tmp_path: Path) -> None:
    """The kernel itself excludes the registered process, but not its children."""
    client, state = listening()
    with client:
        for rule in compiled(client, f"-a always,exit -F dir={tmp_path} -F perm=w -k proof"):
            client.add_rule(rule)
        (tmp_path / "own").mkdir()
        subprocess.run(["mkdir", tmp_path / "child"], check=True)
        assert audited_calls(client, os.getpid()) == {"own": 0, "child's": 1}
        for rule in client.list_rules():
            client.delete_rule(rule)
        state.restore(client)


def test_listener_is_kept_out_by_a_rule(
    kernel: AuditClient, auditd: int, maker: subprocess.Popen[str], tmp_path: Path
) -> None:
    """A listener's calls are audited until never_audit's rule is loaded; children's always are."""
    (tmp_path / "a").mkdir()
    (rule,) = compiled(kernel, f"-a always,exit -F dir={tmp_path}/a -F perm=w -k proof")
    with AuditClient.open(multicast=True) as listener:
        kernel.add_rule(rule)
        assert makes_directories(listener, tmp_path / "a", maker)["own"] == 1
        never = never_audit(maker.pid, os.getuid(), EXECUTABLE, kernel.list_rules())
        assert never is not None
        kernel.add_rule(never)
        assert canonical(as_listed(never)) == canonical(kernel.list_rules()[0])
        shutil.rmtree(tmp_path / "a" / "own")
        shutil.rmtree(tmp_path / "a" / "child")
        assert makes_directories(listener, tmp_path / "a", maker) == {"own": 0, "child's": 1}
        kernel.delete_rule(never)
        kernel.delete_rule(rule)


@pytest.mark.parametrize("other", [(4242, b"/bin/true"), (os.getuid(), b"/bin/true")])
def test_a_rule_that_a_crash_left_hides_no_other_process(
    kernel: AuditClient,
    auditd: int,
    maker: subprocess.Popen[str],
    tmp_path: Path,
    other: tuple[int, bytes],
) -> None:
    """A later holder of the pid is audited if it has another user or another program."""
    (rule,) = compiled(kernel, f"-a always,exit -F dir={tmp_path} -F perm=w -k proof")
    with AuditClient.open(multicast=True) as listener:
        kernel.add_rule(rule)
        left = never_audit(maker.pid, *other, kernel.list_rules())
        assert left is not None
        kernel.add_rule(left)
        assert makes_directories(listener, tmp_path, maker)["own"] == 1
        kernel.delete_rule(left)
        kernel.delete_rule(rule)


def test_no_exit_rule_needs_no_exception() -> None:
    """Without exit rules no rule could audit sessiond's own calls."""
    assert never_audit(1, 0, b"/bin/true", []) is None
