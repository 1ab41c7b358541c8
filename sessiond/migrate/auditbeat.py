"""``sessiond migrate``: converts the configuration of Auditbeat's auditd module.

Common settings keep their names. Settings are added to the new configuration one by one, and each
result must load; settings that do not load, or have no counterpart, become notes with their lines.
Pure: files and the environment are arguments.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

import yaml

from sessiond.audit.rules.parser import PathMode
from sessiond.config import load
from sessiond.errors import ConfigError
from sessiond.migrate import rules, tree
from sessiond.migrate.conditions import UnknownConditionError, both, condition, negated
from sessiond.migrate.tree import Setting

# pattern -> (path, text) of each file that it names
RuleFiles = Callable[[str], list[tuple[str, str]]]


class Note(NamedTuple):
    """A note about a setting: its line in the file, its name, and the text."""

    line: int
    setting: str
    text: str


class Migration(NamedTuple):
    """The new configuration as YAML, and the notes in the order of their lines."""

    text: str
    notes: list[Note]


class Host(NamedTuple):
    """The data of the host that the conversion needs."""

    environment: Mapping[str, str]
    rule_files: RuleFiles
    path_mode: PathMode


# Reasons for settings without a counterpart, by the start of their path without indices.
_REASONS: Final = {
    "setup": "see sessiond setup elasticsearch",
    "monitoring": "see sessiond status --prometheus",
    "http": "the daemon has no listener: see sessiond status --prometheus",
    "instrumentation": "see sessiond status --prometheus",
    "queue.mem": "lines wait in memory up to output.queue_size, then in output.spool",
    "logging.files": "sessiond logs to the journal",
    "logging.to_files": "sessiond logs to the journal",
    "logging.to_syslog": "sessiond logs to the journal",
    "logging.metrics": "see sessiond status --prometheus",
    "logging.selectors": "logging.level debug logs all parts",
    "auditbeat.config": "settings in other files are not read: migrate each of those files",
    "auditbeat.max_start_delay": "sessiond starts at once",
    "seccomp": "the service's unit has a system call filter",
    "cloud": "lines are written to a file: have a shipper send them there",
    "output.elasticsearch": "the shipper that reads the file takes this",
    "output.logstash": "lines go by plain TCP or TLS: none of this is needed",
    "output.kafka": "the shipper that reads the file takes this",
    "output.redis": "the shipper that reads the file takes this",
}
_MODULE_REASONS: Final = {
    "file_integrity": "files are watched by rules, such as -w /etc -p wa; there are no hashes",
    "system": "not needed for processes and logins; other data sets have no counterpart",
}
_PROCESSOR_REASONS: Final = {
    "add_process_metadata": "each event has the parent and the leaders of its process",
    "add_docker_metadata": "lines have container.id, but no names and labels",
    "add_kubernetes_metadata": "lines have container.id, but no names and labels",
    "truncate_fields": "event.max_args_bytes and event.max_line_bytes bound a line",
    "add_cloud_metadata": "set labels to describe the machine",
}
# Processors that change events, and the setting with their values.
_MARKS: Final = {"add_tags": "tags", "add_labels": "labels", "add_fields": "fields"}
# Fields that event.max_args_bytes limits.
_ARGUMENTS: Final = frozenset(("process.args", "process.command_line", "process.parent.args"))
# Filters whose combinations are written out: 15 of them for 4.
_MAX_COMBINED: Final = 4
_ALWAYS: Final = {"event.kind": "exists"}
_AUDITD_SAME: Final = (
    "failure_mode",
    "backlog_limit",
    "rate_limit",
    "resolve_ids",
    "include_raw_message",
    "include_warnings",
    "backpressure_strategy",
    "immutable",
    "ignore_errors",
    "reassembler.max_in_flight",
    "reassembler.timeout",
)
_WORDS: Final = ("failure_mode", "backpressure_strategy")  # Auditbeat takes them in capitals, too
_AUDITD_NOT_NEEDED: Final = {
    "reassembler.queue_size": "there is no queue between the reassembler and the lines",
    "stream_buffer_consumers": "one thread reads all records",
    "period": "nothing is polled",
}
_BACKENDS: Final = ("auto", "ebpf", "kernel_tracing", "modern", "procfs")
_LEVELS: Final = {"critical": "error", "warn": "warning"}


def migrate(text: str, source: str, host: Host) -> Migration:
    """Convert the configuration in ``text``, the file ``source``.

    Raises ConfigError when it is no YAML.
    """
    return _Translation(text, source, host).result()


class _Translation:
    def __init__(self, text: str, source: str, host: Host) -> None:
        self._source = source
        self._host = host
        home = str(PurePosixPath(source).parent) if source.startswith("/") else "/etc/auditbeat"
        variables = {
            "path.config": home,
            "path.home": "/usr/share/auditbeat",
            "path.data": "/var/lib/auditbeat",
            "path.logs": "/var/log/auditbeat",
            **host.environment,
        }
        # The file itself may set its directories.
        named = tree.read(text, source, variables)
        for name in ("config", "home", "data", "logs"):
            value = named.take(f"path.{name}")
            if isinstance(value, str):
                variables[f"path.{name}"] = value
        self._home = variables["path.config"]
        self._root = tree.read(text, source, variables)
        self._settings: dict[str, Any] = {}
        self._notes: list[Note] = []

    def result(self) -> Migration:
        for path in ("path", "max_procs", "timestamp"):
            self._root.take(path)
        self._put("event.event_actions", "auditbeat", 0, "")
        self._general()
        self._modules()
        processors = self._root.at("processors")
        self._processors(processors, "processors")
        self._combined_filters(0 if processors is None else processors.line)
        self._outputs()
        self._queue()
        self._logging()
        self._left_over()
        head = (
            f"# Made of {self._source} by sessiond migrate. sessiond check -c FILE checks it;\n"
            "# sessiond check --settings shows every setting.\n"
        )
        self._notes.sort(key=lambda note: note.line)
        return Migration(head + _as_yaml(self._settings), self._notes)

    # --- what is written

    def _put(self, path: str, value: Any, line: int, setting: str) -> bool:  # noqa: ANN401
        """Add a value to the new configuration; if it is invalid, omit it with a note."""
        if path != "auditd.audit_rules" and (unknown := re.search(r"\$\{[^}]*\}", str(value))):
            self._note(line, setting, f"left out: the environment here has no {unknown[0]}")
            return False
        before = _copy(self._settings)
        section = self._settings
        *sections, name = path.split(".")
        for each in sections:
            section = section.setdefault(each, {})
        section[name] = value
        try:
            load.loads(_as_yaml(self._settings), "x")
        except ConfigError as error:
            self._settings = before
            self._note(line, setting, f"left out: {_reason(error, path)}")
            return False
        return True

    def _note(self, line: int, setting: str, text: str) -> None:
        self._notes.append(Note(line, setting, text))

    def _same(self, section: Setting, prefix: str, name: str, path: str) -> None:
        """Copy a setting that has the same meaning in both."""
        found = section.at(name)
        if found is None or found.used:
            return
        if found.plain() is not None:
            value = found.take()
            if isinstance(value, str):
                value = _plain_text(value)
            if name in _WORDS:
                value = str(value).lower()
            self._put(path, value, found.line, f"{prefix}{name}")
        found.use()

    # --- general settings

    def _general(self) -> None:
        root = self._root
        self._same(root, "", "name", "host.name")
        self._tags(root.at("tags"), "tags")
        self._fields(root, "")

    def _tags(self, setting: Setting | None, name: str) -> None:
        if setting is not None:
            given = setting.take()
            tags = given if isinstance(given, list) else [given]
            known = self._settings.get("tags", [])
            wanted = known + [str(tag) for tag in tags if tag is not None and str(tag) not in known]
            if wanted:
                self._put("tags", wanted, setting.line, name)

    def _fields(self, section: Setting, prefix: str) -> None:
        fields = section.at("fields")
        section.take("fields_under_root")
        if fields is not None:
            self._labels(fields, f"{prefix}fields")
            self._note(fields.line, f"{prefix}fields", "written as labels")

    def _labels(self, setting: Setting, name: str) -> None:
        for path, leaf in _leaves(setting):
            label = path.replace(".", "_")
            leaf.use()
            labels = {**self._settings.get("labels", {}), label: leaf.value}
            self._put("labels", labels, leaf.line, f"{name}.{path}")

    # --- modules

    def _modules(self) -> None:
        modules = self._root.at("auditbeat.modules")
        found = False
        for index, module in enumerate(modules.items if modules is not None else []):
            prefix = f"auditbeat.modules[{index}]."
            name = str(module.take("module"))
            if module.take("enabled") in (False, "false"):
                module.use()
            elif name != "auditd":
                module.use()
                reason = _MODULE_REASONS.get(name, "has no counterpart")
                self._note(module.line, f"auditbeat.modules: {name}", reason)
            elif found:
                module.use()
                self._note(module.line, "auditbeat.modules", "left out: a second auditd module")
            else:
                found = True
                self._auditd(module, prefix)
        if not found:
            line = modules.line if modules is not None else 1
            self._note(line, "auditbeat.modules", "there is no auditd module; defaults apply")

    def _auditd(self, module: Setting, prefix: str) -> None:
        for name in _AUDITD_SAME:
            self._same(module, prefix, name, f"auditd.{name}")
        for name, reason in _AUDITD_NOT_NEEDED.items():
            setting = module.at(name)
            if setting is not None:
                setting.use()
                self._note(setting.line, prefix + name, f"not needed: {reason}")
        has_rules = self._rules(module, prefix)
        self._socket_type(module, prefix, has_rules=has_rules)
        self._tags(module.at("tags"), f"{prefix}tags")
        self._fields(module, prefix)
        self._processors(module.at("processors"), f"{prefix}processors")

    def _socket_type(self, module: Setting, prefix: str, *, has_rules: bool) -> None:
        setting = module.at("socket_type")
        value = str(setting.take() or "").lower() if setting is not None else ""
        line = setting.line if setting is not None else module.line
        if value == "multicast" and has_rules:
            self._note(
                line,
                f"{prefix}socket_type",
                "auto in place of multicast: who loads rules must be the host's audit daemon",
            )
        elif value:
            self._put("auditd.socket_type", value, line, f"{prefix}socket_type")
        if not has_rules:
            self._note(
                module.line,
                "auditbeat.modules: auditd",
                "without rules Auditbeat only listens; sessiond loads rules of its own for execve, "
                "execveat, exit_group and setsid unless auditd.socket_type is multicast",
            )

    def _rules(self, module: Setting, prefix: str) -> bool:
        """Copy the rules; return whether there are any."""
        inline, files = module.at("audit_rules"), module.at("audit_rule_files")
        text = ""
        if inline is not None:
            given = inline.take()
            text = self._rewritten(
                given if isinstance(given, str) else "", inline.first_line, f"{prefix}audit_rules"
            )
        patterns = self._patterns(files) if files is not None else []
        found = [file for pattern in patterns for file in self._host.rule_files(pattern)]
        kept: list[str] = []
        if all(not rules.rewrite(body, self._host.path_mode).changes for _, body in found):
            kept = patterns
            for path, body in found:
                self._skipped(rules.rewrite(body, self._host.path_mode), 1, path)
        else:
            assert files is not None  # noqa: S101 - for the type checker
            self._note(
                files.line,
                f"{prefix}audit_rule_files",
                "their rules are in auditd.audit_rules: as they are, auditctl would refuse some",
            )
            for path, body in found:
                text += f"# {path}\n" + self._rewritten(body, 1, path)
        line = module.line
        if _has_rule(text):
            self._put("auditd.audit_rules", text, line, f"{prefix}audit_rules")
        if kept:
            assert files is not None  # noqa: S101 - for the type checker
            self._put("auditd.audit_rule_files", kept, files.line, f"{prefix}audit_rule_files")
            for pattern in kept:
                there = self._host.rule_files(pattern)
                state = "stays in use: keep it" if there else "names no file on this host"
                self._note(files.line, f"{prefix}audit_rule_files", f"{pattern} {state}")
        return _has_rule(text) or bool(kept)

    def _patterns(self, setting: Setting) -> list[str]:
        given = setting.take()
        patterns = given if isinstance(given, list) else [given]
        return [str(PurePosixPath(self._home) / str(pattern)) for pattern in patterns if pattern]

    def _rewritten(self, text: str, first_line: int, setting: str) -> str:
        done = rules.rewrite(text, self._host.path_mode)
        for line, change in done.changes:
            self._note(first_line + line - 1, setting, change)
        self._skipped(done, first_line, setting)
        return done.text

    def _skipped(self, done: rules.RewrittenRules, first_line: int, setting: str) -> None:
        for line, reason in done.skipped:
            where = first_line + line - 1
            self._note(where, setting, f"this host would refuse the rule: {reason}")
        if done.skipped:
            # As Auditbeat does: it goes on without the rules that the kernel refuses.
            self._put("auditd.ignore_errors", True, first_line, setting)

    # --- processors

    def _processors(
        self, processors: Setting | None, prefix: str, when: tuple[dict[str, Any], ...] = ()
    ) -> None:
        """Convert processors; ``when`` are the conditions under which they apply."""
        for index, item in enumerate(processors.items if processors is not None else []):
            if item.at("if") is not None:
                self._branches(item, f"{prefix}[{index}]", when)
                continue
            for name, processor in item.members.items():
                self._processor(name, processor, f"{prefix}[{index}].{name}", when)

    def _branches(self, item: Setting, setting: str, when: tuple[dict[str, Any], ...]) -> None:
        item.use()
        holds = self._condition(item.members["if"], f"{setting}.if")
        if holds is not None:
            then, otherwise = (_as_list(item.at(name)) for name in ("then", "else"))
            self._processors(then, f"{setting}.then", (*when, holds))
            self._processors(otherwise, f"{setting}.else", (*when, negated(holds)))

    def _condition(self, section: Setting, setting: str) -> dict[str, Any] | None:
        try:
            return condition(section)
        except UnknownConditionError as error:
            self._note(section.line, setting, f"left out: {error}")
            return None

    def _processor(
        self, name: str, processor: Setting, setting: str, when: tuple[dict[str, Any], ...]
    ) -> None:
        section = processor.at("when")
        if section is not None:
            holds = self._condition(section, f"{setting}.when")
            if holds is None:
                processor.use()
                return
            when = (*when, holds)
        if name in ("drop_event", "drop_fields") or (when and name in _MARKS):
            self._filter(name, processor, setting, when)
            processor.use()
            return
        if when:
            processor.use()
            self._note(processor.line, setting, "has no counterpart: it depends on a condition")
            return
        match name:
            case "add_session_metadata":
                self._session_metadata(processor, setting)
            case "add_host_metadata":
                processor.use()
                self._put("event.host_fields", "full", processor.line, setting)
            case "add_tags":
                self._tags(processor.at("tags"), f"{setting}.tags")
                processor.use()
            case "add_labels" if (labels := processor.at("labels")) is not None:
                self._labels(labels, f"{setting}.labels")
                processor.use()
            case "add_fields" if (fields := processor.at("fields")) is not None:
                self._labels(fields, f"{setting}.fields")
                self._note(processor.line, setting, "written as labels")
                processor.use()
            case "truncate_fields" if processor.at("fields") is not None:
                self._truncated(processor, setting)
                processor.use()
            case _:
                processor.use()
                reason = _PROCESSOR_REASONS.get(name, "the shipper that reads the lines can do it")
                self._note(processor.line, setting, f"has no counterpart: {reason}")

    def _filter(
        self, name: str, processor: Setting, setting: str, when: tuple[dict[str, Any], ...]
    ) -> None:
        """Convert a processor that drops or changes events to a filter."""
        then: Any = "drop"
        if name == "drop_event" and not when:
            self._note(processor.line, setting, "left out: without a condition it drops all events")
            return
        if name == "drop_fields":
            then = {"fields": {"omit": _texts(processor.take("fields"))}}
        elif name == "add_tags":
            then = {"tags": _texts(processor.take("tags"))}
        elif name in ("add_labels", "add_fields"):
            leaves = _leaves(processor.at(_MARKS[name]) or processor)
            labels = {path.replace(".", "_"): str(leaf.value) for path, leaf in leaves}
            then = {"labels": labels}
            if name == "add_fields":
                self._note(processor.line, setting, "written as labels")
        made = {"name": setting, "when": both(*when) if when else _ALWAYS, "then": then}
        # The first matching filter decides. So drops come first, and filters that match all events
        # last.
        wanted = [*self._settings.get("filters", []), made]
        wanted.sort(key=lambda each: (each["then"] != "drop", each["when"] is _ALWAYS))
        self._put("filters", wanted, processor.line, setting)

    def _combined_filters(self, line: int) -> None:
        """Add filters for events that several filters with labels, tags or omissions fit.

        Beats applies all processors to an event, sessiond the first filter that fits.
        """
        found = self._settings.get("filters", [])
        drops = [each for each in found if each["then"] == "drop"]
        always = [each for each in found if each["when"] == _ALWAYS]
        marks = [each for each in found if each not in drops and each not in always]
        if len(marks) > _MAX_COMBINED:
            text = "of several filters that fit an event the first decides: see filters"
            self._note(line, "processors", text)
            return
        combined: list[dict[str, Any]] = []
        for number in range(len(marks), 0, -1):
            for some in itertools.combinations(marks, number):
                conditions = _unique([each["when"] for each in some])
                when = both(*conditions)
                impossible = any(negated(each) in conditions for each in conditions)
                if not impossible and when not in [each["when"] for each in combined]:
                    combined.append(_together([*some, *always], when))
        if always:
            combined.append(_together(always, _ALWAYS))
        if combined:
            self._put("filters", [*drops, *combined], line, "processors")

    def _truncated(self, processor: Setting, setting: str) -> None:
        """Convert the limit of a process's arguments; lines have no others but their own."""
        fields = _texts(processor.take("fields"))
        for name in ("max_bytes", "max_characters"):
            limit = processor.at(name)
            if limit is not None and _ARGUMENTS.intersection(fields):
                self._put("event.max_args_bytes", limit.take(), limit.line, f"{setting}.{name}")
        others = [field for field in fields if field not in _ARGUMENTS]
        if others:
            reason = f"{', '.join(others)}: {_PROCESSOR_REASONS['truncate_fields']}"
            self._note(processor.line, setting, f"has no counterpart for {reason}")

    def _session_metadata(self, processor: Setting, setting: str) -> None:
        backend = processor.at("backend")
        if backend is not None:
            value = str(backend.take())
            if value in _BACKENDS:
                self._put("session_metadata.backend", value, backend.line, f"{setting}.backend")
            else:
                self._note(backend.line, f"{setting}.backend", f"{value!r} is no backend: auto")
        for name in ("pid_field", "db_reaper_period"):
            if processor.at(name) is not None:
                self._note(
                    processor.line, f"{setting}.{name}", "not needed: events have their process"
                )
        processor.use()

    # --- outputs

    def _outputs(self) -> None:
        outputs = self._root.at("output")
        for name, output in (outputs.members if outputs is not None else {}).items():
            if output.take("enabled") in (False, "false"):
                output.use()
                continue
            match name:
                case "file":
                    self._file(output)
                case "console":
                    output.take("codec")
                    self._put("output.console.enabled", True, output.line, "output.console")
                case "logstash":
                    self._logstash(output)
                case _:
                    self._by_shipper(name, output)

    def _file(self, output: Setting) -> None:
        name = str(output.take("filename") or "auditbeat")
        directory = str(output.take("path") or "/var/log/sessiond")
        # A date in the name: files are rotated by size and age and need no date.
        plain = PurePosixPath(re.sub(r"-?%\{\+[^}]*\}", "", f"{directory}/{name}.ndjson"))
        path = str(plain if plain.is_absolute() else PurePosixPath("/") / plain)
        self._put("output.file.path", path, output.line, "output.file.path")
        if not path.startswith("/var/log/sessiond/"):
            self._note(
                output.line,
                "output.file.path",
                f"the service may write below /var/log/sessiond alone: a drop-in with "
                f"ReadWritePaths={PurePosixPath(path).parent} lets it, or take another path",
            )
        size = output.at("rotate_every_kb")
        value = 10240 if size is None else size.take()
        line = output.line if size is None else size.line
        self._put("output.file.rotate.size", f"{value}KiB", line, "output.file.rotate_every_kb")
        self._same(output, "output.file.", "number_of_files", "output.file.rotate.keep")
        self._put("output.file.rotate.compress", "none", output.line, "output.file")
        mode = output.at("permissions")
        if mode is not None:
            value = mode.take()
            text = f"{value:04o}" if isinstance(value, int) else str(value)
            self._put("output.file.mode", text, mode.line, "output.file.permissions")
        startup = output.at("rotate_on_startup")
        if startup is not None and startup.take() in (True, "true"):
            self._note(startup.line, "output.file.rotate_on_startup", "a start goes on in the file")
        codec = output.at("codec")
        if codec is not None:
            codec.use()
            self._note(codec.line, "output.file.codec", "each event is one line of JSON")

    def _logstash(self, output: Setting) -> None:
        hosts = output.at("hosts")
        given = output.take("hosts")
        names = given if isinstance(given, list) else [given] if given else []
        line = output.line if hosts is None else hosts.line
        if not names:
            self._note(line, "output.logstash.hosts", "there is no host: lines go to a file")
            return
        address = str(names[0]).removeprefix("tcp://")
        if not re.search(r":\d+$", address):
            address += ":5044"
        socket = {"type": "tcp", "address": address}
        if not self._put("output.socket", socket, line, "output.logstash.hosts"):
            return
        port = address.rpartition(":")[2]
        self._note(
            output.line,
            "output.logstash",
            f"Logstash takes the lines by input {{ tcp {{ port => {port} codec => json_lines }} }} "
            "in place of beats; the service needs a drop-in to reach the network (operations.md)",
        )
        if len(names) > 1:
            self._note(line, "output.logstash.hosts", f"the first of {len(names)} hosts is taken")
        self._tls(output.at("ssl"))

    def _tls(self, ssl: Setting | None) -> None:
        if ssl is None or ssl.take("enabled") in (False, "false"):
            if ssl is not None:
                ssl.use()
            return
        self._put("output.socket.tls.enabled", True, ssl.line, "output.logstash.ssl")
        authorities = ssl.at("certificate_authorities")
        if authorities is not None:
            given = authorities.take()
            files = given if isinstance(given, list) else [given]
            name = "output.logstash.ssl.certificate_authorities"
            self._put("output.socket.tls.ca", files[0], authorities.line, name)
            if len(files) > 1:
                self._note(authorities.line, name, "the first is taken: put all into one file")
        for name in ("certificate", "key"):
            setting = ssl.at(name)
            if setting is not None and "-----BEGIN" in str(setting.value):
                setting.use()
                full = f"output.logstash.ssl.{name}"
                self._note(setting.line, full, "left out: put it into a file, and name that")
            self._same(ssl, "output.logstash.ssl.", name, f"output.socket.tls.{name}")
        mode = ssl.at("verification_mode")
        if mode is not None and mode.take() != "full":
            self._note(
                mode.line,
                "output.logstash.ssl.verification_mode",
                "the server's certificate and name are always checked",
            )

    def _by_shipper(self, name: str, output: Setting) -> None:
        output.use()
        self._note(
            output.line,
            f"output.{name}",
            "lines go to /var/log/sessiond/events.ndjson: have a shipper read it (Filebeat, "
            "Elastic Agent, Fluent Bit, Vector, rsyslog), or set output.http (outputs.md)",
        )
        self._put("output.file.path", "/var/log/sessiond/events.ndjson", output.line, "")

    def _queue(self) -> None:
        for name, path in (("max_size", "output.spool.max_size"), ("path", "output.spool.path")):
            found = self._root.at(f"queue.disk.{name}")
            if found is not None:
                value = found.take()
                self._put(path, _size(value) if name == "max_size" else value, found.line,
                          f"queue.disk.{name}")  # fmt: skip

    def _logging(self) -> None:
        level = self._root.at("logging.level")
        if level is not None:
            value = str(level.take()).lower()
            self._put("logging.level", _LEVELS.get(value, value), level.line, "logging.level")
        json = self._root.at("logging.json")
        if json is not None and json.take() in (True, "true"):
            self._put("logging.format", "json", json.line, "logging.json")
        self._root.take("logging.to_stderr")

    # --- what is left

    def _left_over(self) -> None:
        for path, line in self._root.unused():
            if path:
                plain = re.sub(r"\[\d+\]", "", path)
                known = [start for start in _REASONS if f"{plain}.".startswith(f"{start}.")]
                reason = f": {_REASONS[max(known, key=len)]}" if known else ""
                self._note(line, path, f"has no counterpart{reason}")


def _unique(conditions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for number, each in enumerate(conditions) if each not in conditions[:number]]


def _together(filters: list[dict[str, Any]], when: dict[str, Any]) -> dict[str, Any]:
    """Return a filter with the labels, tags and omissions of several."""
    labels: dict[str, str] = {}
    tags: list[str] = []
    omit: list[str] = []
    for each in filters:
        labels |= each["then"].get("labels", {})
        tags += each["then"].get("tags", [])
        omit += each["then"].get("fields", {}).get("omit", [])
    then: dict[str, Any] = {"labels": labels} if labels else {}
    then |= {"tags": list(dict.fromkeys(tags))} if tags else {}
    then |= {"fields": {"omit": list(dict.fromkeys(omit))}} if omit else {}
    return {"name": " + ".join(each["name"] for each in filters), "when": when, "then": then}


def _leaves(setting: Setting, path: str = "") -> Iterator[tuple[str, Setting]]:
    if not setting.members:
        if path and setting.value is not None:
            yield path, setting
        return
    for name, member in setting.members.items():
        yield from _leaves(member, f"{path}.{name}" if path else name)


def _as_list(setting: Setting | None) -> Setting | None:
    """Return processors as a list: a single one may be written without a list."""
    if setting is None or setting.items:
        return setting
    alone = Setting(setting.line)
    alone.items = [setting]
    return alone


def _texts(value: Any) -> list[str]:  # noqa: ANN401
    return [str(each) for each in (value if isinstance(value, list) else [value])]


def _has_rule(text: str) -> bool:
    return any(line.strip() and not line.strip().startswith("#") for line in text.splitlines())


def _plain_text(value: str) -> Any:  # noqa: ANN401 - what the text says
    """Parse a text from an environment variable or quotes: true, 8192."""
    if re.fullmatch(r"\d+", value):
        return int(value)
    return {"true": True, "false": False}.get(value.lower(), value)


def _size(value: Any) -> Any:  # noqa: ANN401
    """Convert a size of libbeat (10GB: 10 * 2**30 bytes)."""
    match = re.fullmatch(r"(\d+) ?([KMGT])i?B?", str(value), re.IGNORECASE)
    return f"{match[1]}{match[2].upper()}iB" if match else value


def _reason(error: ConfigError, path: str) -> str:
    """Remove the file name, which does not exist yet, from a message of the loader."""
    return re.sub(r"^x(:\d+)*: ", "", str(error)).removeprefix(f"{path}: ")


def _copy(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _copy(value) if isinstance(value, dict) else value for name, value in settings.items()
    }


class _Dumper(yaml.SafeDumper):
    """Writes multi-line text as a block, and repeated values without aliases."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 -- of PyYAML
        """Return True: no aliases."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _as_yaml(settings: dict[str, Any]) -> str:
    if not settings:
        return "{}\n"
    return yaml.dump(settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
