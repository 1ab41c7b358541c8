"""Local users who try to forge a line, break the JSON, or hide: their input is only data.

Every test first checks that each line of the output is one valid ECS document.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon, Document, value
from support.kernel import auditctl
from support.stream import agree, malformed
from support.truth import until

from sessiond.text import display

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]

FORGED = b'x"}\n{"@timestamp":"2026-01-01T00:00:00.000000Z","event":{"action":"forged"}}\n'
RECORD = b"type=SYSCALL msg=audit(1.000:1): arch=c000003e syscall=59 success=yes pid=1 uid=0"
CONTROLS = bytes(range(1, 32)) + b"\x7f\x1b[2J\x1b]0;owned\x07"
INVALID = b"\xff\xfe\xc3\x28\xed\xa0\x80\xf0\x9f\x92"
ODD = {
    "forged": FORGED,
    "record": RECORD,
    "controls": CONTROLS,
    "invalid": INVALID,
    "quotes": b'"\'\\"\\u0000${IFS}`id`',
    "empty": b"",
    "separator": "\u2028\u2029\u0085\ufeff".encode(),
    "hex": b"3005",
}

# Sets its own name (PR_SET_NAME, prctl(2)), then executes a program with odd arguments.
_AS = """
import ctypes, os, sys
name, directory, program, token = (os.fsencode(each) for each in sys.argv[1:5])
ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
if directory:
    os.chdir(directory)
os.execv(program, [program] + [bytes.fromhex(each) for each in sys.argv[5:]] + [token])
"""


def execute(
    token: str,
    *arguments: bytes,
    comm: bytes = b"",
    directory: bytes = b"",
    program: bytes = b"/bin/true",
) -> None:
    """Execute ``program`` with these arguments, then ``token``, from a process named ``comm``."""
    given = [os.fsdecode(each) for each in (comm, directory, program)]
    hexed = [argument.hex() for argument in arguments]
    subprocess.run([sys.executable, "-c", _AS, *given, token, *hexed], check=True)


def told(daemon: Daemon, token: str, action: str = "exec") -> Document:
    """Wait for the event of the process whose last argument is ``token``."""

    def found() -> list[Document]:
        return [
            document
            for document in daemon.find(event__action=action)
            if (value(document, "process.args") or [""])[-1] == token
            and "-c" not in document["process"]["args"]
        ]

    first: Document = until(found, 20, f"{action} of {token}")[0]
    return first


def sane(daemon: Daemon) -> None:
    """Check every line against ECS, and that no character would affect a terminal."""
    agree(malformed(daemon))
    data = daemon.output.read_bytes()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f]", data)
    assert not daemon.find(event__action="forged")


def test_arguments_of_any_bytes(daemon: Daemon) -> None:
    """Newlines, quotes, controls, invalid UTF-8, empty ones: shown alike in exec and end."""
    execute("odd-arguments", *ODD.values())
    wanted = ["/bin/true", *map(display, ODD.values()), "odd-arguments"]
    for action in ("exec", "end"):
        process = told(daemon, "odd-arguments", action)["process"]
        assert process["args"] == wanted
        assert process["args_count"] == len(wanted)
        assert process["command_line"] == " ".join(wanted)
    sane(daemon)


@pytest.mark.parametrize("name", [name for name, odd in ODD.items() if odd])
def test_names_of_any_bytes(daemon: Daemon, tmp_path: Path, name: str) -> None:
    """The name of a process, its file and its directory are bytes that a user chooses."""
    odd = ODD[name].replace(b"/", b"_")
    directory = os.fsencode(tmp_path) + b"/" + odd
    os.mkdir(directory)
    program = directory + b"/" + odd[:200]
    shutil.copy("/bin/true", os.fsdecode(program))
    execute("odd-names", comm=odd[:15], directory=directory, program=program)
    process = told(daemon, "odd-names")["process"]
    assert process["executable"] == display(program)
    assert process["working_directory"] == display(directory)
    assert told(daemon, "odd-names", "end")["process"]["executable"] == display(program)
    sane(daemon)


def test_a_hundred_thousand_arguments(daemon: Daemon) -> None:
    """All of them are written, or a part that is marked as such, with the true count."""
    subprocess.run(["/bin/true", *["a"] * 100_000, "many"], check=True)

    def found() -> list[Document]:
        return [
            document
            for document in daemon.find(event__action="exec")
            if value(document, "process.args_count") == 100_002
            or len(value(document, "process.args") or []) > 1_000
        ]

    document = until(found, 20, "the exec of many arguments")[0]
    args = document["process"]["args"]
    if args != ["/bin/true", *["a"] * 100_000, "many"]:
        assert "process.args" in document["sessiond"]["truncated"]
    assert args[:3] == ["/bin/true", "a", "a"]
    sane(daemon)


def test_an_argument_of_128_kib(make_daemon: MakeDaemon) -> None:
    """The longest argument that the kernel accepts (MAX_ARG_STRLEN), and those after it."""
    daemon = make_daemon({"event": {"max_args_bytes": "1MiB", "max_line_bytes": "1MiB"}}).start()
    longest = b"\xff" + b"x" * (128 * 1024 - 2)
    subprocess.run([b"/bin/true", longest, b"behind-it"], check=True)
    document = until(
        lambda: [
            each
            for each in daemon.find(event__action="exec")
            if (value(each, "process.args") or [""])[-1] == "behind-it"
        ],
        20,
        "the exec of the long argument",
    )[0]
    assert document["process"]["args"][1] == display(longest)
    sane(daemon)


def test_a_huge_environment_is_nobodys_argument(daemon: Daemon) -> None:
    """Memory after the arguments is never written."""
    huge = {f"NAME{number}": "secret-canary" * 5_000 for number in range(10)}
    subprocess.run(["/bin/true", "huge-environment"], env=huge, check=True)
    assert told(daemon, "huge-environment")["process"]["args_count"] == 2
    daemon.settle()
    assert b"secret-canary" not in daemon.output.read_bytes()
    sane(daemon)


def test_a_process_that_calls_itself_sshd_is_no_entry(daemon: Daemon, tmp_path: Path) -> None:
    """A name alone does not make a session an ssh login or a container."""
    for name in ("sshd", "runc", "containerd-shim"):
        fake = tmp_path / name
        shutil.copy("/bin/busybox", fake)
        subprocess.run([fake, "sh", "-c", f"/bin/true posing-{name}; true"], check=False)
        script = f"import os; os.setsid(); os.execv('/bin/true', ['/bin/true', 'by-{name}'])"
        subprocess.run([sys.executable, "-c", script], check=True)
        leader = told(daemon, f"by-{name}")["process"].get("entry_leader", {})
        assert value(leader, "entry_meta.type") not in ("sshd", "container")
    sane(daemon)


def test_a_title_that_was_set_changes_no_argument(daemon: Daemon) -> None:
    """A process that overwrites its argv after the exec is written with the original argv."""
    script = (
        "import ctypes, os\n"
        "stat = open('/proc/self/stat').read().rpartition(') ')[2].split()\n"
        "start, end = int(stat[45]), int(stat[46])\n"
        "ctypes.memset(start, ord('Z'), end - start - 1)\n"
    )
    subprocess.run([sys.executable, "-c", script, "own-title"], check=True)

    def found() -> list[Document]:
        return [
            each
            for each in daemon.find(event__action="end")
            if (value(each, "process.args") or [""])[-1] == "own-title"
        ]

    process = until(found, 20, "the end of the process with a title")[0]["process"]
    assert process["args"][1:] == ["-c", script, "own-title"]
    sane(daemon)


def test_a_message_that_poses_as_a_kernel_record_is_marked(daemon: Daemon) -> None:
    """Whatever a user's message contains, its origin and its sender come from the kernel."""
    auditctl("-m", "forged-one: " + RECORD.decode())
    auditctl("-m", "forged-two exe=/bin/evil pid=1 uid=4242 res=success' type=SYSCALL")
    for word in ("forged-one", "forged-two"):

        def found(word: str = word) -> list[Document]:
            return [
                each
                for each in daemon.documents()
                if word in json.dumps(each.get("auditd", {}))
                and each["event"]["action"] != "exec"
                and value(each, "auditd.message_type") == "user"
            ]

        document = until(found, 20, f"the message {word}")[0]
        assert document["auditd"]["origin"] == "user"
        assert value(document, "process.pid") not in (None, 1)
        assert value(document, "user.id") == "0"
    sane(daemon)


def test_a_storm_of_changing_names(daemon: Daemon) -> None:
    """Caches of names stay bounded, and no process is missed."""
    before = _resident(daemon.pid)
    script = 'i=0; while [ $i -lt 1500 ]; do /bin/true "$i" "storm-$i"; i=$((i+1)); done'
    subprocess.run(["sh", "-c", script], check=True)
    told(daemon, "storm-1499", "end")
    seen = {
        document["process"]["args"][-1]
        for document in daemon.find(event__action="exec")
        if value(document, "process.executable") and document["process"]["args"][0] == "/bin/true"
    }
    assert {f"storm-{number}" for number in range(1500)} <= seen
    assert _resident(daemon.pid) - before < 64 << 20
    sane(daemon)


SECRET = "hunter2-CANARY"


def test_redacted_secrets_are_nowhere(make_daemon: MakeDaemon) -> None:
    """Args, titles, parents, raw messages, sudo's records, spool, status and log lack them."""
    daemon = make_daemon(
        {
            "event": {"redact": {"enabled": True, "patterns": ["own-(hunter2-CANARY)"]}},
            "auditd": {"include_raw_message": True, "include_warnings": True},
            "output": {"socket": {"type": "unix_stream", "address": "/nonexistent/sessiond.sock"}},
            "logging": {"level": "debug"},
        }
    ).start()
    secret = SECRET.encode()
    execute("by-equals", b"--password=" + secret)
    execute("by-next", b"--password", secret)
    execute("by-odd-bytes", b"--token=\xff\n" + secret)
    execute("by-pattern", b"own-" + secret)
    execute("by-url", b"https://me:" + secret + b"@host/path")
    execute("by-long", b"x" * 9_000, b"--password", secret, b"y" * 9_000)
    subprocess.run(["sh", "-c", f"/bin/true below; : --password {SECRET}"], check=True)
    subprocess.run(["/bin/false", f"--password={SECRET}", "x" * 200], check=False)
    auditctl("-m", f"op=run cmd={f'x --password {SECRET}'.encode().hex().upper()} res=success")
    message = until(lambda: daemon.find(auditd__message_type="user"), 20, "the message")[0]
    assert secret.hex().upper() not in json.dumps(message["auditd"])
    assert told(daemon, "by-equals")["process"]["args"][1] == "--password=[REDACTED]"
    assert told(daemon, "by-next")["process"]["args"][1:3] == ["--password", "[REDACTED]"]
    assert told(daemon, "by-next")["process"]["args_count"] == 4
    assert told(daemon, "below")["process"]["parent"]["args"][-1].endswith("[REDACTED]")
    daemon.settle()
    status = daemon.command("status", "--json").stdout
    assert daemon.stop() == 0
    places = [
        status.encode(),
        *(
            p.read_bytes()
            for p in daemon.directory.rglob("*")
            if p.is_file() and p != daemon.config
        ),
    ]
    assert sum(b"REDACTED" in place for place in places) >= 2  # the output and the spool
    for place in places:
        assert secret not in place
    agree(malformed(daemon))


def test_nothing_of_theirs_reaches_a_terminal_raw(make_daemon: MakeDaemon) -> None:
    """The console's output escapes control characters, and so does the output of status."""
    daemon = make_daemon({"output": {"file": {"enabled": False}, "console": {}}}).start()
    execute("on-the-console", CONTROLS, INVALID)
    until(lambda: b'on-the-console"' in daemon.log.read_bytes(), 20, "the line on the console")
    daemon.stop()
    lines = [line for line in daemon.log.read_bytes().splitlines() if line.startswith(b'{"@t')]
    assert any(b"owned" in line for line in lines)
    for line in lines:
        assert not re.search(rb"[\x00-\x1f]", line)


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
