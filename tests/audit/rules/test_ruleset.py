"""The syntax of rules, and the plan of rules to add, keep and remove."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sessiond.audit.rules import binary, libaudit, parser
from sessiond.audit.rules.plan import audits, plan, refused
from sessiond.audit.rules.ruleset import Control, LoadedRule, Rule, RuleSet
from sessiond.config.schema import DEFAULT_RULES
from sessiond.errors import RuleError

DIRECTORIES = (b"/", b"/etc", b"/etc/ssh", b"/usr/bin")
SHIPPED = Path(__file__).parents[3] / "etc" / "sessiond.rules"


def path_mode(path: bytes) -> int:
    """A host with a few directories, and files in /etc named after their type."""
    if path.rstrip(b"/") in DIRECTORIES or path == b"/":
        return stat.S_IFDIR
    if path.startswith(b"/etc/passwd/"):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
    if path.rpartition(b"/")[0] in DIRECTORIES and b"missing" not in path:
        return stat.S_IFREG
    raise FileNotFoundError(errno.ENOENT, "No such file or directory")


def parse(text: str, *, keep_going: bool = False) -> RuleSet:
    """Compile rules on that host."""
    return parser.parse(text, "test.rules", keep_going=keep_going, path_mode=path_mode)


def described(text: str) -> list[str]:
    """Compile rules and return their descriptions."""
    return [rule.describe() for rule in parse(text)]


def refusal(text: str) -> str:
    """Return the reason why the text is refused."""
    with pytest.raises(RuleError) as caught:
        parse(text)
    return caught.value.reason


# --- lines and words


def test_a_rule_knows_where_it_stands() -> None:
    """Blank lines and comments only count as lines."""
    (rule,) = parse("# a comment\n\n   # another\n  -w /etc/passwd -p wa  \n").rules
    assert (rule.source, rule.line, rule.text) == ("test.rules", 4, "-w /etc/passwd -p wa")
    assert rule.describe() == "-w /etc/passwd -p wa"


def test_a_backslash_makes_a_blank_part_of_a_word() -> None:
    """A backslash and a blank are a blank, two backslashes are one; others stand for themselves."""
    assert described("-w /etc/a\\ b\\\\c\\d -k x\\ y") == ["-w /etc/a b\\c\\d -p rwxa -k x y"]


def test_quotes_are_characters_like_others() -> None:
    """As in auditctl -R, no shell processes the file."""
    assert described('-w /etc/passwd -k "who"') == ['-w /etc/passwd -p rwxa -k "who"']
    assert "quotes mean nothing" in refusal('-w /etc/passwd -k "who is"')


def test_options_stand_in_any_form_that_getopt_takes() -> None:
    """A value may be joined to its letter, and long options may be abbreviated."""
    assert described("-aalways,exit -Sexecve -kx") == ["-a always,exit -S execve -F key=x"]
    assert parse("--backlog_wait=5").controls == (Control("test.rules", 1, "backlog_wait_time", 5),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-a always,exit \\", "can't go on in the next line"),
        ("-a always,exit -S execve # execs", "a comment must stand on a line of its own"),
        ("-w /etc/passwd -p wa\tx", "-p takes letters of rwxa, this is 'wa\\tx'"),
        ("\t-w /etc/passwd", "not by tabs"),
        ("-w /etc/passwd\r", "carriage return"),
        ("-w /etc/pass\0wd", "control character"),
        ("-w\\ /etc/passwd", "first word"),
        ("-z", "-z is no auditctl option"),
        ("--nonsense", "--nonsense is no auditctl option"),
        ("--reset", "is no auditctl option"),
        ("-w", "-w needs a value"),
        ("junk", "'junk' belongs to no option"),
        ("--", "no option in this line"),
        ("-a always,exit -S " + "open," * 1300, "6143 bytes"),
        ("-a always,exit" + " -S 1" * 30, "drops the end"),
    ],
)
def test_lines_that_are_not_rules(text: str, reason: str) -> None:
    """The reason names the mistake in the line, before anything in it is compiled."""
    assert reason in refusal(text)


# --- rules


@pytest.mark.parametrize("order", ["always,exit", "exit,always"])
@pytest.mark.parametrize("option", ["-a", "-A"])
def test_list_and_action_in_both_orders(option: str, order: str) -> None:
    """-A makes the kernel put the rule first."""
    (rule,) = parse(f"{option} {order} -F arch=b64 -S execve")
    assert rule.describe() == "-a always,exit -F arch=b64 -S execve"
    assert rule.prepend == (option == "-A")


def test_system_calls_by_name_by_number_and_in_lists() -> None:
    """All system calls are in one mask."""
    (rule,) = parse("-a always,exit -F arch=b64 -S execve,execveat -S 0x1 -S 02,3,")
    arch = libaudit.native_arch()
    numbers = {libaudit.syscall_number(name, arch) for name in ("execve", "execveat")}
    assert set(binary.unpack(rule.data).syscalls()) == numbers | {1, 2, 3}


def test_no_system_call_means_all() -> None:
    """As in auditctl, for lists that have system calls; the task list has none."""
    assert described("-a always,exit -F uid=root") == ["-a always,exit -S all -F uid=0"]
    (task,) = parse("-a never,task")
    assert not any(binary.unpack(task.data).mask)


def test_keys_are_joined_and_bounded() -> None:
    """Several keys of a rule are one string, joined by byte 1, of at most 256 bytes."""
    (rule,) = parse("-w /etc/passwd -k one -k two -F key=three")
    assert binary.unpack(rule.data).key == "one\x01two\x01three"
    assert len(parse(f"-w /etc/passwd -k {'é' * 128}")) == 1
    assert "256 bytes" in refusal(f"-w /etc/passwd -k {'é' * 128}x")
    assert "256 bytes" in refusal(f"-w /etc/passwd -k {'x' * 200} -k {'y' * 56}")


@pytest.mark.parametrize(
    ("path", "description"),
    [
        ("/etc", "-w /etc -p rwxa"),
        ("/etc///", "-w /etc -p rwxa"),
        ("/etc/passwd/", "-w /etc/passwd -p rwxa"),
        ("/etc/missing", "-w /etc/missing -p rwxa"),
        ("/", "-w / -p rwxa"),
    ],
)
def test_a_watch_is_of_a_directory_or_a_file(path: str, description: str) -> None:
    """The type of the watch depends on its path's type; trailing slashes are removed."""
    (rule,) = parse(f"-w {path}")
    assert rule.describe() == description
    first = binary.unpack(rule.data).fields[0].type
    assert first == (binary.DIR if path in ("/", "/etc", "/etc///") else binary.WATCH)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-a always,exit -S opne", "did you mean open"),
        ("-a always,exit -S 99999", "no system call has the number"),
        ("-a always,exit -S 2040", "no system call has the number"),
        ("-a always,exit -F pth=/etc/passwd", "unknown field 'pth'; did you mean path?"),
        ("-a always,exit -F uid~0", "has no operator"),
        ("-a always,exit -F uid=", "uid has no value"),
        ("-a always,exit -F uid=nobodyy", "there is no user 'nobodyy'"),
        ("-a always,exit -F egid=nogroupp", "there is no group 'nogroupp'"),
        ("-a always,exit -F uid=unset", "only auid can be unset"),
        ("-a always,exit -F auid>unset", "takes only = and !="),
        ("-a always,exit -F pid&1", "pid doesn't take &"),
        ("-a always,exit -F exit=EPREM", "did you mean EPERM"),
        ("-a always,exit -F perm!=w", "perm takes only ="),
        ("-a always,exit -F perm=q", "perm takes letters of rwxa"),
        ("-a always,exit -F filetype=folder", "'folder' is no file type"),
        ("-a always,exit -F arch=b65", "use b64 or b32"),
        ("-a always,exit -S open -F arch=b64", "arch must come before -S"),
        ("-a always,exit -F msgtype=SYSCALL", "exclude and user lists only"),
        ("-a never,exclude -F msgtype=SYSCAL", "did you mean SYSCALL"),
        ("-a never,exclude -F ppid=1", "the exclude list takes"),
        ("-a never,exclude -S open", "the exclude list has no system calls"),
        ("-a never,task -S open", "the task list has no system calls"),
        ("-a never,filesystem -F uid=0", "the filesystem list takes no field but fstype"),
        ("-a never,user -F exit=1", "works in the exit list only"),
        ("-a always,exit -F path=etc/passwd", "absolute path"),
        ("-a always,exit -F path=/etc/ssh/", "use dir="),
        ("-a always,exit -F path=/etc/.", "write the path out"),
        ("-a always,exit -F dir=/missing", "there is no directory /missing"),
        ("-a always,exit -F path=/missing/x", "no directory that /missing/x could be in"),
        ("-a always,exit -F path=/etc/passwd/x", "through something that is not a directory"),
        ("-a always,exit -F path=/etc/x -F dir=/etc", "one of path, dir and inode"),
        ("-a always,exit -F exe=/etc/x -F exe=/etc/y", "one exe"),
        ("-a always,exit -C uid!=gid", "can't be compared"),
        ("-a always,exit -C uid<euid", "by = or !="),
        ("-a always,exit -C uid!=nobody", "unknown field 'nobody'"),
        ("-a always,entry -S open", "use exit"),
        ("-a always -S open", "a list and an action"),
        ("-a sometimes,exit -S open", "always or never"),
        ("-a always,exit -a always,exit", "once in a line"),
        ("-a possible,exit", "always or never"),
        ("-S open", "-S needs a list"),
        ("-F uid=0", "-F needs a list"),
        ("-k x -w /etc/passwd", "put it last"),
        ("-a always,exit -F uid=0 -k x", "put it last"),
        ("-p wa -w /etc/passwd", "-p needs a watch before it"),
        ("-w /etc/passwd -p wq", "-p takes letters of rwxa"),
        ("-w etc/passwd", "must start with /"),
        ("-w /" + "x" * 256, "longer than 255 bytes"),
        ("-w /etc/passwd -w /etc/shadow", "a rule of its own"),
        ("-a always,exit -w /etc/passwd", "a rule of its own"),
        ("-a always,exit -F uid=0 -W /etc/passwd", "a rule of their own"),
        ("-a always,exit -S open -l", "-l must stand alone"),
    ],
)
def test_wrong_rules(text: str, reason: str) -> None:
    """The reason names the mistake and the correct form."""
    assert reason in refusal(text)


def test_a_system_call_of_the_other_width_is_named() -> None:
    """socketcall exists only for 32-bit programs, so the message names arch."""
    if libaudit.arch_name(libaudit.native_arch()) != "x86_64":
        pytest.skip("needs an x86_64 machine, where the two tables differ so")
    assert "arch=b32 has" in refusal("-a always,exit -F arch=b64 -S socketcall")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-a always,exit -S open", "say -F arch=b64 or -F arch=b32"),
        ("-w /etc/ssh..", "write it out"),
        ("-w /etc/*", "stand for themselves"),
        ("-a exit,possible -S open", "deprecated"),
        ("-l", "prints something"),
        ("-A always,exit -F pid=1\n-A always,exit -F pid=1", "line 1 of test.rules has the same"),
    ],
)
def test_warnings(text: str, reason: str) -> None:
    """Rules that auditctl accepts, but that are probably mistakes."""
    if libaudit.arch_name(libaudit.native_arch()) != "x86_64" and "-S open" in text:
        text = text.replace("open", "execve")
    (warning,) = parse(text).warnings
    assert reason in str(warning)
    assert str(warning).startswith("test.rules:")


@pytest.mark.parametrize("field", ["perm=r", "fsuid=0", "a0=1"])
def test_what_never_matches_in_the_exclude_list_is_told(field: str) -> None:
    """Some versions of libaudit accept it, and so does the kernel, which ignores the field."""
    rules = parser.parse(f"-a never,exclude -F {field}", "test.rules", keep_going=True)
    (told,) = [*map(str, rules.errors), *map(str, rules.warnings)]
    assert "the exclude list" in told


# --- controls


def test_controls() -> None:
    """Controls keep their order; numbers are parsed like strtoul(3): also octal, hexadecimal."""
    text = """
        -b 8192
        -f 2
        -r 010
        --backlog_wait_time 0x10
        --loginuid-immutable
        --reset-lost
        --reset_backlog_wait_time_actual
        -t
        -q /mnt,/etc
        -e 2
    """.replace("        ", "")
    assert [(control.line, control.name, control.value) for control in parse(text).controls] == [
        (2, "backlog_limit", 8192),
        (3, "failure", 2),
        (4, "rate_limit", 8),
        (5, "backlog_wait_time", 16),
        (6, "loginuid_immutable", 1),
        (7, "reset_lost", 1),
        (8, "reset_backlog_wait_time_actual", 1),
        (9, "trim_subtrees", 1),
        (10, "make_equivalent", "/mnt,/etc"),
        (11, "enabled", 2),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-e 3", "-e takes 0, 1 or 2"),
        ("-f panic", "-f takes 0, 1 or 2"),
        ("-b many", "-b takes a number"),
        ("-r -1", "-r takes a number"),
        ("--backlog_wait_time 99999999999", "32 bits"),
        ("-q /mnt", "MOUNT,SUBTREE"),
        ("-q a,b,c", "MOUNT,SUBTREE"),
        ("-R other.rules", "no part of a rule set"),
        ("-m hello", "no part of a rule set"),
        ("--signal TERM", "no part of a rule set"),
        ("-h", "no part of a rule set"),
        ("-e 2\n-w /etc/passwd", "move it to the end"),
    ],
)
def test_wrong_controls(text: str, reason: str) -> None:
    """Nothing may follow a lock, and immediate actions of auditctl are not rules."""
    assert reason in refusal(text)


# --- errors


def test_the_first_error_stops() -> None:
    """The error names its line."""
    with pytest.raises(RuleError, match=r"^test\.rules:2: unknown field") as caught:
        parse("-w /etc/passwd\n-a always,exit -F nonsense=1\n-z")
    assert (caught.value.source, caught.value.line) == ("test.rules", 2)


def test_all_errors_at_once() -> None:
    """With keep_going, the valid rules remain."""
    rule_set = parse("-z\n-w /etc/passwd\n-y", keep_going=True)
    assert [error.line for error in rule_set.errors] == [1, 3]
    assert [rule.line for rule in rule_set] == [2]


@pytest.mark.parametrize("switch", ["-i", "-c"])
def test_a_text_can_ask_to_go_on(switch: str) -> None:
    """-i and -c apply from their line on; the kernel may then refuse those rules as well."""
    rule_set = parse(f"-w /etc/passwd\n{switch}\n-z\n-w /etc/group")
    assert [error.line for error in rule_set.errors] == [3]
    assert [rule.line for rule in rule_set] == [1, 4]
    with pytest.raises(RuleError):
        parse(f"-z\n{switch}")


# --- sets


def test_deletions_work_on_what_stands_before() -> None:
    """-d and -W name a whole rule; -D deletes all rules, or those with the text in their key."""
    rules_ = "-w /etc/passwd -k a\n-w /etc/group -k b\n-a never,task\n"
    assert described(rules_ + "-W /etc/passwd -k a\n-d task,never") == [
        "-w /etc/group -p rwxa -k b"
    ]
    assert described(rules_ + "-D -k b") == ["-w /etc/passwd -p rwxa -k a", "-a never,task"]
    assert described(rules_ + "-D\n-a never,task") == ["-a never,task"]
    assert "no line before this" in refusal(rules_ + "-W /etc/passwd")
    assert "no option but -k" in refusal(rules_ + "-D -F x")


def test_a_rule_twice_is_a_mistake() -> None:
    """As in auditctl, in any spelling; but two texts may both contain it."""
    assert "line 1 has the same rule" in refusal("-a always,exit -S 1\n-a exit,always -S 0x1")
    texts = [("a.rules", "-w /etc/passwd"), ("b.rules", "-w /etc/passwd\n-w /etc/group")]
    rule_set = parser.parse_all(texts, path_mode=path_mode)
    assert [rule.source for rule in rule_set] == ["a.rules", "b.rules"]
    assert "line 1 of a.rules has the same rule" in str(rule_set.warnings[0])


def test_the_shipped_rules_are_the_built_in_ones() -> None:
    """On every architecture for which libaudit knows the four system calls."""
    shipped = parser.parse(SHIPPED.read_text(), str(SHIPPED))
    built_in = parser.parse(DEFAULT_RULES, "built-in rules")
    assert [rule.data for rule in shipped] == [rule.data for rule in built_in]
    assert not shipped.warnings
    for arch in (0xC000003E, 0xC00000B7):
        for name in ("execve", "execveat", "exit_group", "setsid"):
            assert libaudit.syscall_number(name, arch) is not None


@given(st.text() | st.binary())
@example("-a always,exit -S \ud800")
@example("-w /\udcff")
@example("-a \xff,\xff")
@example("-F arch=\xe9 -a always,exit")
@example("-D -k")
@example("-a always,exit -C =")
def test_any_text_is_rules_or_errors(text: str | bytes) -> None:
    """No exception other than RuleError is raised."""
    rule_set = parser.parse(text, "any", keep_going=True)
    assert all(error.line > 0 and error.reason for error in rule_set.errors)


WORDS = st.sampled_from(
    "-a -A -d -w -W -p -k -S -F -C -D -e -b -f -r -i -c -t -q always,exit exit,never never,task "
    "never,exclude always,user always,filesystem execve,open all 59 arch=b64 arch=b32 uid=0 "
    "auid!=unset path=/etc/passwd dir=/etc perm=wa exe=/usr/bin/su exit=-EPERM msgtype=CWD "
    "fstype=debugfs key=k uid!=euid /etc/passwd /etc/ wa who 2 --reset-lost \\ # é".split()
)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=8).map(" ".join), max_size=6).map("\n".join))
def test_any_rule_reads_back_as_itself(text: str) -> None:
    """The description of a rule is a line of the language that yields the same rule."""
    for rule in parse(text, keep_going=True):
        (again,) = parse(rule.describe())
        assert again.canonical == rule.canonical


# --- what is loaded


def load(there: list[bytes], wanted: Iterable[Rule]) -> list[bytes]:
    """Add rules like the kernel, and list them: list by list, -A at the front."""
    for rule in wanted:
        assert rule.canonical not in there
        there = [rule.canonical, *there] if rule.prepend else [*there, rule.canonical]
    return sorted(there, key=lambda data: binary.unpack(data).list)


def kernel(text: str) -> list[bytes]:
    """Return the rules of a text in the order of the kernel."""
    return load([], parse(text))


def lines(plan_rules: Sequence[Rule]) -> list[int]:
    """Return the lines that the rules come from."""
    return [rule.line for rule in plan_rules]


TWO = "-w /etc/passwd\n-a always,exit -F pid=1\n"
FOREIGN = "-w /etc/group -k theirs\n"


def test_everything_is_added_to_an_empty_kernel() -> None:
    """The rules are added in the order of the text."""
    changes = plan(parse(TWO), [])
    assert lines(changes.add) == [1, 2]
    assert (changes.remove, changes.ours, changes.foreign) == ((), (), ())


def test_rules_of_others_stay() -> None:
    """A wanted rule that was loaded before stays foreign, and is never removed."""
    changes = plan(parse(TWO), kernel(FOREIGN + "-w /etc/passwd"))
    assert lines(changes.add) == [2]
    assert [rule.describe() for rule in changes.foreign] == [
        "-w /etc/group -p rwxa -k theirs",
        "-w /etc/passwd -p rwxa",
    ]
    assert changes.remove == ()


def test_at_the_end_only_ours_are_removed() -> None:
    """Also after a crash: the saved rules that are still loaded are removed."""
    ours = [rule.data for rule in parse(TWO + "-a never,task")]
    changes = plan((), kernel(FOREIGN + TWO), ours)
    assert list(changes.remove) == kernel(TWO)
    assert [rule.data for rule in changes.foreign] == kernel(FOREIGN)


def test_what_is_loaded_as_wanted_stays() -> None:
    """A second run changes nothing, and a rule at the end is only added."""
    ours = kernel(TWO)
    changes = plan(parse(TWO), kernel(FOREIGN) + ours, ours)
    assert (changes.add, changes.remove, list(changes.ours)) == ((), (), ours)
    more = plan(parse(TWO + "-a always,exit -F pid=2"), ours, ours)
    assert (lines(more.add), more.remove) == ([3], ())


def test_a_rule_that_went_missing_is_added() -> None:
    """After auditctl -D the next check lists the missing rules."""
    changes = plan(parse(TWO), [], kernel(TWO))
    assert lines(changes.add) == [1, 2]


def test_the_order_of_rules_is_kept() -> None:
    """The first matching rule decides, so a new rule before others makes those be reloaded."""
    ours = kernel(TWO)
    never = "-a never,exit -F uid=0\n"
    changes = plan(parse(never + TWO), ours, ours)
    assert list(changes.remove) == ours
    assert lines(changes.add) == [1, 2, 3]
    first = plan(parse(TWO + "-A never,exit -F uid=0"), ours, ours)
    assert list(first.remove) == ours
    assert lines(first.add) == [1, 2, 3]
    other_list = plan(parse("-a never,task\n" + TWO), ours, ours)
    assert (lines(other_list.add), other_list.remove) == ([1], ())


SOME = ["-w /etc/a", "-w /etc/b", "-A exit,never -F pid=1", "-a task,never -F pid=2"]


@given(
    st.permutations(SOME),
    st.permutations(SOME),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_a_plan_carried_out_is_what_was_wanted(
    before: list[str], after: list[str], had: int, wants: int
) -> None:
    """After loading, each list has sessiond's rules in the wanted order."""
    loaded, wanted = kernel("\n".join(before[:had])), parse("\n".join(after[:wants]))
    changes = plan(wanted, loaded, loaded)
    there = [data for data in loaded if data not in changes.remove]
    assert there == list(changes.ours)
    assert load(there, changes.add) == load([], wanted)


def test_the_kernels_refusals_have_reasons() -> None:
    """The error number alone does not help the user."""
    (rule,) = parse("\n-w /etc/passwd")
    error = refused(rule, errno.EINVAL)
    assert str(error).startswith("test.rules:2: the kernel refuses the rule (EINVAL)")
    assert "CAP_AUDIT_CONTROL" in refused(rule, errno.EPERM).reason


# --- what will come


@pytest.mark.parametrize(
    ("text", "audited"),
    [
        (DEFAULT_RULES, {"execve", "execveat", "exit_group", "setsid"}),
        ("", set()),
        ("-a always,exit -F arch=b64 -S execve -F uid=0", {"execve"}),
        ("-a always,exit -S all", {"execve", "execveat", "exit_group", "setsid"}),
        ("-a always,exit -F arch!=b64 -S all", set()),
        ("-a never,exit -F arch=b64 -S setsid\n" + DEFAULT_RULES, {"execve", "execveat",
         "exit_group"}),
        (DEFAULT_RULES + "-A never,exit -S all", set()),
        (DEFAULT_RULES + "-a never,task", set()),
        ("-w /usr/bin/su -p x", {"execve", "execveat"}),
        ("-a always,user -F uid=0", set()),
    ],
)  # fmt: skip
def test_which_events_the_rules_can_bring(text: str, audited: set[str]) -> None:
    """As loaded or as listed: exits, for example, are recorded only if a rule covers them."""
    wanted = parse(text)
    listed = [LoadedRule(data) for data in kernel(text)]
    names = ("execve", "execveat", "exit_group", "setsid", "nonsense")
    assert {name for name in names if audits(wanted, name)} == audited
    assert {name for name in names if audits(listed, name)} == audited


def test_a_field_name_with_a_control_character_is_shown_harmlessly() -> None:
    """An error is one line, whatever the file contains."""
    with pytest.raises(RuleError, match=r"'key=\\x1bx' has no value"):
        parser.parse(b"-a always,exit -S open -F key=\x1bx>=\n", "f")
