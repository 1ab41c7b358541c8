"""A converted Auditbeat configuration loads, and settings without a counterpart are noted."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.config import load
from sessiond.config.quantities import Duration
from sessiond.config.schema import Config
from sessiond.errors import ConfigError
from sessiond.migrate.auditbeat import Host, Migration, migrate

DATA = Path(__file__).parents[1] / "data" / "migrate"


def path_mode(path: bytes) -> int:
    """A host on which everything is a file, except paths below /no."""
    if path.startswith(b"/no/"):
        raise FileNotFoundError
    return stat.S_IFREG


def host(environment: dict[str, str] | None = None, **files: str) -> Host:
    """A host with rule files, all in one directory."""
    found = [(f"/etc/auditbeat/rules/{name}.conf", text) for name, text in files.items()]
    return Host(environment or {}, lambda _: found, path_mode)


def migrated(text: str, where: Host | None = None) -> Migration:
    return migrate(text, "/etc/auditbeat/auditbeat.yml", where or host())


def config(text: str, where: Host | None = None) -> Config:
    """Return the resulting configuration; fail if there are notes."""
    done = migrated(text, where)
    assert done.notes == []
    return load.loads(done.text, "new.yml")


def module(text: str, where: Host | None = None) -> Config:
    """Return the configuration of an auditd module with a rule and these settings."""
    rules = "  audit_rules: '-w /etc/passwd -k x'\n"
    return config(f"auditbeat.modules:\n- module: auditd\n{rules}  {text}\n", where)


def notes(text: str, where: Host | None = None) -> list[str]:
    return [f"{line}: {name}: {text}" for line, name, text in migrated(text, where).notes]


def test_a_whole_file() -> None:
    """The configuration of a host before and after."""
    done = migrated((DATA / "auditbeat.yml").read_text("utf-8"))
    told = "".join(f"{line}: {name}: {text}\n" for line, name, text in done.notes)
    assert done.text == (DATA / "sessiond.yml").read_text("utf-8")
    assert told == (DATA / "notes").read_text("utf-8")
    load.loads(done.text, "new.yml")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("backlog_limit: 16384", ("backlog_limit", 16384)),
        ("rate_limit: 100", ("rate_limit", 100)),
        ("failure_mode: Panic", ("failure_mode", "panic")),
        ("resolve_ids: false", ("resolve_ids", False)),
        ("include_raw_message: 'true'", ("include_raw_message", True)),
        ("include_warnings: true", ("include_warnings", True)),
        ("socket_type: UNICAST", ("socket_type", "unicast")),
        ("immutable: true", ("immutable", True)),
        ("ignore_errors: yes", ("ignore_errors", True)),
        ("backpressure_strategy: user-space", ("backpressure_strategy", "userspace")),
        ("backlog_limit: ${LIMIT:9000}", ("backlog_limit", 9000)),
        ("resolve_ids: ~", ("resolve_ids", True)),
    ],
)
def test_settings_of_the_auditd_module(setting: str, expected: tuple[str, object]) -> None:
    """They have the same names in sessiond."""
    name, value = expected
    assert getattr(module(setting).auditd, name) == value


@pytest.mark.parametrize(
    "text", ["reassembler.timeout: 1m", "reassembler: {timeout: 60s}", "reassembler.timeout: 60"]
)
def test_dotted_and_nested_keys(text: str) -> None:
    """Auditbeat accepts both."""
    assert module(text).auditd.reassembler.timeout == Duration(60)


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("auto", "auto"),
        ("ebpf", "ebpf"),
        ("kernel_tracing", "ebpf"),
        ("modern", "ebpf"),
        ("procfs", "procfs"),
    ],
)
def test_backends_of_session_metadata(name: str, backend: str) -> None:
    """Each of Auditbeat's field names works, written by hand or migrated."""
    processors = f"processors: [add_session_metadata: {{backend: {name}}}]"
    assert module(processors).session_metadata.backend == backend
    assert config(f"{processors}\n{_MODULE}").session_metadata.backend == backend
    by_hand = load.loads(f"session_metadata: {{backend: {name}}}", "x")
    assert by_hand.session_metadata.backend == backend


_MODULE = "auditbeat.modules: [{module: auditd, audit_rules: '-w /etc/passwd -k x'}]"


def test_names_of_actions_stay() -> None:
    """Searches and dashboards continue to work."""
    assert config(_MODULE).event.event_actions == "auditbeat"


def test_rules_in_files_stay_in_files() -> None:
    """Their patterns become absolute, and a note warns before Auditbeat is removed."""
    text = "auditbeat.modules: [{module: auditd, audit_rule_files: ['rules/*.conf']}]"
    where = host(a="-w /etc/passwd -k x\n")
    done = migrated(text, where)
    made = load.loads(done.text, "x")
    assert made.auditd.audit_rule_files == ("/etc/auditbeat/rules/*.conf",)
    assert made.auditd.audit_rules is None
    assert [note.text for note in done.notes] == [
        "/etc/auditbeat/rules/*.conf stays in use: keep it"
    ]


def test_files_with_rules_that_auditctl_refuses_are_taken_in() -> None:
    """They are copied in order, after the rules of the file itself, each under its name."""
    text = (
        "auditbeat.modules:\n- module: auditd\n  audit_rules: '-w /etc/group -k g'\n"
        "  audit_rule_files: [rules/*.conf]\n"
    )
    where = host(a="-w /etc/passwd -k x\n", b="-w '/etc/a b' -k y\n")
    done = migrated(text, where)
    made = load.loads(done.text, "x")
    assert made.auditd.audit_rule_files is None
    assert made.auditd.audit_rules == (
        "-w /etc/group -k g\n"
        "# /etc/auditbeat/rules/a.conf\n-w /etc/passwd -k x\n"
        "# /etc/auditbeat/rules/b.conf\n-w /etc/a\\ b -k y\n"
    )
    assert [note.setting for note in done.notes] == [
        "/etc/auditbeat/rules/b.conf",
        "auditbeat.modules[0].audit_rule_files",
    ]


def test_a_rule_that_this_host_refuses_stops_nothing() -> None:
    """Auditbeat continues without it, and so does sessiond with ignore_errors."""
    done = migrated(
        "auditbeat.modules:\n- module: auditd\n  audit_rules: |\n\n    -w /no/such/file -k x\n"
    )
    assert load.loads(done.text, "x").auditd.ignore_errors
    ((line, _, text),) = done.notes
    assert line == 5
    assert text.startswith("this host would refuse the rule: there is no directory")


def test_rules_and_multicast_do_not_go_together() -> None:
    """Rules take precedence: auto uses multicast only if an audit daemon runs."""
    text = _MODULE.replace("}", ", socket_type: multicast}")
    done = migrated(text)
    made = load.loads(done.text, "x").auditd
    assert (made.socket_type, made.audit_rules) == ("auto", "-w /etc/passwd -k x\n")
    assert "auto in place of multicast" in done.notes[0].text


def test_without_rules_it_is_told_that_there_are_some() -> None:
    """Auditbeat without rules only listens."""
    assert "sessiond loads rules of its own" in notes("auditbeat.modules: [{module: auditd}]")[0]


def test_the_file_output() -> None:
    """Name, size, number and permissions are kept; Auditbeat does not compress."""
    text = (
        f"{_MODULE}\noutput.file:\n  path: /var/log/sessiond\n  filename: audit\n"
        "  rotate_every_kb: 10000\n  number_of_files: 3\n  permissions: 0640\n"
        "  rotate_on_startup: false\n"
    )
    file = config(text).output.file
    assert file is not None
    assert str(file.path) == "/var/log/sessiond/audit.ndjson"
    assert (file.rotate.size, file.rotate.keep) == (10000 * 1024, 3)
    assert (file.mode, file.rotate.compress) == (0o640, "none")


def test_a_file_elsewhere_needs_a_drop_in() -> None:
    """The service's sandbox allows only files below /var/log/sessiond."""
    text = f"{_MODULE}\noutput.file: {{path: '/data/%{{+yyyy.MM.dd}}'}}"
    done = migrated(text)
    file = load.loads(done.text, "x").output.file
    assert file is not None
    assert str(file.path) == "/data/auditbeat.ndjson"
    assert "ReadWritePaths=/data " in done.notes[0].text


@pytest.mark.parametrize(
    ("hosts", "address"),
    [
        ("['logs.example.org:5045']", "logs.example.org:5045"),
        ("logs.example.org", "logs.example.org:5044"),
        ("['[2001:db8::1]:5044']", "[2001:db8::1]:5044"),
    ],
)
def test_the_logstash_output(hosts: str, address: str) -> None:
    """Lines go over TCP; a note names the different input of Logstash."""
    done = migrated(f"{_MODULE}\noutput.logstash: {{hosts: {hosts}}}")
    socket = load.loads(done.text, "x").output.socket
    assert socket is not None
    assert (socket.type, socket.address, socket.tls.enabled) == ("tcp", address, False)
    assert "codec => json_lines" in done.notes[0].text


def test_tls_to_logstash() -> None:
    """Certificates keep their files; the server is always verified."""
    done = migrated(
        f"{_MODULE}\noutput.logstash:\n  hosts: [a:1]\n  ssl:\n"
        "    certificate_authorities: [/ca.pem, /other.pem]\n    certificate: /c.pem\n"
        "    key: /k.pem\n    verification_mode: certificate\n"
    )
    socket = load.loads(done.text, "x").output.socket
    assert socket is not None
    assert socket.tls.enabled
    assert [str(path) for path in (socket.tls.ca, socket.tls.certificate, socket.tls.key)] == [
        "/ca.pem", "/c.pem", "/k.pem",
    ]  # fmt: skip
    told = {note.setting: note.text for note in done.notes}
    assert told["output.logstash.ssl.certificate_authorities"].startswith("the first is taken")
    assert "always checked" in told["output.logstash.ssl.verification_mode"]


def test_a_key_in_the_file_itself_is_not_repeated() -> None:
    """The key is neither in the result nor in the note."""
    done = migrated(
        f"{_MODULE}\noutput.logstash:\n  hosts: [a:1]\n  ssl.key: |\n"
        "    -----BEGIN PRIVATE KEY-----\n    c2VjcmV0\n"
    )
    assert "c2VjcmV0" not in str(done)
    assert "put it into a file" in str(done.notes)


@pytest.mark.parametrize("name", ["elasticsearch", "kafka", "redis"])
def test_other_outputs_take_a_shipper(name: str) -> None:
    """Lines go to a file, and the note names shippers that read it."""
    done = migrated(f"{_MODULE}\noutput.{name}:\n  hosts: [a:1]\n  password: secret\n")
    output = load.loads(done.text, "x").output
    assert output.file is not None
    assert [note.setting for note in done.notes] == [f"output.{name}"]
    assert "have a shipper read it" in done.notes[0].text
    assert "secret" not in done.text + done.notes[0].text


def test_an_output_that_is_disabled_is_none() -> None:
    """The output is ignored."""
    done = config(f"{_MODULE}\noutput.elasticsearch: {{enabled: false, hosts: [a]}}")
    assert done.output == Config().output


def test_tags_fields_and_labels() -> None:
    """Constant fields of every event are kept; custom fields become labels."""
    done = migrated(
        f"{_MODULE}\ntags: [a, b]\nfields: {{env: prod, team: {{name: x}}}}\n"
        "fields_under_root: true\nname: web1\nprocessors:\n- add_tags: {tags: [c, a]}\n"
        "- add_labels: {labels: {n: 1}}\n- add_fields: {target: '', fields: {site: berlin}}\n"
    )
    made = load.loads(done.text, "x")
    assert made.tags == ("a", "b", "c")
    assert made.labels == {"env": "prod", "team_name": "x", "n": "1", "site": "berlin"}
    assert made.host.name == "web1"
    assert [note.text for note in done.notes] == ["written as labels"] * 2


def test_a_condition_is_never_dropped() -> None:
    """A processor with a condition must not apply to all events."""
    text = (
        f"{_MODULE}\nprocessors:\n- add_tags: {{tags: [x], when.equals.process.name: cron}}\n"
        "- if: {equals: {a: b}}\n  then: [{add_tags: {tags: [y]}}]\n"
    )
    done = migrated(text)
    settings = load.loads(done.text, "x")
    assert settings.tags == ()
    assert [str(each) for each in settings.filters] == ["processors[0].add_tags (mark)"]
    (left_out,) = (note for note in done.notes if note.setting.startswith("processors"))
    assert "a: unknown field" in left_out.text


def test_what_drops_events_becomes_filters() -> None:
    """Drop filters come first, because the first matching filter decides."""
    text = (
        f"{_MODULE}\nprocessors:\n"
        "- drop_fields: {fields: [process.title]}\n"
        "- add_labels: {labels: {a.b: 1}, when.equals.user.name: web}\n"
        "- if: {equals: {user.id: 0}}\n"
        "  then: {drop_event: {when.contains.process.args: healthz}}\n"
        "  else: [{add_tags: {tags: [user]}}]\n"
        "- drop_event: ~\n"
        "- rename: {when.has_fields: [a], fields: []}\n"
    )
    done = migrated(text)
    filters = load.loads(done.text, "x").filters
    labels, tags = "processors[1].add_labels", "processors[2].else[0].add_tags"
    omitted = "processors[0].drop_fields"
    assert [(each.name, each.action) for each in filters] == [
        ("processors[2].then[0].drop_event", "drop"),
        (f"{labels} + {tags} + {omitted}", "mark"),
        (f"{labels} + {omitted}", "mark"),
        (f"{tags} + {omitted}", "mark"),
        (omitted, "mark"),
    ]
    assert [each.labels for each in filters] == [{}, {"a_b": "1"}, {"a_b": "1"}, {}, {}]
    assert [each.tags for each in filters] == [(), ("user",), (), ("user",), ()]
    assert [each.omit for each in filters] == [(), *[("process.title",)] * 4]
    assert load.filter_warnings(done.text, "x") == []
    told = {note.setting: note.text for note in done.notes}
    assert told["processors[3].drop_event"] == ("left out: without a condition it drops all events")
    assert "depends on a condition" in told["processors[4].rename"]


def test_filters_for_the_same_events_are_combined() -> None:
    """Each processor of Beats works on an event; with too many of them that is told instead."""
    tag = "- add_tags: {{tags: [t{0}], when.equals.process.name: n{0}}}\n"
    text = f"{_MODULE}\nprocessors:\n" + tag.format(1)
    text += "- if: {equals: {process.pid: 1}}\n"
    text += "  then: [{add_tags: {tags: [is]}}]\n  else: [{add_tags: {tags: [isnt]}}]\n"
    text += "- add_labels: {labels: {a: b}, when.equals.process.name: n1}\n"
    filters = load.loads(migrated(text).text, "x").filters
    found = [(each.tags, dict(each.labels)) for each in filters]
    assert found == [
        (("t1", "is"), {"a": "b"}),
        (("t1", "isnt"), {"a": "b"}),
        (("t1",), {"a": "b"}),
        (("is",), {}),
        (("isnt",), {}),
    ]
    many = f"{_MODULE}\nprocessors:\n" + "".join(tag.format(n) for n in range(5))
    done = migrated(many)
    assert len(load.loads(done.text, "x").filters) == 5
    assert "of several filters that fit an event the first decides" in done.notes[-1].text


def test_truncated_arguments_are_a_limit() -> None:
    """Other fields have none but that of the line; a limit that is too low is told."""
    text = (
        f"{_MODULE}\nprocessors:\n- truncate_fields:\n"
        "    {fields: [process.args, process.title], max_bytes: SIZE}\n"
    )
    done = migrated(text.replace("SIZE", "1024"))
    assert load.loads(done.text, "x").event.max_args_bytes == 1024
    (note,) = done.notes
    assert note.text == (
        "has no counterpart for process.title:"
        " event.max_args_bytes and event.max_line_bytes bound a line"
    )
    low = migrated(text.replace("SIZE", "10"))
    assert load.loads(low.text, "x").event.max_args_bytes == Config().event.max_args_bytes
    assert any("left out: 10 is out of bounds" in note.text for note in low.notes)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (
            "setup.kibana: {host: x}",
            "1: setup: has no counterpart: see sessiond setup elasticsearch",
        ),
        ("http.enabled: true", "1: http: has no counterpart: the daemon has no listener"),
        ("cloud.id: x", "1: cloud: has no counterpart: lines are written to a file"),
        ("queue.mem.events: 4096", "1: queue: has no counterpart"),
        ("logging.to_files: true", "1: logging: has no counterpart"),
        ("nonsense: 1", "1: nonsense: has no counterpart"),
        ("name: ${NOT_SET}", "1: name: left out: the environment here has no ${NOT_SET}"),
    ],
)
def test_what_has_no_counterpart_is_told(text: str, note: str) -> None:
    """The note has the line, the name, and the alternative."""
    told = notes(f"{text}\n{_MODULE}")
    assert len(told) == 1
    assert told[0].startswith(note)


def test_a_value_out_of_bounds_is_left_out() -> None:
    """The note is the loader's message; the rest loads."""
    done = migrated(_MODULE.replace("}", ", reassembler.max_in_flight: 1000000, immutable: 3}"))
    assert sorted(note.text for note in done.notes) == [
        "left out: 1000000 is not valid; allowed: a whole number from 1 to 65536",
        "left out: 3 is not valid; allowed: true or false",
    ]


def test_modules_of_others_and_second_ones() -> None:
    """One auditd module is used; other enabled ones have notes."""
    told = notes(
        "auditbeat:\n  modules:\n  - {module: file_integrity, paths: [/bin]}\n"
        "  - {module: system}\n  - {module: auditd, enabled: false}\n"
        "  - {module: auditd, audit_rules: '-w /etc/passwd'}\n  - {module: auditd}\n"
    )
    assert [line.split(": ")[2] for line in told] == [
        "file_integrity",
        "system",
        "left out",
    ]
    assert told[2].startswith("7: ")


def test_a_file_without_auditd_gives_defaults() -> None:
    """This includes an empty file."""
    assert "there is no auditd module" in notes("# nothing\n")[0]


def test_what_is_no_yaml_is_an_error() -> None:
    """The error has the file and the line."""
    with pytest.raises(ConfigError, match=r"auditbeat\.yml:3: not valid YAML"):
        migrated("a: 1\nb: [\n")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.sampled_from(["", "auto", "x", "1s"]),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "module enabled audit_rules audit_rule_files tags fields processors file path "
                "hosts logstash ssl certificate add_session_metadata backend add_tags labels "
                "reassembler timeout permissions rotate_every_kb socket_type".split()
            ),
            below,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["auditbeat.modules", "output", "processors", "tags", "fields", "name", "queue",
             "output.file", "output.logstash", "logging", "path"]
        ),
        _VALUES,
    )
)  # fmt: skip
def test_any_file_gives_a_configuration_that_loads(document: dict[str, object]) -> None:
    """Sections instead of values, and values instead of sections, cause no exception."""
    done = migrated(json.dumps(document))
    load.loads(done.text, "new.yml")
