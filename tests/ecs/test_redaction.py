"""Secrets on command lines: found in every form, while other text stays."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.ecs import redaction
from sessiond.ecs.redaction import MARK, SEARCHED, Redactor, read_patterns

SECRET = "hunter2-CANARY"
SHIPPED = Path(redaction.__file__).with_name("redact.patterns")


def shipped() -> Redactor:
    """The redactor with only event.redact.enabled."""
    found = read_patterns(SHIPPED.read_text())
    return Redactor(re.compile(pattern) for _, pattern in found)


@pytest.mark.parametrize(
    "line",
    [
        "x --password=@",
        "x --password @",
        "x --db-password=@ --verbose",
        "x --api-key @ --client-secret @",
        "mysql -u root -p@ db",
        "sshpass -p @ ssh host",
        "redis-cli -h host -a @",
        "docker login -u me -p @",
        "htpasswd -b file user @",
        "7z x -p@ file",
        "smbclient //host/share -U me%@",
        "openssl rsa -passin pass:@",
        "curl -u me:@ http://host",
        "curl --user me:@",
        "curl https://me:@@host/path",
        "psql postgres://me:@@host/db",
        "git clone https://host/x?access_token=@&depth=1",
        "env TOKEN=@ PGPASSWORD=@ x",
        "java -Dspring.datasource.password=@",
    ],
)
def test_a_secret_is_replaced_whether_arguments_or_a_shell_hold_it(line: str) -> None:
    """The same command as a list of arguments, and as one argument of a shell."""
    for args in (line.split(" "), ["sh", "-c", f"cd /; {line}"]):
        args = [argument.replace("@", SECRET, argument.count("@") or 1) for argument in args]
        args = [argument.replace(f"{SECRET}{SECRET}host", f"{SECRET}@host") for argument in args]
        shown = shipped().arguments(args)
        assert len(shown) == len(args)
        assert SECRET not in " ".join(shown)
        assert MARK in " ".join(shown)


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["x", "--password", f"two words {SECRET}"], ["x", "--password", MARK]),
        (["x", f"PASSWORD=two words {SECRET}"], ["x", f"PASSWORD={MARK}"]),
        (["x", f"https://me:{SECRET}@host/p"], ["x", f"https://me:{MARK}@host/p"]),
        (["x", f"Authorization: Bearer {SECRET}"], ["x", f"Authorization: Bearer {MARK}"]),
        (["curl", "-H", f"X-Api-Key: {SECRET}"], ["curl", "-H", f"X-Api-Key: {MARK}"]),
        (["curl", "-d", f'{{"password":"{SECRET}"}}'], ["curl", "-d", f'{{"password":{MARK}}}']),
        (["x", "AKIAIOSFODNN7EXAMPLE"], ["x", MARK]),
        (["x", "https://ghp_0123456789abcdefABCD@github.com"], ["x", f"https://{MARK}@github.com"]),
        (["x", "--password", f"\\xff{SECRET}"], ["x", "--password", MARK]),
    ],
)  # fmt: skip
def test_only_the_secret_is_replaced(args: list[str], shown: list[str]) -> None:
    """Option, user and host of the command stay."""
    assert shipped().arguments(args) == shown


@pytest.mark.parametrize(
    "line",
    [
        "ls -l /etc/passwd",
        "x --password-file /run/secrets/db",
        "docker login --password-stdin",
        "docker run -p 80:8080 image",
        "ssh -p 22 me@host",
        "curl http://host:8080/path",
        "mysql -p db",
        "env PWD=/root OLDPWD=/ x",
        "git commit -m token-ring",
    ],
)
def test_other_text_stays(line: str) -> None:
    """Paths of secrets, ports, directories and ordinary words are shown."""
    assert shipped().arguments(line.split(" ")) == line.split(" ")


def test_the_last_word_of_a_cut_command_line_is_not_shown() -> None:
    """Half a secret matches no pattern."""
    shown = shipped().arguments(["x", "--url", f"https://me:{SECRET[:7]}"], cut=True)
    assert shown == ["x", "--url", MARK]


def test_what_is_not_searched_is_not_shown() -> None:
    """An argument of a megabyte is searched in part, in bounded time."""
    args = ["x", "a " * SEARCHED + f"--password={SECRET}", SECRET, ""]
    shown = shipped().arguments(args)
    assert len(shown) == len(args)
    assert SECRET not in "".join(shown)
    assert shown[0] == "x"


@pytest.mark.parametrize(
    "piece", ["a", " ", "\0", "token", "mysql ", "--password ", "a://b:", "eyJ", "htpasswd -b ",
              '="', "authorization:", "\0--token", "curl -u ", "-----BEGIN PRIVATE KEY-----"],
)  # fmt: skip
def test_no_argument_makes_the_search_slow(piece: str) -> None:
    """A megabyte of repeated beginnings of a secret takes a fraction of a second."""
    began = time.process_time()
    shipped().text(piece * (2**20 // len(piece)))
    assert time.process_time() - began < 1


@given(st.lists(st.text()), st.booleans())
def test_the_number_of_arguments_stays(args: list[str], cut: bool) -> None:
    """args_count stays true."""
    assert len(shipped().arguments(args, cut=cut)) == len(args)


def test_groups_say_what_is_replaced() -> None:
    """With groups only their matches are replaced; otherwise the whole match."""
    both = Redactor([re.compile("k=(a+)-(b+)|(c)"), re.compile("x.z")])
    assert both.arguments(["k=aa-bb", "c", "xyz"]) == [f"k={MARK}-{MARK}", MARK, MARK]


def test_a_match_over_several_arguments_leaves_as_many() -> None:
    """Each argument is replaced separately."""
    assert Redactor([re.compile("(?s)b.*")]).arguments(["a", "b", "c"]) == ["a", MARK, MARK]


def test_records_of_a_document_are_searched() -> None:
    """Values are searched with their names, raw records also in hex; command lines are not."""
    hexed = f"--password={SECRET}".encode().hex().upper()
    document: dict[str, Any] = {
        "auditd": {
            "sequence": 7,
            "data": {"cmd": f"x --token {SECRET}", "password": SECRET, "terminal": "pts/1"},
            "summary": {"object": {"primary": f"x --token {SECRET}"}},
            "messages": [
                f'type=EXECVE msg=audit(1.000:7): argc=3 a0="x" a1="--token" a2="{SECRET}"',
                f"type=PROCTITLE msg=audit(1.000:7): proctitle={hexed}",
                f"type=USER_CMD msg=audit(1.000:7): pid=1 msg='cwd=\"/\" cmd={hexed} res=success'",
                'type=CWD msg=audit(1.000:7): cwd="/root"',
            ],
        }
    }
    document["event"] = {"action": "x", "original": list(document["auditd"]["messages"])}
    document["error"] = {"code": "ENOENT", "message": [f"x --token {SECRET} is no uid"]}
    Redactor.document(shipped(), document)
    text = str(document)
    assert document["event"]["original"] == document["auditd"]["messages"]
    assert SECRET not in text
    assert hexed not in text
    assert document["auditd"]["data"] == {
        "cmd": f"x --token {MARK}", "password": MARK, "terminal": "pts/1"
    }  # fmt: skip
    assert document["auditd"]["messages"][3] == 'type=CWD msg=audit(1.000:7): cwd="/root"'


def test_pattern_files_have_comments_and_blank_lines() -> None:
    """A pattern keeps its line number, for messages."""
    assert read_patterns("# secrets\n\n  a(b)\n#c\nd#e\n") == [(3, "a(b)"), (5, "d#e")]
