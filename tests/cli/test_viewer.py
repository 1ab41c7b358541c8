"""``sessiond sessions`` and the other commands that show events, as a user calls them."""

from __future__ import annotations

import gzip
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from support.recording import LOGIN, Story, login_lines, poisoned_lines
from support.truth import until

from sessiond.cli import main, recordings
from sessiond.system import zstd


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A configuration whose output file holds the end of the recording, the rest is rotated."""
    output = tmp_path / "events.ndjson"
    lines = login_lines()
    output.write_bytes(b"".join(lines[200:]))
    (tmp_path / "events.ndjson.1").write_bytes(b"".join(lines[150:200]))
    zstd_library = zstd.implementation()
    assert zstd_library is not None
    packer = zstd_library.packer()
    packed = packer.compress(b"".join(lines[100:150])) + packer.flush()
    (tmp_path / "events.ndjson.2.zst").write_bytes(packed)
    (tmp_path / "events.ndjson.3.gz").write_bytes(gzip.compress(b"".join(lines[:100])))
    path = tmp_path / "sessiond.yml"
    path.write_text(f"output: {{file: {{path: {output}}}}}\n")
    path.chmod(0o600)
    return str(path)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_the_configured_file_is_read_with_those_rotated_out_of_it(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest session comes first; what is counted spans the files."""
    assert main.run(["sessions", "-c", config, "--type", "sshd", "--json"]) == 0
    found = [json.loads(line) for line in lines(capsys)]
    assert [(each["pid"], each["processes"]) for each in found] == [(12417, 3), (12278, 119)]
    assert not any("lost" in each for each in found)


def test_files_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code says whether a session matches."""
    assert main.run(["sessions", str(LOGIN), "--root", "--type", "sshd"]) == 0
    assert "ann→root→nobody" in capsys.readouterr().out
    assert main.run(["sessions", str(LOGIN), "--user", "bob"]) == 1
    assert capsys.readouterr() == ("", "sessiond: no session matches\n")


def test_where_there_is_nothing_the_next_step_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file yet, and a file without events yet."""
    path = tmp_path / "sessiond.yml"
    output = tmp_path / "log/events.ndjson"
    path.write_text(f"output: {{file: {{path: {output}}}}}\n")
    path.chmod(0o600)
    assert main.run(["tree", "-c", str(path)]) == 8
    said = f"sessiond: {output}: no such file; start sessiond, record a command"
    assert capsys.readouterr().err.startswith(said)
    output.parent.mkdir()
    output.touch()
    for command in ("sessions", "tree", "view"):
        assert main.run([command, "-c", str(path)]) == 1
        assert capsys.readouterr() == ("", "sessiond: these files have no events yet\n")


def test_without_a_daemon_the_newest_recording_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the working directory, and standard error says so; not where a file is configured."""
    monkeypatch.setattr(recordings, "output_file", lambda _: tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    for name, age in (("sessiond-old.ndjson", 100), ("sessiond-new.ndjson", 1), ("else.ndjson", 0)):
        text = json.dumps(Story(name).event(1, "exec", "bash")) + "\n"
        (tmp_path / name).write_text(text if age else "x")
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    for command in ("sessions", "tree", "view"):
        assert main.run([command]) == 0
        told = capsys.readouterr()
        assert told.err == (
            f"sessiond: {tmp_path}/none: no such file; this shows sessiond-new.ndjson, "
            "the newest recording here\n"
        )
        assert ("on sessiond-new.ndjson" in told.out) is (command == "tree")
    assert main.run(["explain", "1414"]) == 0
    capsys.readouterr()
    (tmp_path / "sessiond.yml").write_text("{}")
    (tmp_path / "sessiond.yml").chmod(0o600)
    assert main.run(["tree", "-c", str(tmp_path / "sessiond.yml")]) == 8
    assert main.run(["detect"]) == 8


@pytest.mark.parametrize(
    "command",
    [
        ["sessions"],
        ["sessions", "--json"],
        ["tree"],
        ["tree", "--all"],
        ["tree", "--json"],
        ["explain", "12278", "12331"],
        ["explain", "12331", "--json"],
    ],
    ids=" ".join,
)
def test_nothing_of_the_data_reaches_a_terminal_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """A control character in any field is escaped."""
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"".join(poisoned_lines()))
    assert main.run([*command, str(path)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    shown = told.out.splitlines()
    assert any("alert(1)" in line for line in shown)
    assert all(line.isprintable() for line in shown)


def test_json_harms_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And is the same document for a program."""
    path = tmp_path / "events.ndjson"
    hostile = "\x1b[2J \x9b2J \x7f \u202e \U000e0041 </script> 漢"
    event = Story(hostile).event(1, "exec", "bash", args=[hostile], user=hostile)
    path.write_text(json.dumps(event) + "\n")
    for command in ("sessions", "tree"):
        assert main.run([command, str(path), "--json"]) == 0
        (line,) = lines(capsys)
        assert line.isprintable()
        assert json.loads(line)["host"] == hostile
        assert main.run([command, str(path)]) == 0
        assert all(each.isprintable() for each in lines(capsys))
    assert main.run(["explain", str(path), str(event["process"]["pid"])]) == 0
    assert all(each.isprintable() for each in lines(capsys))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "no such file"),
        (b"hello\n", "contains no events of sessiond"),
        (b"type=SYSCALL msg=audit(1.1:1): x=1\n", "sessiond replay"),
        (gzip.compress(b'{"a":1}\n' * 100)[:-9], "damaged"),
    ],
)
def test_what_can_not_be_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes | None, said: str
) -> None:
    """The error has an exit code of its own."""
    path = tmp_path / "file"
    if data is not None:
        path.write_bytes(data)
    assert main.run(["sessions", str(path)]) == 8
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_torn_line_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other lines are read."""
    path = tmp_path / "file"
    path.write_bytes(b"{\x1b}\n" + b"".join(login_lines()))
    assert main.run(["sessions", str(path)]) == 0
    assert "1 line is not valid, the first one starts with {\\x1b}" in capsys.readouterr().err


def test_a_wrong_pattern_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The pattern counts as a part of the command line."""
    with pytest.raises(SystemExit) as ended:
        main.run(["sessions", "--command", "("])
    assert ended.value.code == 2
    assert "'('" in capsys.readouterr().err


def test_sessions_are_followed(tmp_path: Path) -> None:
    """Each is printed as it begins and as it ends."""
    path, out = tmp_path / "events.ndjson", tmp_path / "out"
    story = Story()
    path.write_text(json.dumps(story.event(1, "exec", "bash")) + "\n")
    with out.open("wb") as file:
        running = subprocess.Popen(
            [sys.executable, "-m", "sessiond", "sessions", str(path), "--follow", "--json"],
            stdout=file,
        )
    try:
        until(lambda: out.read_text().count("\n") == 1, 20, "the first session")
        shutil.move(path, tmp_path / "events.ndjson.1")
        more = (story.event(2, "end", "bash", exit_code=0), story.event(3, "exec", "other"))
        path.write_text("".join(json.dumps(each) + "\n" for each in more))
        until(lambda: out.read_text().count("\n") == 3, 20, "its end, and another")
    finally:
        os.kill(running.pid, signal.SIGINT)
    assert running.wait(10) == 130
    told = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(each["session"], each.get("running", False)) for each in told] == [
        ("web1-bash", True),
        ("web1-bash", False),
        ("web1-other", True),
    ]


LOGIN_ID = "lOcVr6UYKV_j9tnoaonUD00F"


def test_a_tree_is_asked_by_pid_or_id(capsys: pytest.CaptureFixture[str]) -> None:
    """Files and ids may be given in any order; unknown ids are reported."""
    assert main.run(["tree", "12278", str(LOGIN)]) == 0
    by_pid = lines(capsys)
    assert main.run(["tree", str(LOGIN), LOGIN_ID[:6]]) == 0
    assert lines(capsys) == by_pid
    assert main.run(["tree", LOGIN_ID[:6], "--level", "9", str(LOGIN)]) == 0
    assert lines(capsys) == by_pid
    with pytest.raises(SystemExit):
        main.run(["tree", LOGIN_ID[:6], "--levle", str(LOGIN)])
    assert "unrecognized arguments: --levle" in capsys.readouterr().err
    assert main.run(["tree", "-f", str(LOGIN), "4711"]) == 1
    assert "no process or session 4711" in capsys.readouterr().err
    assert main.run(["tree", "none.ndjson"]) == 8


def test_standard_input_is_read() -> None:
    """By a dash, wherever files are named."""
    for command in ("sessions", "tree"):
        done = subprocess.run(
            [sys.executable, "-m", "sessiond", command, "-", "--type", "container"],
            input=b"".join(login_lines()),
            capture_output=True,
            check=True,
        )
        assert b"container 3d9894c4cedb" in done.stdout


def test_a_tree_of_the_sessions_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """The tree is drawn, or printed as JSON objects."""
    assert main.run(["tree", str(LOGIN), "--type", "container"]) == 0
    assert len(lines(capsys)) == 4
    assert main.run(["tree", str(LOGIN), "--type", "container", "--json"]) == 0
    found = [json.loads(line) for line in lines(capsys)]
    assert [(each["depth"], each["name"]) for each in found] == [
        (0, "busybox"),
        (1, "busybox"),
        (1, "busybox"),
    ]


def test_a_process_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """It is described in words, or as a JSON object."""
    assert main.run(["explain", str(LOGIN), "12278"]) == 0
    assert "ended with exit code 3 after 12.7s" in capsys.readouterr().out
    assert main.run(["explain", str(LOGIN), "12278", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exit_code"] == 3
    assert main.run(["explain", str(LOGIN)]) == 2


def test_several_that_are_meant_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pid is used again, and hosts have the same ones."""
    path = tmp_path / "two.ndjson"
    one, two = Story().event(1, "exec", "bash"), Story("web2").event(1, "exec", "bash")
    path.write_text(json.dumps(one) + "\n" + json.dumps(two) + "\n")
    assert main.run(["tree", str(path), str(one["process"]["pid"])]) == 8
    error = capsys.readouterr().err
    assert "web1-bash on web1" in error
    assert "web2-bash on web2" in error


def test_a_tree_is_drawn_anew_on_a_terminal_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Elsewhere it says what to do."""
    assert main.run(["tree", str(LOGIN), "--follow"]) == 2
    assert "sessions --follow" in capsys.readouterr().err


def test_a_page_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its owner alone may read it; where no session fits there is none."""
    path = tmp_path / "page.html"
    assert main.run(["view", str(LOGIN), "-o", str(path), "--type", "sshd"]) == 0
    assert "2 sessions" in capsys.readouterr().out
    assert path.stat().st_mode & 0o777 == 0o600
    assert b'"users":["ann","root","nobody"]' in path.read_bytes()
    path.unlink()
    assert main.run(["view", str(LOGIN), "-o", str(path), "--user", "bob"]) == 1
    assert not path.exists()
    assert main.run(["view", str(LOGIN), "-o", str(tmp_path / "no" / "page.html")]) == 6


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_page_belongs_to_the_user_of_sudo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That user's browser opens the page."""
    monkeypatch.setenv("SUDO_UID", "4711")
    monkeypatch.setenv("SUDO_GID", "4712")
    path = tmp_path / "page.html"
    assert main.run(["view", str(LOGIN), "-o", str(path)]) == 0
    assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712)


def test_a_file_is_served_as_it_grows(tmp_path: Path) -> None:
    """The address with the token is printed; Ctrl-C ends it."""
    path = tmp_path / "events.ndjson"
    story = Story()
    path.write_text(json.dumps(story.event(1, "exec", "bash")) + "\n")
    with subprocess.Popen(
        [sys.executable, "-m", "sessiond", "view", str(path), "--serve"],
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        address = running.stdout.readline().removeprefix("open ").strip()
        data = address.replace("/?", "/data?")

        def events() -> int:
            with urllib.request.urlopen(data, timeout=10) as answer:
                return int(json.load(answer)["events"])

        assert events() == 1
        with path.open("a") as file:
            file.write(json.dumps(story.event(2, "end", "bash")) + "\n")
        until(lambda: events() == 2, 20, "the second event")
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == 130


def test_findings_are_served_as_they_come(tmp_path: Path) -> None:
    """The page gets the findings of the given rules, in earlier and in new events."""
    pytest.importorskip("sigma", reason="needs pysigma, of PyPI")
    path = tmp_path / "events.ndjson"
    story = Story()
    path.write_text(json.dumps(story.event(1, "exec", "bash")) + "\n")
    rule = tmp_path / "rule.yml"
    rule.write_text(
        "title: Listener\nlevel: high\nlogsource: {product: linux, category: process_creation}\n"
        "detection: {s: {Image|endswith: /nc}, condition: s}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "sessiond", "view", str(path), "--serve", "--rules", str(rule)],
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        address = running.stdout.readline().removeprefix("open ").strip()

        def found() -> list[str]:
            with urllib.request.urlopen(address.replace("/?", "/data?"), timeout=10) as answer:
                more = json.load(answer)["more"].values()
            return [each[1] for members in more for each in members.get("findings", ())]

        assert found() == []
        with path.open("a") as file:
            event = story.event(2, "exec", "nc", parent="bash", entry="bash", start=2)
            file.write(json.dumps(event) + "\n")
        until(lambda: found() == ["Listener"], 20, "the finding")
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == 130


def test_a_tree_is_drawn_anew_as_it_grows(tmp_path: Path) -> None:
    """On a terminal; what has no room there is left out at the top."""
    path = tmp_path / "events.ndjson"
    story = Story()
    path.write_text(json.dumps(story.event(1, "exec", "bash", start=1)) + "\n")
    controller, side = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "sessiond", "tree", str(path), "--follow"],
        stdout=side,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1", "LINES": "10", "COLUMNS": "100"},
    )
    os.close(side)
    text = b""

    def shown(wanted: bytes) -> bool:
        nonlocal text
        text += os.read(controller, 65536)
        return wanted in text.rpartition(b"\x1b[H\x1b[J")[2]

    try:
        until(lambda: shown(b"bash"), 20, "the first process")
        with path.open("a") as file:
            for number in range(20):
                event = story.event(
                    2, "exec", f"p{number}", parent="bash", entry="bash", start=2 + number
                )
                file.write(json.dumps(event) + "\n")
        until(lambda: shown(b"p19"), 20, "the last one")
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == 130
        os.close(controller)
    drawn = text.rpartition(b"\x1b[H\x1b[J")[2]
    assert drawn.count(b"\n") == 9
    assert b"bash" not in drawn
