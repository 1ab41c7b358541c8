"""Manual pages and completions: complete, well-formed, and accepted by the shells."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sessiond.cli import declare, pages
from sessiond.cli.main import command_line
from sessiond.config.reference import options

COMMANDS = pages.commands_of(command_line())


def rendered(page: str) -> str:
    """The page as man shows it, in one line; a warning of groff is a failure."""
    command = ["groff", "-man", "-ww", "-Tutf8", "-P-cbou", "-rLL=400n"]
    done = subprocess.run(command, input=page.encode(), capture_output=True)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return " ".join(done.stdout.decode().split())


def test_the_manual_has_every_command_option_and_exit_code() -> None:
    """The manual is made from the parser, so that it is complete and correct."""
    text = rendered(pages.manual())
    for name, command in COMMANDS.items():
        assert f"sessiond {name} " in text
        for action in pages.arguments_of(command):
            assert all(option in text for option in action.option_strings), (name, action)
    for code, meaning in declare.EXIT_CODES.items():
        assert f"{code} {meaning}" in text
    assert "sessiond replay 'evidence/*/audit.log*' -o events.ndjson" in text


def test_the_settings_page_has_every_setting() -> None:
    """Each setting has its allowed values and its default."""
    text = rendered(pages.settings_manual())
    for path, option in options().items():
        assert path in text
        assert " ".join(option.help.split()) in text
    assert "Allowed: a whole number from 1 to 4294967295. Default: 8192. A reload applies" in text


def test_pages_are_dated_by_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same source makes the same page, whenever it is built."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert '"1970-01-02"' in pages.manual().splitlines()[0]


def test_no_text_is_taken_for_a_request() -> None:
    """A point or an apostrophe at the beginning of a line is special in roff."""
    assert pages._roff(".TH evil") == "\\&.TH evil"
    assert pages._roff("'don\\t") == "\\(aqdon\\et"


def completed(tmp_path: Path, *words: str) -> set[str]:
    """Return bash's completions of the last word."""
    script = tmp_path / "completion"
    script.write_text(pages.bash())
    line = " ".join(f"'{word}'" for word in words)
    program = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _sessiond;"
        ' printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-uc", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_options_and_files(tmp_path: Path) -> None:
    """bash offers everything that matches the typed word."""
    (tmp_path / "audit.log").touch()
    assert completed(tmp_path, "sessiond", "") >= set(COMMANDS)
    assert completed(tmp_path, "sessiond", "sta") == {"status"}
    assert completed(tmp_path, "sessiond", "status", "--p") == {"--prometheus"}
    assert completed(tmp_path, "sessiond", "replay", "aud") == {"audit.log"}


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_can_read_its_completion(tmp_path: Path) -> None:
    """The completion is a zsh function that names each command."""
    script = tmp_path / "_sessiond"
    script.write_text(pages.zsh())
    done = subprocess.run(["zsh", "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"'{name}:" in script.read_text() for name in COMMANDS)
