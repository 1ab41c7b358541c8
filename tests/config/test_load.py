"""Loading the configuration: valid and invalid texts, their messages, and the shipped file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from sessiond.audit.rules import parser
from sessiond.config import load, reference
from sessiond.config.load import loads
from sessiond.config.quantities import Duration
from sessiond.config.reference import options
from sessiond.config.schema import DEFAULT_RULES, AuditdSettings, Config, EventSettings
from sessiond.errors import ConfigError
from sessiond.system import files

SHIPPED = Path(__file__).parents[2] / "etc" / "sessiond.yml"


def refused(text: str) -> str:
    """Return the error message for a text."""
    with pytest.raises(ConfigError) as caught:
        loads(text, "f.yml")
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_every_section_can_be_set() -> None:
    """A file with settings in every section yields exactly these."""
    loaded = loads(
        """
        auditd:
          socket_type: unicast
          audit_rules: |
            -w /etc/passwd -p wa -k identity
          audit_rule_files: [/etc/audit/rules.d/*.rules]
          backlog_limit: 64
          reassembler: {timeout: 500ms}
        session_metadata: {backend: procfs, ring_buffer: 16MiB}
        output:
          file: {path: /srv/events, mode: 0640, group: adm, rotate: {size: 10MB, interval: 1h30m}}
          socket: {type: tcp, address: "[::1]:5044", backoff: {init: 2}}
          spool: {max_size: 0, drop: newest}
        event: {relatives: [parent], redact: {enabled: yes, patterns: ["--password=(.*)"]}}
        logging: {level: debug}
        status_socket: {mode: "0600"}
        state_directory: /srv/state
        """,
        "f.yml",
    )
    assert loaded.auditd.audit_rules == "-w /etc/passwd -p wa -k identity\n"
    assert loaded.auditd.audit_rule_files == ("/etc/audit/rules.d/*.rules",)
    assert loaded.auditd.reassembler.timeout == 0.5
    assert loaded.session_metadata.ring_buffer == 16 * 1024 * 1024
    assert loaded.output.file is not None
    assert loaded.output.file.mode == 0o640
    assert loaded.output.file.rotate.size == 10_000_000
    assert loaded.output.file.rotate.interval == Duration(5400)
    assert loaded.output.socket is not None
    assert loaded.output.socket.host_and_port() == ("::1", 5044)
    assert loaded.output.socket.backoff.init == Duration(2)
    assert loaded.output.console is None
    assert loaded.event.redact.patterns == ("--password=(.*)",)
    assert loaded.spool_path == Path("/srv/state/spool")
    assert loaded.status_socket_path == Path("/run/sessiond/status.sock")


def test_a_file_of_comments_and_empty_sections_is_the_defaults() -> None:
    """Nothing set, and sections with everything commented out, mean the built-in defaults."""
    assert loads("# nothing\n", "f.yml") == Config()
    assert loads("auditd:\n  reassembler:\noutput:\n", "f.yml") == Config()


def test_without_an_output_the_file_is_written() -> None:
    """No output configured means the default file; a configured one stands alone."""
    file = Config().output.file
    assert file is not None
    assert str(file.path) == "/var/log/sessiond/events.ndjson"
    only_console = loads("output: {console: }", "f.yml").output
    assert only_console.console is not None
    assert only_console.file is None


def test_a_disabled_output_is_not_there() -> None:
    """``enabled: false`` is the same as leaving the section out."""
    loaded = loads("output: {file: {enabled: false}, console: {enabled: true}}", "f.yml")
    assert loaded.output.file is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("session_metadata: {backend: kernel_tracing}", "ebpf"),
        ("auditd: {backpressure_strategy: user-space}", "userspace"),
        ("auditd: {backpressure_strategy: default}", "auto"),
        ("auditd: {backpressure_strategy: both}", "both"),
    ],
)
def test_auditbeats_names_of_values_are_understood(text: str, value: str) -> None:
    """Values of Auditbeat's settings are accepted."""
    loaded = loads(text, "f.yml")
    assert value in (loaded.session_metadata.backend, loaded.auditd.backpressure_strategy)


@pytest.mark.parametrize(
    ("text", "value"),
    [("zstd", "zstd"), ("gzip", "gzip"), ("none", "none"), ("true", "gzip"), ("no", "none")],
)
def test_compression_was_a_yes_or_no_once(text: str, value: str) -> None:
    """Older configurations keep their meaning."""
    file = loads(f"output: {{file: {{rotate: {{compress: {text}}}}}}}", "f.yml").output.file
    assert file is not None
    assert file.rotate.compress == value
    with pytest.raises(ConfigError, match="allowed: gzip, none or zstd"):
        loads("output: {file: {rotate: {compress: xz}}}", "f.yml")


@pytest.mark.parametrize("written", ["0640", "640", '"0640"', '"640"', "0o640"])
def test_a_file_mode_is_octal_however_it_is_written(written: str) -> None:
    """YAML reads 0640 as 416 and 640 as 640: both are meant to be 0640."""
    assert loads(f"status_socket: {{mode: {written}}}", "f.yml").status_socket.mode == 0o640


MESSAGES = {
    "labels: {a.b: c}": (
        "f.yml:1: labels: a section is not valid; "
        "allowed: names without dots, each with a text, such as {env: prod}"
    ),
    'tags: [""]': "f.yml:1: tags[0]: '' is not valid; allowed: a list of texts, such as [a, b]",
    "host:\n  name: ''": "f.yml:2: host.name: '' is empty; allowed: some text, or leave it out",
    "auditd: {backlog_limit: lots}": (
        "f.yml:1: auditd.backlog_limit: 'lots' is not valid; "
        "allowed: a whole number from 1 to 4294967295"
    ),
    "auditd:\n  backlog_limit: 0": (
        "f.yml:2: auditd.backlog_limit: 0 is not valid; "
        "allowed: a whole number from 1 to 4294967295"
    ),
    "auditd: {backlog_limit: true}": (
        "f.yml:1: auditd.backlog_limit: true is not valid; "
        "allowed: a whole number from 1 to 4294967295"
    ),
    "auditd: {socket_type: unicats}": (
        "f.yml:1: auditd.socket_type: 'unicats' is not valid; allowed: auto, multicast or unicast"
    ),
    "auditd: {immutable: 1}": "f.yml:1: auditd.immutable: 1 is not valid; allowed: true or false",
    "auditd: {backlog_limi: 64}": (
        "f.yml:1: auditd.backlog_limi: no such setting; did you mean auditd.backlog_limit?"
    ),
    "backlog_limit: 64": (
        "f.yml:1: backlog_limit: no such setting; did you mean auditd.backlog_limit?"
    ),
    "output.file.path: /x": (
        "f.yml:1: output.file.path: no such setting in dotted form; "
        "write output: {file: {path: ...}}"
    ),
    "status_socket: {colour: red}": (
        "f.yml:1: status_socket.colour: no such setting; allowed: enabled, path, mode, owner, group"
    ),
    "logging: loud": (
        "f.yml:1: logging: 'loud' is not a section; allowed: a section with level, format"
    ),
    "[]": (
        "f.yml:1: a list is not a section; allowed: a section with auditd, session_metadata, "
        "output, event, logging, status_socket, canary, host, labels, tags, filters, "
        "state_directory, runtime_directory"
    ),
    "auditd: {receive_buffer: 64Mb/s}": (
        "f.yml:1: auditd.receive_buffer: '64Mb/s' is not valid; "
        "allowed: a size such as 500KB or 64MiB, at least 64KiB, at most 1GiB"
    ),
    "auditd: {receive_buffer: 2GiB}": (
        "f.yml:1: auditd.receive_buffer: 2GiB is out of bounds; "
        "allowed: a size such as 500KB or 64MiB, at least 64KiB, at most 1GiB"
    ),
    "auditd: {reassembler: {timeout: -1}}": (
        "f.yml:1: auditd.reassembler.timeout: -1000ms is out of bounds; "
        "allowed: a duration such as 500ms, 2s or 1h30m, at least 10ms, at most 1m"
    ),
    "status_socket: {mode: 0888}": (
        "f.yml:1: status_socket.mode: '0888' is not valid; "
        "allowed: octal permission bits such as 0640"
    ),
    "state_directory: here": (
        "f.yml:1: state_directory: 'here' is not valid; allowed: an absolute path"
    ),
    "output: {file: {owner: []}}": (
        "f.yml:1: output.file.owner: a list is not valid; allowed: a name or a numeric id"
    ),
    "event: {relatives: [parent, aunt]}": (
        "f.yml:1: event.relatives[1]: 'aunt' is not valid; allowed: a list, such as [a, b], of "
        "entry_leader, group_leader, parent or session_leader"
    ),
    "auditd: {audit_rule_files: /etc/rules}": (
        "f.yml:1: auditd.audit_rule_files: '/etc/rules' is not valid; "
        "allowed: a list of texts, such as [a, b]"
    ),
    "output:\n  socket:\n    type: tcp": (
        "f.yml:3: output.socket.address: is missing; allowed: an absolute path, @name or host:port"
    ),
    "output: {socket: {type: tcp, address: /run/x}}": (
        "f.yml:1: output.socket.address: '/run/x' is not the address of a tcp socket; "
        "allowed: host:port, such as localhost:5044"
    ),
    "output: {socket: {address: localhost:5044}}": (
        "f.yml:1: output.socket.address: 'localhost:5044' is not the address of a unix_stream "
        "socket; allowed: an absolute path or @name, of at most 107 bytes"
    ),
    "output: {socket: {address: /x, backoff: {init: 5m}}}": (
        "f.yml:1: output.socket.backoff: init (5m) is longer than max (10s); "
        "allowed: init at most as long as max"
    ),
    "output: {file: {enabled: false}}": (
        "f.yml:1: output: every output is disabled; allowed: enable file, socket, http or console"
    ),
    "session_metadata: {ring_buffer: 10MB}": (
        "f.yml:1: session_metadata.ring_buffer: 10000000 is not a power of two; "
        "allowed: 64KiB, 128KiB, ... 8MiB, 16MiB, ... 1GiB"
    ),
    "auditd: {socket_type: multicast, audit_rules: -D}": (
        "f.yml:1: auditd.audit_rules: can't be used with socket_type multicast: another "
        "daemon owns the rules; allowed: leave it out, or socket_type unicast or auto"
    ),
    "event: {redact: {patterns: [a, (]}}": (
        "f.yml:1: event.redact.patterns[1]: '(' is not a valid regular expression: missing ), "
        "unterminated subpattern at position 0; allowed: Python's syntax"
    ),
    "a: [": ("f.yml:1: not valid YAML: expected the node content, but found '<stream end>'"),
    "auditd:\n  immutable: true\n  immutable: false": (
        "f.yml:3: not valid YAML: 'immutable' is a duplicate key"
    ),
    "logging: {level: !!int ''}": "f.yml: not valid YAML: string index out of range",
    "logging: {level: !!python/name:os.system ''}": (
        "f.yml:1: not valid YAML: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/name:os.system'"
    ),
    " \n": "f.yml: the file is empty; allowed: at least a comment",
    "[" * 10000: "f.yml: not valid YAML: nested too deeply",
    'logging: {? "a\\n\\e[31mb" : 1}': (
        "f.yml:1: logging.a\\n\\x1b[31mb: no such setting; allowed: level, format"
    ),
}


@pytest.mark.parametrize("text", MESSAGES, ids=lambda text: text[:30])
def test_a_mistake_is_one_clear_line(text: str) -> None:
    """Each kind of mistake names file, line, setting, the mistake and what is allowed."""
    assert refused(text) == MESSAGES[text]


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    """Aliases that multiply to 10^9 items are neither expanded nor shown."""
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9))
    assert "no such setting" in refused(f"a0: &a0 [x, x]\n{levels}\nauditd: *a8")
    bomb = f"{{x: &a0 [x, x], {levels.replace(chr(10), ', ')}, logging: {{level: *a8}}}}"
    assert "no such setting" in refused(bomb)
    assert "a list is not valid" in refused("logging: {level: &a [*a]}")


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["1s", "2MB"])
)
_NAMES = st.sampled_from(
    sorted({name for path in options() for name in path.split(".")} | {"x", "<<"})
)
_DATA = st.recursive(
    _SCALARS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(_NAMES, below, max_size=4),
)


def accepted_or_refused(text: str) -> None:
    """Load a text: the result is a Config or a one-line ConfigError."""
    try:
        assert isinstance(loads(text, "f.yml"), Config)
    except ConfigError as error:
        assert str(error).isprintable()  # noqa: PT017 - both ends are fine


@given(st.text())
@example("{1: 2}")
@example("? [a]\n: b")
@example("!!timestamp x")
@example("!!bool x")
@example("!!binary é")
@example("auditd: {receive_buffer: .inf}")
@example("auditd: {reassembler: {timeout: .nan}}")
@example("logging: {level: 2020-99-99}")
@example("&a *a")
@example("\0")
@example("auditd: {backlog_limit: " + "9" * 5000 + "}")
def test_any_text_is_a_configuration_or_an_error(text: str) -> None:
    """Any text yields a Config or a ConfigError."""
    accepted_or_refused(text)


@given(st.dictionaries(_NAMES, _DATA, max_size=5))
def test_any_data_is_a_configuration_or_an_error(data: dict[str, object]) -> None:
    """Well-formed YAML with valid names and wrong values yields a Config or a ConfigError."""
    accepted_or_refused(yaml.safe_dump(data, allow_unicode=True))


@given(st.sampled_from(sorted(options())), _SCALARS | st.lists(_SCALARS, max_size=2))
def test_any_value_of_a_setting_is_taken_or_refused_by_its_name(path: str, value: object) -> None:
    """A wrong value is refused with the path of that setting, or of a section around it."""
    data: Any = value
    for name in reversed(path.split(".")):
        data = {name: data}
    if path.startswith("output.socket."):
        data["output"]["socket"].setdefault("address", "/run/reader.sock")
    if path.startswith("output.http."):
        data["output"]["http"].setdefault("url", "https://logs.example.org")
    try:
        loads(yaml.safe_dump(data, allow_unicode=True), "f.yml")
    except ConfigError as error:
        named = str(error).split(": ")[1].partition("[")[0]
        assert path.startswith(named)


# --- the shipped file ----------------------------------------------------------------------------


def test_the_shipped_file_is_made_from_the_declarations() -> None:
    """etc/sessiond.yml equals the output of `sessiond check --settings`, and loads the defaults."""
    text = SHIPPED.read_text()
    assert text == reference.commented()
    assert loads(text, "sessiond.yml") == Config()
    assert max(map(len, text.splitlines())) <= 100


def test_every_setting_is_in_the_shipped_file_and_valid_when_uncommented() -> None:
    """With all settings uncommented the file loads, and each is the default or an example."""
    text = re.sub(r"^( *)#(?=[a-z]|  -)", r"\1", SHIPPED.read_text(), flags=re.MULTILINE)
    loaded = loads(text, "sessiond.yml")
    data = yaml.safe_load(text)
    for path, option in options().items():
        value = data
        for name in path.split("."):
            assert name in value, path
            value = value[name]
        if option.example is None:
            assert reference.get(loaded, path) == option.default, path


def test_the_shipped_rules_are_the_built_in_ones() -> None:
    """etc/sessiond.rules holds the built-in rules; its other rules are commented out."""
    lines = SHIPPED.with_name("sessiond.rules").read_text().splitlines(keepends=True)
    active = [line for line in lines if line.strip() and not line.startswith("#")]
    assert "".join(active) == DEFAULT_RULES


def test_every_shipped_rule_compiles() -> None:
    """The rules that are commented out are valid too."""
    text = SHIPPED.with_name("sessiond.rules").read_text()
    everything = re.sub(r"^#(?=-)", "", text, flags=re.MULTILINE)
    assert len(parser.parse(everything, "sessiond.rules")) == 13


def test_every_setting_has_a_help_and_says_what_is_allowed() -> None:
    """Every declaration has a help text."""
    for option in options().values():
        assert option.help.endswith("."), option.path
        assert option.allowed, option.path


# --- comparing -----------------------------------------------------------------------------------


def test_a_difference_is_named_by_its_paths() -> None:
    """diff() lists the changed settings; needs_restart() those that a reload can't apply."""
    old = Config()
    new = loads(
        "auditd: {backlog_limit: 64}\nsession_metadata: {backend: procfs}\noutput: {console: }",
        "f.yml",
    )
    changed = reference.diff(old, new)
    assert "auditd.backlog_limit" in changed
    assert "output.file.path" in changed
    assert "output.console.enabled" in changed
    assert reference.needs_restart(changed) == ["session_metadata.backend"]
    assert reference.diff(new, new) == []


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good configuration file."""
    path = tmp_path / "sessiond.yml"
    path.write_text("logging: {level: debug}\n")
    path.chmod(0o600)
    return path


def test_a_file_is_read(file: Path) -> None:
    """load() reads a file that only its owner can write."""
    assert load.load(file).logging.level == "debug"


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    """A named file must exist."""
    with pytest.raises(ConfigError, match=r"nothing\.yml: no such file$"):
        load.load(tmp_path / "nothing.yml")


def test_without_the_default_file_the_defaults_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing default file means the built-in defaults, and is logged."""
    monkeypatch.setattr(load, "DEFAULT_PATH", tmp_path / "sessiond.yml")
    with structlog.testing.capture_logs() as logs:
        assert load.load(None) == Config()
    assert [(log["event"], log["log_level"]) for log in logs] == [
        ("configuration_built_in", "info")
    ]


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o777])
def test_a_file_that_everyone_can_write_is_refused(file: Path, mode: int) -> None:
    """A file that other users can write is refused: they could decide what is audited."""
    file.chmod(mode)
    with pytest.raises(ConfigError, match=rf"others can write it \(mode {mode:04o}\).*chmod go-w"):
        load.load(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives a file to another user")
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    """A file of another owner, or writable by a group, is refused."""
    os.chown(file, 65534, 0)
    with pytest.raises(ConfigError, match=r"owned by uid 65534.*chown root"):
        load.load(file)
    os.chown(file, 0, 65534)
    file.chmod(0o660)
    with pytest.raises(ConfigError, match="others can write it"):
        load.load(file)
    file.chmod(0o640)
    assert load.load(file).logging.level == "debug"


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    """The message names a directory, a device, another encoding or a huge file."""
    with pytest.raises(ConfigError, match=r"can't be read: is a directory"):
        load.load(tmp_path)
    with pytest.raises(ConfigError, match=r"/dev/null: not a file"):
        load.load(Path("/dev/null"))
    file = tmp_path / "f"
    file.write_bytes(b"# fine\n# \xff\n")
    with pytest.raises(ConfigError, match=r"f:2: not UTF-8"):
        load.load(file)
    file.write_bytes(b"#" * (files.MAX_FILE_SIZE + 1))
    with pytest.raises(ConfigError, match="larger than 1MiB"):
        load.load(file)


def test_the_rules_come_from_text_then_files_sorted(tmp_path: Path) -> None:
    """audit_rules first, then the files of each glob by name; each with its source."""
    for name in ("b.rules", "a.rules", "c.txt"):
        (tmp_path / name).write_text(f"# {name}\n")
    auditd = AuditdSettings(audit_rules="-D", audit_rule_files=(f"{tmp_path}/*.rules",))
    assert load.read_rules(Config(auditd=auditd)) == [
        ("auditd.audit_rules", "-D"),
        (f"{tmp_path}/a.rules", "# a.rules\n"),
        (f"{tmp_path}/b.rules", "# b.rules\n"),
    ]


def test_without_rules_the_built_in_ones_apply() -> None:
    """Unset means the built-in rules; an empty list or multicast means none."""
    every = Config(event=EventSettings(exec_failures="all"))
    assert load.read_rules(every) == [("built-in rules", DEFAULT_RULES)]
    assert load.read_rules(Config(auditd=AuditdSettings(audit_rule_files=()))) == []
    assert load.read_rules(Config(auditd=AuditdSettings(socket_type="multicast"))) == []
    for syscall in ("execve,execveat", "exit_group", "setsid"):
        assert f"-S {syscall} " in DEFAULT_RULES


@pytest.mark.parametrize(
    ("wanted", "condition"), [("no_enoent", "exit=-ENOENT"), ("none", "success=0")]
)
def test_the_kernel_makes_no_records_of_failures_that_are_not_wanted(
    wanted: Literal["no_enoent", "none"], condition: str
) -> None:
    """A never rule precedes the built-in rules; configured rules stay as they are."""
    event = EventSettings(exec_failures=wanted)
    ((_, text),) = load.read_rules(Config(event=event))
    first, second, *rest = text.splitlines()
    assert first == f"-a never,exit -F arch=b64 -S execve,execveat -F {condition}"
    assert second == f"-a never,exit -F arch=b32 -S execve,execveat -F {condition}"
    assert rest == DEFAULT_RULES.splitlines()
    own = AuditdSettings(audit_rules="-a always,exit -F arch=b64 -S execve")
    assert len(load.read_rules(Config(event=event, auditd=own))) == 1


def test_a_rule_file_that_is_missing_or_not_ours_alone_is_an_error(tmp_path: Path) -> None:
    """A name without wildcards must exist, and other users may not write the file."""
    with pytest.raises(ConfigError, match=r"auditd\.audit_rule_files: .*x\.rules: no such"):
        load.read_rules(Config(auditd=AuditdSettings(audit_rule_files=(f"{tmp_path}/x.rules",))))
    with pytest.raises(ConfigError, match="is relative"):
        load.read_rules(Config(auditd=AuditdSettings(audit_rule_files=("x.rules",))))
    open_to_all = tmp_path / "x.rules"
    open_to_all.touch()
    open_to_all.chmod(0o666)
    with pytest.raises(ConfigError, match="others can write it"):
        load.read_rules(Config(auditd=AuditdSettings(audit_rule_files=(f"{tmp_path}/*",))))


def test_owners_are_names_or_numbers() -> None:
    """An unknown user or group is reported with its setting."""
    assert load.user_id("output.file.owner", "root") == 0
    assert load.user_id("output.file.owner", 12345) == 12345
    assert load.group_id("output.file.group", None) is None
    with pytest.raises(ConfigError, match=r"output\.file\.group: this host has no group 'no such'"):
        load.group_id("output.file.group", "no such")
