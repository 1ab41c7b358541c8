"""An hour of a busy host: filters that ``sessiond top --suggest`` proposes leave a tenth of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.busy_host import ADDRESSES, CHILDREN, MINUTES, BusyHost, why_not
from support.containers import Runc
from support.control_groups import ControlGroups
from support.daemon import Daemon, Document, value
from support.logins import NO_STARTUP_FILES, Sshd
from support.stream import agree, inconsistent

pytestmark = pytest.mark.kernel

WITHOUT_START: dict[str, Any] = {
    "event": {"inventory": False, "ancestors": 20},
    "canary": {"interval": 0},
}
WINDOWS = 6  # of 10 minutes in an hour


@pytest.fixture
def busy(runc: Runc, tmp_path: Path) -> Iterator[BusyHost]:
    """The host."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    groups, sshd = ControlGroups(), Sshd(tmp_path, more=NO_STARTUP_FILES)
    sshd.start()
    host = BusyHost(runc, sshd, groups)
    yield host
    host.remove()
    sshd.stop()
    groups.remove()


def of_host(documents: list[Document]) -> list[Document]:
    """The lines of what these tests started, and those about lines that were not written."""
    return [
        each
        for each in documents
        if each["event"]["action"].startswith("sessiond-")
        or os.getpid() in [above["pid"] for above in value(each, "sessiond.ancestors") or ()]
    ]


def of_people(documents: list[Document]) -> Counter[tuple[str, ...]]:
    """What people did: address, action and command of each line of their sessions."""
    return Counter(
        (
            value(each, "process.entry_leader.entry_meta.source.ip"),
            each["event"]["action"],
            *each["process"].get("args", ()),
        )
        for each in documents
        if value(each, "process.entry_leader.entry_meta.type") == "sshd"
    )


def without_example(document: Document) -> Document:
    """The line without the process of a fold, which stands for many and has ended."""
    folded = document["event"]["action"] == "sessiond-folded"
    return {name: each for name, each in document.items() if name != "process" or not folded}


def test_suggested_filters_leave_a_tenth(
    make_daemon: Callable[..., Daemon], busy: BusyHost
) -> None:
    """Both people's sessions stay whole, and the account adds up to the line."""
    recorded = make_daemon(WITHOUT_START).start()
    seconds = busy.hour()
    before = recorded.settle()
    recorded.stop()
    before = recorded.documents()
    suggested = recorded.command("top", "--suggest", str(recorded.output))
    assert suggested.returncode == 0, suggested.stderr
    # Windows are shortened like the hour.
    window = {"fold": f"{max(1, round(seconds / WINDOWS))}s"}
    filters = yaml.safe_load(suggested.stdout)["filters"]
    for each in filters:
        each["then"] = window if each["then"] == "fold" else each["then"]

    quiet = make_daemon({**WITHOUT_START, "filters": filters})
    tried = quiet.command("filters", str(recorded.output))
    assert tried.returncode == 0, tried.stdout + tried.stderr
    quiet.start()
    busy.hour()
    quiet.settle()
    status = quiet.status()
    quiet.stop()
    after = quiet.documents()

    assert len(of_host(before)) > 2 * CHILDREN * MINUTES
    assert len(of_host(after)) < len(of_host(before)) / 10
    people = of_people(before)
    assert people == of_people(after)
    for address in ADDRESSES:
        assert people[address, "exec", "/bin/true", f"person-{address}", "leaves"] == 1
        assert people[address, "end", "/bin/true", f"person-{address}", "leaves"] == 1
    agree(inconsistent(map(without_example, after)))
    account, lines = status["pipeline"]["filters"], +Counter(status["pipeline"]["lines"])
    assert account["balanced"] is True
    assert status["ledger"]["balanced"] is True
    # The file has exactly the lines of the account, and the reports in it the others.
    assert Counter(each["event"]["action"] for each in after[: lines.total()]) == lines
    of_filters = lines["sessiond-folded"] + lines["sessiond-filtered"]
    assert account["written"] == lines.total() - of_filters
    assert account["seen"] == account["written"] + account["folded"]
    reported = sum(
        each["sessiond"]["filter"]["lines"]
        for each in after
        if each["event"]["action"] == "sessiond-filtered"
    )
    assert reported >= account["folded"] > 2 * CHILDREN * MINUTES
    # Each of the monitoring script's children is in the sums.
    folded = Counter[str]()
    for each in after:
        if each["event"]["action"] == "sessiond-folded":
            folded[each["process"]["name"]] += each["sessiond"]["filter"]["count"]
    assert folded["test"] == CHILDREN * MINUTES
