"""The same rules loaded by sessiond and by auditctl give the same bytes in the kernel.

The tests neither enable audit, so that no event is made, nor lock anything (-e 2,
--loginuid-immutable), because that lasts until the next boot.
"""

from __future__ import annotations

import itertools
import random
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.kernel import AuditState, auditctl

from sessiond.audit.kernel.client import AuditClient
from sessiond.audit.rules import binary, libaudit, parser, ruleset
from sessiond.audit.rules.plan import plan
from sessiond.errors import RuleError

pytestmark = pytest.mark.kernel

# In rules/ on Debian 12, in audit-rules/ on Debian 13.
EXAMPLES = sorted(Path("/usr/share/doc/auditd/examples").glob("*rules/*.rules"))
SHIPPED = sorted((Path(__file__).parents[2] / "etc").glob("*.rules"))
CONTROL = re.compile(r"^ *(?:-[bfre] |--).*$", re.MULTILINE)
BATCH = 500  # lines; the kernel searches all its rules for a duplicate


class Kernel:
    """A kernel without rules, to load and list rules."""

    def __init__(self, client: AuditClient, directory: Path) -> None:
        self._client = client
        self._file = directory / "some.rules"

    @contextmanager
    def _emptied(self) -> Iterator[None]:
        try:
            yield
        finally:
            for data in self._client.list_rules():
                self._client.delete_rule(data)

    def by_auditctl(self, text: str) -> tuple[bool, list[bytes], list[str]]:
        """Return whether auditctl -R accepts the text, the loaded rules, and their auditctl -l."""
        self._file.write_text(text, encoding="utf-8")
        with self._emptied():
            command = ["auditctl", "-R", str(self._file)]
            done = subprocess.run(command, capture_output=True, check=False)
            printed = [line for line in auditctl("-l").splitlines() if line != "No rules"]
            return done.returncode == 0, self._client.list_rules(), printed

    def by_us(self, wanted: Iterable[ruleset.Rule]) -> list[bytes]:
        """Return the rules that are loaded after the kernel has accepted all of them."""
        with self._emptied():
            for rule in wanted:
                self._client.add_rule(rule.data)
            return self._client.list_rules()

    def compare(self, text: str) -> int:
        """Check that both load the same rules of a text with mistakes; return their number."""
        _, theirs, printed = self.by_auditctl(f"-c\n{text}")
        wanted = parser.parse(f"-c\n{text}", "some.rules")
        ours = self.by_us(wanted)
        assert _described(ours) == _described(theirs)
        assert ours == theirs
        for data, line in zip(ours, printed, strict=True):
            if _is_printed_right(data):
                assert binary.describe(data) == line
        return len(ours)


def _described(loaded: Iterable[bytes]) -> list[str]:
    return [binary.describe(data) for data in loaded]


def _is_printed_right(data: bytes) -> bool:
    """Return whether auditctl -l prints that rule: see ``binary.describe`` for the exceptions."""
    rule = binary.unpack(data)
    types = {field.type for field in rule.fields}
    equal = 0x40000000
    if any(field.type == binary.EXE and field.operator != equal for field in rule.fields):
        return False
    watch = {binary.PERM, binary.WATCH, binary.DIR, binary.FILTERKEY}
    if binary.PERM in types <= watch and rule.all_syscalls and not rule.is_watch:
        return False
    return rule.list != binary.EXIT or rule.all_syscalls or binary.ARCH in types


@pytest.fixture
def empty_kernel(audit_state: AuditState, tmp_path: Path) -> Iterator[Kernel]:
    """The kernel's rules: empty before and after the test."""
    if audit_state.rules:
        pytest.skip("needs a kernel without audit rules, to compare what is loaded")
    with AuditClient.open() as client:
        yield Kernel(client, tmp_path)


@pytest.mark.parametrize("path", [*EXAMPLES, *SHIPPED], ids=lambda path: path.name)
def test_example_rule_files(empty_kernel: Kernel, path: Path) -> None:
    """All files of Debian's auditd, and sessiond's own, are accepted or refused alike."""
    text = CONTROL.sub("", path.read_text(encoding="utf-8"))
    taken, _, _ = empty_kernel.by_auditctl(text)
    try:
        rule_set = parser.parse(text, path.name)
    except RuleError:
        assert not taken
    else:
        assert taken or rule_set.errors
    empty_kernel.compare(text)


def test_debian_ships_examples() -> None:
    """Otherwise the test above would prove nothing."""
    assert len(EXAMPLES) > 20


FIELDS = [name for name in map(libaudit.field_name, range(binary.FILTERKEY + 1)) if name]
VALUES = ("0", "4294967295", "unset", "-EPERM", "wa", "/etc/passwd", "/etc/", "b64", "file", "CWD")


@pytest.mark.parametrize(
    ("list_", "operators"),
    [
        ("exit", ("=", "!=", ">=", "&")),
        ("exclude", ("=", ">", "&")),
        ("user", ("=", "<=")),
        ("task", ("=", "&=")),
        ("filesystem", ("=", "!=", "&")),
    ],
)
def test_every_field(empty_kernel: Kernel, list_: str, operators: tuple[str, ...]) -> None:
    """Each field that libaudit knows, with valid and invalid operators and values."""
    lines = [
        f"-a always,{list_} -F {field}{operator}{value}"
        for field, operator, value in itertools.product([*FIELDS, "no"], operators, VALUES)
    ]
    loaded = 0
    for start in range(0, len(lines), BATCH):
        loaded += empty_kernel.compare("\n".join(lines[start : start + BATCH]))
    assert loaded >= (1 if list_ == "filesystem" else 50)


def test_every_comparison(empty_kernel: Kernel) -> None:
    """-C with all pairs of user and group fields, in both orders."""
    names = [name for name in FIELDS if name.endswith(("uid", "gid"))] + ["pid"]
    lines = [
        f"-a always,exit -C {left}{operator}{right}"
        for left, right in itertools.product(names, names)
        for operator in ("=", "!=")
    ]
    assert empty_kernel.compare("\n".join(lines)) == 2 * 25


CONDITIONS = (
    *("arch=b64", "arch=b32", "arch!=b32", "arch=x86_64", "arch=aarch64", "arch=0x40000003"),
    *("auid>=1000", "auid!=unset", "auid!=-1", "uid=root", "uid!=0", "euid=0", "gid=adm"),
    *("exit=-EPERM", "exit=-EACCES", "exit!=0", "success=1", "success=0", "perm=wa", "perm=x"),
    *("path=/etc/passwd", "path=/usr/bin/su", "path=/etc/my\\ file", "dir=/etc", "dir=/etc/ssh/"),
    *("exe=/usr/bin/su", "exe!=/usr/bin/sudo", "a0=0", "a1&0x40", "a2&=0x3", "a3!=-1"),
    *("obj_type=etc_t", "obj_lev_low=s0", "subj_user!=u", "obj_uid=0", "obj_gid!=adm", "inode=5"),
    *("devmajor=8", "devminor&1", "filetype=dir", "fstype=debugfs", "msgtype=1300", "pid=1"),
    *("sessionid=unset", "sessionid>3", "saddr_fam=2", "ppid=1", "pers=8", "key=fk", "key!=fk"),
    *("key=", "dir=/nosuch/", "uid", "=5", "uid=", "field_compare=3"),
)
SYSCALLS = (
    *(
        "open",
        "execve",
        "execve,execveat",
        "all",
        "0",
        "59",
        "0x3b",
        "2031",
        "setuid",
        "socketcall",
    ),
    *("nosuch", "open,nosuch", ",", "exit_group,", "openat,close", "stime", "5000", "-1", "mount"),
)
PATHS = (
    *("/etc/passwd", "/etc", "/etc/", "/etc//", "/", "//", "/nosuch/x", "/etc/nosuch", "relative"),
    *("/etc/../etc", "/etc/*", "/usr/bin/su", "/etc/a\\ b", "/etc/b\\\\c", "/etc/..", "/etc/ssh/"),
)
KEYS = ("-k k1", "-k k2", "-k a\\ b", '-k "q"', "-kkk", f"-k {'x' * 200}", f"-k {'x' * 256}", "-k")
ACTIONS = ("always", "always", "always", "never", "never", "possible", "sometimes")
LISTS = ("exit",) * 10 + ("task", "user", "exclude", "filesystem", "entry")
COMPARED = ("uid", "gid", "euid", "auid", "suid", "fsuid", "obj_uid", "obj_gid", "pid", "nosuch")
STRAY = ("junk", "# comment", "\\", "-", "--", "\t", "-z", "--foo", "-w /etc/passwd", "-S open")


def rule_line(chance: random.Random) -> str:
    """Make a line of the rule language: mostly valid, sometimes invalid."""
    pick = chance.choice

    def sometimes(odds: float) -> bool:
        return chance.random() < odds

    permissions = f"-p {pick(('r', 'w', 'wa', 'rwxa', 'x', 'RWX', 'q', 'rrrr', 'rwxar'))}"
    if sometimes(0.25):
        parts = [f"{pick(('-w', '-w', '-W'))} {pick(PATHS)}"]
        parts += [permissions] * sometimes(0.8) + [pick(KEYS)] * sometimes(0.7)
        parts += [f"-F {pick(CONDITIONS)}"] * sometimes(0.1)
    else:
        pair = [pick(ACTIONS), pick(LISTS)]
        chance.shuffle(pair)
        parts = [f"{pick(('-a', '-a', '-A', '-d'))} {','.join(pair)}"]
        parts += [f"-F {pick(CONDITIONS)}" for _ in range(chance.randrange(3))]
        parts += [f"-S {pick(SYSCALLS)}" for _ in range(chance.randrange(3))]
        parts += [f"-F{pick(CONDITIONS)}" for _ in range(chance.randrange(3))]
        comparison = f"-C {pick(COMPARED)}{pick(('=', '!=', '<'))}{pick(COMPARED)}"
        parts += [comparison] * sometimes(0.2) + [permissions] * sometimes(0.1)
        parts += [pick(KEYS) for _ in range(chance.randrange(3))]
    if sometimes(0.1):
        chance.shuffle(parts)
    parts += [pick(STRAY)] * sometimes(0.03)
    return "  " * sometimes(0.05) + pick((" ", " ", "   ")).join(parts) + " " * sometimes(0.05)


@pytest.mark.parametrize("seed", range(4))
def test_generated_rules(empty_kernel: Kernel, seed: int) -> None:
    """Hundreds of lines of every kind, in files of 40, so that duplicates and deletions occur."""
    chance = random.Random(seed)
    loaded = 0
    for _ in range(15):
        loaded += empty_kernel.compare("\n".join(rule_line(chance) for _ in range(40)))
    assert loaded > 60


def test_the_first_mistake_ends_both(empty_kernel: Kernel) -> None:
    """auditctl has then loaded half of a file; sessiond refuses all of it."""
    text = "-w /etc/passwd\n-a always,exit -F nonsense=1\n-w /etc/group\n"
    taken, loaded, _ = empty_kernel.by_auditctl(text)
    assert not taken
    assert len(loaded) == 1
    with pytest.raises(RuleError, match=r"^x:2: unknown field 'nonsense'"):
        parser.parse(text, "x")


@pytest.fixture
def theirs(audit_state: AuditState) -> Iterator[None]:
    """Two rules of another program."""
    watch = ("/etc/group", "-p", "wa", "-k", "theirs")
    rule = ("always,exit", "-S", "all", "-F", "pid=4194303")
    auditctl("-w", *watch)
    auditctl("-a", *rule)
    yield
    auditctl("-W", *watch)
    auditctl("-d", *rule)


@pytest.mark.usefixtures("theirs")
def test_only_our_rules_go_away() -> None:
    """Rules of another program, one of which is also wanted, stay."""
    wanted = parser.parse(
        "-a always,exit -F pid=4194303\n-A always,exit -F arch=b64 -S execve -F pid=4194303\n"
        "-w /etc/passwd -p wa -k ours\n",
        "ours.rules",
    )
    with AuditClient.open() as client:
        before = client.list_rules()
        changes = plan(wanted, before)
        assert [rule.line for rule in changes.add] == [2, 3]
        written_down = [rule.data for rule in changes.add]
        for rule in changes.add:
            client.add_rule(rule.data)
        assert len(client.list_rules()) == len(before) + 2

        again = plan(wanted, client.list_rules(), written_down)
        assert (again.add, again.remove) == ((), ())

        for data in plan((), client.list_rules(), written_down).remove:
            client.delete_rule(data)
        assert client.list_rules() == before
