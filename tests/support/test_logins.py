"""Logins of the tests have their own session and terminal, and the client's address."""

from __future__ import annotations

import os

import pytest
from support.logins import Sshd, Tmux
from support.truth import Truth, images, read, until

pytestmark = pytest.mark.kernel


def test_ssh_gives_a_session_of_its_own(sshd: Sshd, truth: Truth) -> None:
    """A command over ssh is in a session below sshd, and has the client's address."""
    file = truth.file()
    said = sshd.login(f"{' '.join(truth.command(file, 'spawn'))}; echo $SSH_CONNECTION")
    assert said.startswith("127.0.0.1 ")
    (image,) = images(read(file))
    assert image.sid not in (None, os.getsid(0))
    assert image.tty == 0


def test_ssh_gives_a_terminal(sshd: Sshd, truth: Truth) -> None:
    """With a terminal the processes have major 136, a pts."""
    file = truth.file()
    sshd.login(" ".join(truth.command(file, "spawn")), terminal=True)
    (image,) = images(read(file))
    assert image.tty is not None
    assert image.tty >> 8 == 136


def test_tmux_inside_ssh_outlives_the_login(sshd: Sshd, tmux: Tmux, truth: Truth) -> None:
    """A tmux session started over ssh has its own session, and continues after the login."""
    file = truth.file()
    inner = "sleep 0.5; " + " ".join(truth.command(file, "spawn"))
    sshd.login(" ".join(tmux.new_session(f"'{inner}'")), terminal=True)
    told = until(lambda: images(read(file)), 10, "the process in tmux")
    assert told[0].tty >> 8 == 136
