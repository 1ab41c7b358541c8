"""Filters in the pipeline: dropped lines, lines written despite them, and counters."""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml
from support.scripted import Actor, documents, pipeline
from support.story import Bench, T

from sessiond.config.filters import Filters
from sessiond.filters.pressure import Level
from sessiond.process.events import Changed, Login, Observed
from sessiond.units import SECOND

DROP_CHECKS = """
- name: checks
  when: {ancestor.executable: /bin/agent}
  then: drop
"""


def filters(text: str) -> Filters:
    """Return the filters of a configuration."""
    return Filters.parse(yaml.safe_load(text))


class Filtered(Bench):
    """A bench with programs of root, and a monitoring agent below the shell."""

    def __init__(self, text: str, **options: Any) -> None:
        """Start the agent, which is written."""
        super().__init__(filters=filters(text), **{"fork_events": "needed", **options})
        self.agent = self.run(self.host.shell, 61, "agent")

    def run(
        self, parent: Actor, pid: int, name: str, *args: str, owner: int = 0, **ids: Any
    ) -> Actor:
        """Fork and execute; ``ids`` are facts that the exec changes."""
        self.now += 1000
        child, forked = parent.fork(pid, self.now)
        self.tell(forked)
        self.execute(child, name, *args, owner=owner, **ids)
        return child

    def execute(self, actor: Actor, name: str, *args: str, owner: int = 0, **ids: Any) -> None:
        """Let a process execute a program."""
        self.now += 1000
        event, records = actor.execute(name, self.now, *args)
        actor.facts = actor.facts._replace(**ids)
        actor.program = event.program._replace(owner=owner)
        self.tell(event._replace(program=actor.program, facts=actor.facts), audit=records)

    def end(self, actor: Actor, code: int = 0) -> None:
        """Let a process end."""
        self.now += 1000
        event, records = actor.exit(code, self.now)
        self.tell(event, audit=records)

    def told(self) -> list[tuple[str, str]]:
        """Return action and name of each line so far, without older processes."""
        found = []
        for each in self.settle():
            process = each.get("process", {})
            if process.get("pid") in (1, 60):
                continue
            name = each.get("sessiond", {}).get("filter", {}).get("name") or process.get("name", "")
            found.append((each["event"]["action"], name))
        return found

    def account(self) -> dict[str, Any]:
        """Return the filters' account; check that it and that of audit events are balanced."""
        assert self.pipeline.account()["balanced"] is True
        account: dict[str, Any] = self.pipeline.status()["filters"]
        assert account["balanced"] is True
        return account


def test_a_dropped_process_has_no_line() -> None:
    """Exec, end and children of checks are dropped; the agent itself is written."""
    bench = Filtered(DROP_CHECKS)
    check = bench.run(bench.agent, 62, "check")
    bench.end(bench.run(check, 63, "df"))
    bench.end(check)
    bench.end(bench.run(bench.host.shell, 64, "ls"))
    assert bench.told() == [
        ("exec", "agent"),
        ("exec", "ls"),
        ("end", "ls"),
    ]
    account = bench.account()
    assert (account["seen"], account["written"], account["dropped"]) == (9, 5, 4)
    assert account["by_filter"]["checks"]["lines"] == 4


def test_without_filters_there_is_no_account() -> None:
    """Nothing is evaluated or counted."""
    assert "filters" not in pipeline().status()


def test_the_first_filter_wins() -> None:
    """A keep before a drop is an exception."""
    text = "- {name: but, when: {process.name: curl}, then: keep}" + DROP_CHECKS
    bench = Filtered(text)
    bench.run(bench.agent, 62, "df")
    bench.run(bench.agent, 63, "curl")
    assert ("exec", "curl") in bench.told()
    assert ("exec", "df") not in bench.told()


def test_a_needed_parent_is_written() -> None:
    """A dropped parent is written before its child, with its exec; its end is written too."""
    bench = Filtered("- {name: scripts, when: {process.name: script}, then: drop}")
    script = bench.run(bench.agent, 62, "script")
    inner = bench.run(script, 63, "script", "inner")
    bench.end(bench.run(inner, 64, "ls"))
    bench.end(inner)
    bench.end(script)
    told = bench.told()
    assert told == [
        ("exec", "agent"),
        ("exec", "script"),
        ("exec", "script"),
        ("exec", "ls"),
        ("end", "ls"),
        ("end", "script"),
        ("end", "script"),
    ]
    by_pid = {each["process"]["pid"]: each for each in bench.written if "process" in each}
    assert by_pid[64]["process"]["parent"]["pid"] == 63
    assert by_pid[63]["process"]["args"] == ["script", "inner"]
    stamps = [each["event"]["id"] for each in bench.written]
    assert len(set(stamps)) == len(stamps)
    assert bench.account()["dropped"] == 0


def test_a_needed_parent_is_written_as_it_was() -> None:
    """The parent has executed another program meanwhile, of which audit has not reported yet."""
    bench = Filtered("- {name: scripts, when: {process.name: script}, then: drop}")
    script = bench.run(bench.agent, 62, "script")
    child, forked = script.fork(63, bench.now + 1000)
    bench.now += 2000
    event, records = script.execute("script", bench.now, "again")
    bench.tell(forked, event)
    bench.execute(child, "ls")
    bench.tell(audit=records)
    bench.end(script)
    assert bench.told() == [
        ("exec", "agent"),
        ("exec", "script"),
        ("exec", "ls"),
        ("exec", "script"),
        ("end", "script"),
    ]
    first, second, _ = (
        each["process"] for each in bench.written if each.get("process", {}).get("pid") == 62
    )
    assert (first["args"], second["args"]) == (["script"], ["script", "again"])
    stamps = [each["event"]["id"] for each in bench.written]
    assert len(set(stamps)) == len(stamps)


def test_another_event_is_written_and_introduces_its_process() -> None:
    """A dropped process's open of a watched file is written, with the process."""
    bench = Filtered(DROP_CHECKS)
    check = bench.run(bench.agent, 62, "check")
    bench.now += SECOND
    bench.tell(audit=bench.host.records(check, bench.now, "2 success=yes exit=3"))
    assert bench.told()[1:] == [("exec", "check"), ("opened-file", "check")]
    assert bench.account()["dropped"] == 0


def test_an_event_is_dropped_by_a_filter_that_asks_for_it() -> None:
    """The filter names its action or the key of its rule."""
    for condition in ("event.action: opened-file", "tags: k, event.action: opened*"):
        bench = Filtered(f"- {{name: files, when: {{{condition}}}, then: drop}}")
        bench.now += 1000
        bench.tell(audit=bench.host.records(bench.agent, bench.now, "2 success=yes exit=3"))
        assert [action for action, _ in bench.told()] == ["exec"]
        assert bench.account()["dropped"] == 1
        numbers = [each["event"]["sequence"] for each in bench.written]
        assert numbers == [1, 2, 3]


def test_an_event_is_dropped_by_its_key_before_its_line_is_made() -> None:
    """Its process, which another filter drops, is then not introduced either."""
    by_key = "- {name: files, when: {tags: k, process.name: check}, then: drop}"
    others = {
        "": 0,
        "- {name: first, when: {event.outcome: success}, then: keep}": 1,
        "- {name: first, when: {event.outcome: success, process.name: ls}, then: keep}": 0,
        "- {name: first, when: {tags: other}, then: keep}": 0,
        "- {name: first, when: {tags: k}, then: keep}": 1,
        "- {name: first, when: {tags: k}, then: {tags: [t]}}": 1,
    }
    for first, told in others.items():
        bench = Filtered(f"{first}\n{by_key}" + DROP_CHECKS)
        check = bench.run(bench.agent, 62, "check")
        bench.now += SECOND
        bench.tell(audit=bench.host.records(check, bench.now, "2 success=yes exit=3"))
        found = [name for action, name in bench.told() if action == "opened-file"]
        assert len(found) == told, first
        account = bench.account()
        assert account["by_filter"]["files"]["lines"] == (0 if told else 2), first


def test_events_about_sessiond_are_dropped_only_by_name() -> None:
    """A glob never drops a loss."""
    for action, told in (("sessiond-*", 1), ("sessiond-lost", 0)):
        bench = Filtered(f"- {{name: quiet, when: {{event.action: '{action}'}}, then: drop}}")
        bench.pipeline.lost(bench.now, "tracer", 3, "full")
        found = [each for each in bench.told() if each[0] == "sessiond-lost"]
        assert len(found) == told


def test_a_decision_holds_until_the_next_exec() -> None:
    """Other filters after a reload do not affect running processes."""
    bench = Filtered(DROP_CHECKS)
    check = bench.run(bench.agent, 62, "check")
    ls = bench.run(bench.host.shell, 63, "ls")
    options = bench.pipeline.options
    other = filters("- {name: other, when: {process.name: ls}, then: drop}")
    bench.pipeline.use(dataclasses.replace(options, filters=other))
    bench.end(check)
    bench.end(ls)
    bench.end(bench.run(bench.host.shell, 64, "ls"))
    assert bench.told()[1:] == [("exec", "ls"), ("end", "ls")]
    assert bench.account()["by_filter"]["other"]["lines"] == 2


def test_decisions_and_account_survive_a_restart() -> None:
    """This applies even if the next run has no filters."""
    bench = Filtered(DROP_CHECKS)
    check = bench.run(bench.agent, 62, "check")
    bench.settle()
    state = bench.pipeline.save(bench.now)
    bench.pipeline = pipeline(fork_events="needed")
    bench.pipeline.restore(state)
    bench.end(check)
    bench.written += documents(bench.pipeline.flush(bench.now + 9 * SECOND))
    last = bench.written[-1]
    assert last["event"]["action"] == "sessiond-filtered"
    assert last["sessiond"]["filter"]["lines"] == 2
    assert last["sessiond"]["filter"]["name"] == "checks"
    assert ("end", "check") not in bench.told()


def test_set_user_id_is_told_with_its_ancestors() -> None:
    """Its descendants are written too, despite filters."""
    bench = Filtered(DROP_CHECKS)
    user = dict.fromkeys(("uid", "euid", "suid"), 1000)
    bench.execute(bench.agent, "agent", **user)
    check = bench.run(bench.agent, 62, "check")
    sudo = bench.run(check, 63, "sudo", euid=0, suid=0)
    bench.end(bench.run(sudo, 64, "id", uid=0))
    told = bench.told()
    assert told[2:] == [("exec", "check"), ("exec", "sudo"), ("exec", "id"), ("end", "id")]


def test_a_change_that_gains_is_told_at_once() -> None:
    """A dropped process gets a new login user."""
    bench = Filtered(DROP_CHECKS)
    check = bench.run(bench.agent, 62, "check")
    check.facts = check.facts._replace(loginuid=1000)
    bench.now += 1000
    bench.tell(Changed(bench.now, check.facts, "ids"))
    assert bench.told()[1:] == [("exec", "check")]
    bench.end(bench.run(check, 63, "ls"))
    assert bench.told()[2:] == [("exec", "ls"), ("end", "ls")]


def test_a_path_counts_for_a_drop_where_it_is_roots() -> None:
    """A user's copy of a program, or a file in another mount namespace, hides nothing."""
    text = "- {name: df, when: {process.executable: /bin/df}, then: drop}"
    bench = Filtered(text)
    bench.run(bench.agent, 62, "df", owner=1000)
    bench.run(bench.agent, 63, "df", mount_namespace=99)
    bench.run(bench.agent, 64, "df")
    pids = [each["process"]["pid"] for each in bench.settle() if each["event"]["action"] == "exec"]
    assert pids == [61, 62, 63]


FOLD = "- {name: health, when: {process.name: probe}, then: {fold: 1m}}"


def test_a_fold_tells_each_kind_once_a_window() -> None:
    """The first one is written at once, then the count; another exit code is another kind."""
    bench = Filtered(FOLD)
    for number in range(10):
        bench.end(bench.run(bench.agent, 100 + number, "probe", str(number)))
    bench.end(bench.run(bench.agent, 200, "probe", "bad"), code=7)
    bench.tell(after=61 * SECOND)
    folded = [each for each in bench.written if each["event"]["action"] == "sessiond-folded"]
    found = [(each["sessiond"]["filter"]["count"], each["process"]["exit_code"]) for each in folded]
    assert found == [(1, 0), (1, 7), (9, 0)]
    assert folded[2]["process"]["args"] == ["probe", "1"]
    assert folded[2]["event"]["start"] < folded[2]["event"]["end"]
    assert ("exec", "probe") not in bench.told()
    account = bench.account()
    assert (account["folded"], account["by_filter"]["health"]["lines"]) == (22, 22)


def test_a_folded_process_that_stays_is_told_after_a_window() -> None:
    """A program that does not end must not stay hidden."""
    bench = Filtered(FOLD)
    probe = bench.run(bench.agent, 62, "probe")
    assert ("exec", "probe") not in bench.told()
    bench.tell(after=61 * SECOND)
    bench.end(probe)
    assert bench.told()[1:] == [("exec", "probe"), ("end", "probe")]


def test_labels_and_tags_are_on_all_lines_of_a_process() -> None:
    """No line has the omitted fields."""
    bench = Filtered(
        "- {name: l, when: {process.name: df}, then: {labels: {job: mon}, tags: [t],"
        " fields: {omit: [process.parent, process.args]}}}"
    )
    bench.end(bench.run(bench.agent, 62, "df"))
    lines = [each for each in bench.settle() if each["process"]["pid"] == 62]
    assert [each["event"]["action"] for each in lines] == ["exec", "end"]
    for each in lines:
        assert each["labels"] == {"job": "mon"}
        assert each["tags"] == ["k", "t"]
        assert "parent" not in each["process"]
        assert "args" not in each["process"]
    assert "labels" not in bench.written[0]
    assert bench.account()["written"] == 5


def test_the_stream_has_hourly_reports() -> None:
    """Each report has its window; an empty window has no report."""
    bench = Filtered(DROP_CHECKS)
    bench.end(bench.run(bench.agent, 62, "check"))
    bench.tell(after=3601 * SECOND)
    bench.tell(after=3601 * SECOND)
    told = [each for each in bench.written if each["event"]["action"] == "sessiond-filtered"]
    assert [each["sessiond"]["filter"]["lines"] for each in told] == [2]
    assert told[0]["event"]["kind"] == "metric"
    assert told[0]["event"]["start"] < told[0]["event"]["end"]


def test_all_forks_and_sessions_go_by_the_process() -> None:
    """This includes every line of their lives."""
    bench = Filtered(DROP_CHECKS, fork_events="all")
    child, forked = bench.agent.fork(62, bench.now + 1)
    bench.tell(forked)
    changed, records = child.set_session(bench.now + 2)
    bench.tell(changed, audit=records)
    bench.execute(child, "check")
    bench.end(child)
    assert 62 not in [each["process"]["pid"] for each in bench.settle()]
    assert bench.account()["dropped"] == 4


def test_an_inventory_leaves_out_what_is_dropped() -> None:
    """They are written when another line needs them."""
    bench = Bench(
        filters=filters("- {name: bash, when: {process.args: bash}, then: drop}"), inventory=True
    )
    bench.settle()
    assert [each["process"]["pid"] for each in bench.written] == [1]
    child = bench.child(61, T + 20 * SECOND)
    event, records = child.execute("ls", bench.now + 1)
    bench.tell(event, audit=records)
    actions = [(each["event"]["action"], each["process"]["pid"]) for each in bench.settle()]
    assert actions[1:] == [("already_running", 60), ("exec", 61)]


def test_arguments_are_asked_for_in_any_form() -> None:
    """Equal, as a part, as a glob, as one of several, in bytes that are not text."""
    conditions = ("'-l'", "'*srv/a*'", "['x', '*/srv*']", "'/srv/?'", "'re:^/srv'", "'/srv/a'")
    for condition in conditions:
        bench = Filtered(f"- {{name: a, when: {{process.args: {condition}}}, then: drop}}")
        bench.run(bench.agent, 62, "ls", "-l", "/srv/a")
        bench.run(bench.agent, 63, "ls", "/other")
        told = [each["process"]["pid"] for each in bench.settle() if each["process"]["pid"] > 61]
        assert told == [63], condition


def test_an_entry_claimed_by_a_user_drops_nothing() -> None:
    """This includes ended leaders: logind's record counts, the environment does not."""
    text = "[{name: ssh, when: {entry_leader.entry_meta.type: sshd}, then: drop}]"
    for login, connection, actions in (
        (Login("logind", b"sshd", b"192.0.2.7", None, None), None, []),
        (None, b"192.0.2.7 1 192.0.2.1 22", ["exec", "end"]),
    ):
        bench = Filtered(text)
        shell = bench.host.shell
        facts = shell.facts._replace(pid=70, start=T, ppid=1, sid=50, pgid=50, audit_session=7)
        older = Observed(
            T + 1, facts, shell.program, b"/", None, connection=connection, login=login
        )
        bench.tell(older)
        child = bench.run(Actor(bench.host, 70, T, facts, shell.program), 71, "ls")
        exited, records = child.exit(0, bench.now + 1)
        bench.tell(exited, audit=records)
        told = [each for each in bench.settle() if each.get("process", {}).get("pid") == 71]
        assert [each["event"]["action"] for each in told] == actions


def test_a_login_user_of_a_users_own_choice_takes_nothing_away() -> None:
    """Without one, anybody may set any: neither the process nor its children hide behind it."""
    text = "[{name: root, when: {user.audit.id: 0}, then: drop}]"
    user = dict.fromkeys(("uid", "euid", "suid"), 1000)
    none = 0xFFFFFFFF
    for gives_itself in ("before an exec", "before a fork", "before a setsid"):
        bench = Filtered(text)
        bench.execute(bench.agent, "agent", loginuid=none)
        service = bench.run(bench.agent, 62, "service", **user)
        service.facts = service.facts._replace(loginuid=0)
        if gives_itself == "before an exec":
            bench.execute(service, "tool")
        elif gives_itself == "before a setsid":
            changed, records = service.set_session(bench.now + 1)
            bench.tell(changed, audit=records)
        bench.end(bench.run(service, 63, "tool"))
        told = [each for each in bench.settle() if each["process"]["pid"] == 63]
        assert [each["event"]["action"] for each in told] == ["exec", "end"], gives_itself
    bench = Filtered(text)
    bench.end(bench.run(bench.agent, 62, "tool", loginuid=0))
    assert 62 not in [each["process"]["pid"] for each in bench.settle()]


def test_what_a_never_rule_takes_is_no_blindness() -> None:
    """Where the kernel drops what a filter drops, an exec without audit events is expected."""
    bench = Filtered(DROP_CHECKS, dropped_by_kernel={"checks": frozenset()})
    child, forked = bench.agent.fork(62, bench.now + 1)
    event, _ = child.execute("df", bench.now + 2)
    bench.tell(forked, event._replace(program=event.program._replace(owner=0)))
    other, forked = bench.host.shell.fork(63, bench.now + 3)
    event, _ = other.execute("df", bench.now + 4)
    bench.tell(forked, event)
    bench.settle()
    assert bench.pipeline.status()["execs_unaudited"] == {"dropped": 1, "missing": 1}


def test_a_process_in_another_unit_is_told() -> None:
    """From its next exec on, with what it starts; another cgroup of the same unit is none."""
    bench = Filtered("- {name: jobs, when: {process.args: job}, then: drop}")
    for number, path in enumerate((b"/system.slice/a.service", b"/system.slice/a.service/x"), 5):
        bench.pipeline.table.name_cgroup(number, path)
    bench.pipeline.table.name_cgroup(7, b"/system.slice/b.service")
    job = bench.run(bench.agent, 62, "sh", "job", cgroup_id=5)
    bench.execute(job, "sh", "job", "same unit", cgroup_id=6)
    assert bench.told()[1:] == []
    bench.execute(job, "sh", "job", "moved", cgroup_id=7)
    bench.run(job, 63, "sh", "job", "child")
    told = [each["process"]["args"] for each in bench.settle() if each["process"]["pid"] > 61]
    assert told == [["sh", "job", "moved"], ["sh", "job", "child"]]


class Flooded(Filtered):
    """A bench with users, one of whom floods it; a second passes between two calls of ``press``."""

    MALLORY, ALICE = 1001, 1000

    def __init__(self, text: str = "[]", **options: Any) -> None:
        """Start a shell for each user."""
        super().__init__(text, **options)
        self.pid = 1000
        self.shells = {}
        for uid in (self.MALLORY, self.ALICE):
            self.shells[uid] = self.as_user(self.host.shell, "bash", uid)
            self.shells[uid].program = self.shells[uid].program._replace(comm=b"bash")

    def as_user(self, parent: Actor, name: str, uid: int, *args: str) -> Actor:
        """Execute a program as a user of the host's user namespace."""
        self.pid += 1
        ids = dict.fromkeys(("uid", "euid", "suid", "fsuid"), uid)
        return self.run(parent, self.pid, name, *args, **ids, loginuid=uid, user_namespace=_HOST)

    def flood(self, uid: int, number: int, name: str = "true") -> None:
        """Let a user start programs that end at once, and a second pass."""
        for count in range(number):
            self.end(self.as_user(self.shells[uid], name, uid, str(count)))
        self.now += SECOND

    def lines(self, uid: int, *, action: str = "exec", name: str = "true") -> int:
        """Count the lines about a user's program so far."""
        return sum(
            each["event"]["action"] == action
            and each.get("process", {}).get("name") == name
            and each["process"]["user"]["id"] == str(uid)
            for each in self.written
        )

    def folded(self) -> list[dict[str, Any]]:
        """Return the lines of folded events so far."""
        return [each for each in self.written if each["event"]["action"] == "sessiond-folded"]


_HOST = 0xEFFFFFFD


def test_under_pressure_only_the_noisiest_user_is_folded() -> None:
    """The flood becomes counted lines; another user's repetitions are written one by one."""
    bench = Flooded()
    bench.pipeline.press(Level.PRESSED)
    bench.flood(bench.MALLORY, 100)
    assert bench.lines(bench.MALLORY) == 100  # nobody is known as the noisiest yet
    bench.pipeline.press(Level.PRESSED)
    bench.flood(bench.MALLORY, 100)
    bench.flood(bench.ALICE, 30)
    bench.pipeline.press(Level.PRESSED)
    assert bench.lines(bench.MALLORY) == bench.lines(bench.MALLORY, action="end") == 110
    assert bench.lines(bench.ALICE) == bench.lines(bench.ALICE, action="end") == 30
    bench.flood(bench.MALLORY, 0)
    bench.tell(after=60 * SECOND)
    folded = bench.folded()
    assert sum(each["sessiond"]["filter"]["count"] for each in folded) == 90
    assert {each["sessiond"]["filter"]["name"] for each in folded} == {"under-pressure"}
    assert {each["process"]["user"]["id"] for each in folded} == {str(bench.MALLORY)}
    assert folded[-1]["event"]["start"] < folded[-1]["event"]["end"]
    assert bench.account()["by_filter"]["under-pressure"]["lines"] == 180


def test_after_the_pressure_everything_is_written() -> None:
    """Lines that the noisiest user repeats are written too."""
    bench = Flooded()
    bench.pipeline.press(Level.PRESSED)
    bench.flood(bench.MALLORY, 100)
    bench.pipeline.press(Level.PRESSED)
    bench.flood(bench.MALLORY, 50)
    bench.pipeline.press(Level.CALM)
    bench.flood(bench.MALLORY, 50, "false")
    assert bench.lines(bench.MALLORY, name="false") == 50


def test_a_folded_parent_of_something_new_is_written() -> None:
    """What is not repeated has its whole tree, under pressure as well."""
    bench = Flooded()
    bench.pipeline.press(Level.PRESSED)
    bench.flood(bench.MALLORY, 100)
    bench.pipeline.press(Level.PRESSED)
    bench.flood(bench.MALLORY, 50)
    before = bench.lines(bench.MALLORY)
    repeated = bench.as_user(bench.shells[bench.MALLORY], "true", bench.MALLORY, "parent")
    assert bench.lines(bench.MALLORY) == before
    bench.as_user(repeated, "nc", bench.MALLORY, "-l")
    assert bench.lines(bench.MALLORY) == before + 1
    (line,) = [each for each in bench.written if each.get("process", {}).get("name") == "nc"]
    assert line["process"]["parent"]["args"] == ["true", "parent"]


def test_a_flood_of_failing_execs_is_folded() -> None:
    """They take no process, so that one user causes more of them than anything else."""
    bench = Flooded()
    shell = bench.shells[bench.MALLORY]

    def fail(number: int) -> None:
        for _ in range(number):
            bench.now += 1000
            bench.tell(audit=shell.fail_to_execute(bench.now))

    bench.pipeline.press(Level.PRESSED)
    fail(200)
    bench.pipeline.press(Level.PRESSED)
    fail(200)
    bench.tell(after=60 * SECOND)
    failed = [each for each in bench.written if each["event"]["action"] == "exec-failed"]
    assert len(failed) == 200 + 11  # ten of the kind, and the first of a window
    assert sum(each["sessiond"]["filter"]["count"] for each in bench.folded()) == 189
    bench.account()


def test_a_flood_of_seccomp_records_is_folded() -> None:
    """A program causes them by a filter of its own (SECCOMP_RET_LOG), without any audit rule."""
    bench = Flooded()
    shell = bench.shells[bench.MALLORY]

    def log(number: int) -> None:
        bench.now += SECOND
        for serial in range(number):
            bench.now += 1000
            seconds, milliseconds = divmod(bench.host.stamp(bench.now), 1000)
            text = (
                f"audit({seconds}.{milliseconds:03d}:{bench.now + serial}): auid=0 pid={shell.pid}"
                ' comm="sh" exe="/bin/sh" sig=0 syscall=110 code=0x7ffc0000'
            )
            bench.tell(audit=[(1326, text.encode())])
        bench.tell(after=3 * SECOND)

    bench.pipeline.press(Level.PRESSED)
    log(200)
    bench.pipeline.press(Level.PRESSED)
    log(200)
    bench.tell(after=60 * SECOND)
    logged = [e for e in bench.written if e["event"]["action"] == "violated-seccomp-policy"]
    assert len(logged) == 200 + 11  # ten of the kind, and the first of a window
    assert sum(each["sessiond"]["filter"]["count"] for each in bench.folded()) == 189
    bench.account()


def test_a_filter_that_keeps_is_stronger_than_pressure() -> None:
    """What the administrator wants is written at any rate."""
    keep = "- {name: wanted, when: {process.name: true}, then: keep}"
    bench = Flooded(keep.replace("true}", "'true'}"))
    bench.pipeline.press(Level.PRESSED)
    bench.flood(bench.MALLORY, 100)
    bench.pipeline.press(Level.PRESSED)
    bench.flood(bench.MALLORY, 100)
    assert bench.lines(bench.MALLORY) == 200


def test_folding_under_pressure_can_be_switched_off() -> None:
    """Then every line is written, or lost and reported."""
    bench = Flooded(fold_under_pressure=False)
    bench.pipeline.press(Level.PRESSED)
    bench.flood(bench.MALLORY, 100)
    bench.pipeline.press(Level.PRESSED)
    bench.flood(bench.MALLORY, 100)
    assert bench.lines(bench.MALLORY) == 200
