"""Every setting of the configuration, declared once: type, default, bounds, help, reload support.

:mod:`sessiond.config.load` derives the validation, the error messages, the list of settings and
the shipped ``etc/sessiond.yml`` from these declarations. Pure.
"""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Meta

from sessiond.config.filters import Filters
from sessiond.config.quantities import Duration, Headers, Labels, Mode, Size, show

# Applied when neither auditd.audit_rules nor auditd.audit_rule_files is given.
DEFAULT_RULES = """\
-a always,exit -F arch=b64 -S execve,execveat -k exec
-a always,exit -F arch=b64 -S exit_group -k exit
-a always,exit -F arch=b64 -S setsid -k setsid
-a always,exit -F arch=b32 -S execve,execveat -k exec
-a always,exit -F arch=b32 -S exit_group -k exit
-a always,exit -F arch=b32 -S setsid -k setsid
"""


class InvalidError(ValueError):
    """A rule between settings is broken; ``setting`` is relative to the section that checks."""

    def __init__(self, setting: str, wrong: str, allowed: str) -> None:
        super().__init__(wrong)
        self.setting, self.wrong, self.allowed = setting, wrong, allowed


def _option(
    help: str,  # noqa: A002 - the natural name, and no builtin is used here
    *,
    live: bool = False,
    ge: int | None = None,
    le: int | None = None,
    min: float | None = None,  # noqa: A002
    max: float | None = None,  # noqa: A002
    aliases: dict[str | bool, str] | None = None,
    allowed: str | None = None,
    example: str | None = None,
) -> Meta:
    """Declare an option's help, bounds (``ge``/``le`` of numbers, ``min``/``max`` of the rest).

    ``live``: a reload applies a change; otherwise it takes a restart. ``aliases`` are other names
    of values. ``allowed`` describes valid values where the type is not enough. ``example`` is YAML,
    shown in the shipped file where there is no default.
    """
    extra = {
        "live": live,
        "min": min,
        "max": max,
        "aliases": aliases or {},
        "allowed": allowed,
        "example": example,
    }
    return Meta(description=" ".join(help.split()), ge=ge, le=le, extra=extra)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group of settings."""


class ReassemblerSettings(Section, frozen=True, kw_only=True):
    """How audit records are reassembled into events."""

    max_in_flight: Annotated[
        int,
        _option(
            "Maximum number of incomplete audit events. Beyond it the oldest is closed as it is.",
            live=True,
            ge=1,
            le=65536,
        ),
    ] = 8192
    timeout: Annotated[
        Duration,
        _option("How long an audit event waits for its last record.", live=True, min=0.01, max=60),
    ] = Duration(2)


# Where the key of event.chain is, unless configured otherwise.
CHAIN_KEY: Final = Path("/etc/sessiond.chain.key")


class AuditdSettings(Section, frozen=True, kw_only=True):
    """The kernel's audit system: how sessiond listens to it, and what it records."""

    enabled: Annotated[
        bool,
        _option(
            "false: do not use audit at all: no socket, no rules. Every exec, setsid and end then "
            "comes from the tracer, and the host does not pay for audit rules. Logins, failed "
            "execs and everything else that only audit records are missing. Needs the backend "
            "ebpf or proc_connector."
        ),
    ] = True
    socket_type: Annotated[
        Literal["unicast", "multicast", "auto"],
        _option(
            "unicast: be the host's audit daemon; the kernel queues records while sessiond is slow "
            "or restarting. multicast: listen beside another audit daemon, which owns the rules; "
            "records that sessiond is too slow to read are lost (and counted). auto: unicast, "
            "unless a healthy audit daemon is registered."
        ),
    ] = "auto"
    audit_rules: Annotated[
        str | None,
        _option(
            "Audit rules as text, one per line, in auditctl's syntax. When neither this nor "
            "audit_rule_files is given, built-in rules record execve, execveat, exit_group and "
            "setsid. Rules loaded by other programs are never touched.",
            live=True,
            example="|\n" + textwrap.indent(DEFAULT_RULES, "  ").rstrip(),
        ),
    ] = None
    audit_rule_files: Annotated[
        tuple[str, ...] | None,
        _option(
            "Files with audit rules (absolute paths, * and ? allowed), loaded after audit_rules, "
            "sorted by name. An empty list, with audit_rules not given, means no rules at all.",
            live=True,
            example="[/etc/sessiond.rules]",
        ),
    ] = None
    ignore_errors: Annotated[
        bool,
        _option(
            "Skip rules that are invalid or that the kernel refuses, with a warning, instead of "
            "stopping (auditctl -i).",
            live=True,
        ),
    ] = False
    immutable: Annotated[
        bool,
        _option(
            "Lock the audit configuration until the next boot once the rules are loaded "
            "(auditctl -e 2). sessiond's rules then stay loaded after it stops. Not with multicast."
        ),
    ] = False
    failure_mode: Annotated[
        Literal["silent", "log", "panic"],
        _option(
            "What the kernel does when it loses a record: do nothing, write to the kernel log, or "
            "panic.",
            live=True,
        ),
    ] = "silent"
    backlog_limit: Annotated[
        int,
        _option(
            "How many records the kernel queues for sessiond before it loses some.",
            live=True,
            ge=1,
            le=2**32 - 1,
        ),
    ] = 8192
    backlog_wait_time: Annotated[
        int,
        _option(
            "How long (kernel ticks, as in auditctl --backlog_wait_time) the host's processes "
            "wait when the kernel's backlog is full. 0: never; records are lost instead, because "
            "the host comes first.",
            live=True,
            ge=0,
            le=2**31 - 1,
        ),
    ] = 0
    rate_limit: Annotated[
        int,
        _option(
            "Maximum number of records per second that the kernel makes; 0: no limit.",
            live=True,
            ge=0,
            le=2**32 - 1,
        ),
    ] = 0
    backpressure_strategy: Annotated[
        Literal["kernel", "userspace", "both", "none", "auto"],
        _option(
            "What happens when records arrive faster than sessiond handles them. kernel: processes "
            "never wait (wait time 0), the kernel drops records. userspace: sessiond drops them. "
            "both: both. none: nothing is dropped, backlog_wait_time applies and processes wait. "
            "auto: kernel where it is supported, else userspace.",
            live=True,
            aliases={"user-space": "userspace", "default": "auto"},
        ),
    ] = "auto"
    resolve_ids: Annotated[bool, _option("Add user and group names to ids.", live=True)] = True
    include_raw_message: Annotated[
        bool,
        _option("Write the raw records to auditd.messages and event.original.", live=True),
    ] = False
    include_warnings: Annotated[
        bool, _option("List in auditd.warnings what could not be parsed.", live=True)
    ] = False
    reconcile: Annotated[
        bool,
        _option(
            "Restore sessiond's audit rules, settings and registration when another program "
            "changes them, each at most five times a minute. false: only report the change.",
            live=True,
        ),
    ] = True
    keep_rules_on_exit: Annotated[
        bool, _option("Leave sessiond's rules in the kernel when it stops.", live=True)
    ] = False
    receive_buffer: Annotated[
        Size,
        _option(
            "Size of the audit socket's receive buffer, which holds the records that arrive while "
            "sessiond restarts. A size above net.core.rmem_max needs CAP_NET_ADMIN.",
            min=64 * 2**10,
            max=2**30,
        ),
    ] = Size(64 * 2**20)
    reassembler: ReassemblerSettings = ReassemblerSettings()

    def __post_init__(self) -> None:
        """Refuse settings that the kernel does not support together."""
        if self.socket_type != "multicast":
            return
        for name, given in (
            ("audit_rules", self.audit_rules is not None),
            ("audit_rule_files", bool(self.audit_rule_files)),
            ("immutable", self.immutable),
        ):
            if given:
                wrong = "can't be used with socket_type multicast: another daemon owns the rules"
                raise InvalidError(name, wrong, "leave it out, or socket_type unicast or auto")


class SessionMetadataSettings(Section, frozen=True, kw_only=True):
    """Where sessiond learns of processes, parents, sessions and ends."""

    backend: Annotated[
        Literal["auto", "ebpf", "proc_connector", "procfs"],
        _option(
            "ebpf: every fork, exec and exit, exact and cheap. proc_connector: every fork, exec "
            "and exit, with details from /proc that may be missing for short-lived processes. "
            "procfs: snapshots only. auto: the first of these that this host supports.",
            aliases={"kernel_tracing": "ebpf", "modern": "ebpf"},
        ),
    ] = "auto"
    fallback: Annotated[
        bool,
        _option("Use the next backend, with a warning, when this one is unavailable; false: stop."),
    ] = True
    max_processes: Annotated[
        int,
        _option(
            "Maximum number of processes in the process table, including ended processes that "
            "others refer to. Beyond it sessiond forgets unreferenced ended processes first, then "
            "those that ended the longest ago.",
            ge=1024,
            le=2**22,
        ),
    ] = 131072
    max_memory: Annotated[
        Size,
        _option(
            "Approximate memory limit of the process table, on top of 1 KB for each living "
            "process. Beyond it sessiond cuts argument lists, in this order: those of earlier "
            "programs, of ended processes, of the least recently active processes; then it "
            "forgets ended processes. Events name what was cut.",
            min=8 * 2**20,
            max=2**36,
        ),
    ] = Size(64 * 2**20)
    ring_buffer: Annotated[
        Size,
        _option(
            "Size of the eBPF ring buffer; a power of two. It holds the events of a restart of "
            "sessiond: 8 MiB are enough for about 5,000 processes.",
            min=64 * 2**10,
            max=2**30,
        ),
    ] = Size(8 * 2**20)
    args_limit: Annotated[
        Size,
        _option(
            "Maximum number of bytes of a program's arguments that the tracer reads (256 while "
            "more than 1 MiB of its ring buffer is unread); audit records have all arguments.",
            min=256,
            max=32 * 2**10,
        ),
    ] = Size(4 * 2**10)

    def __post_init__(self) -> None:
        """Refuse a ring size that the kernel would refuse."""
        if self.ring_buffer & (self.ring_buffer - 1):
            wrong = f"{show(self.ring_buffer)} is not a power of two"
            raise InvalidError("ring_buffer", wrong, "64KiB, 128KiB, ... 8MiB, 16MiB, ... 1GiB")


_OWNER_HELP = "A name or a numeric id; not set: the daemon's."


class RotateSettings(Section, frozen=True, kw_only=True):
    """When a file is rotated, and what happens to the old ones."""

    size: Annotated[
        Size,
        _option(
            "Rotate before the file exceeds this size; 0: never. Sizes are written as 10MB "
            "(10,000,000) or 10MiB (10,485,760).",
            live=True,
            min=0,
            max=2**40,
        ),
    ] = Size(100 * 2**20)
    interval: Annotated[
        Duration,
        _option(
            "Rotate this long after the previous rotation; 0: never. Durations are written as "
            "500ms, 2s, 10m, 1h30m or 7d.",
            live=True,
            min=0,
            max=366 * 86400,
        ),
    ] = Duration(0)
    keep: Annotated[int, _option("How many rotated files to keep.", live=True, ge=0, le=10000)] = 7
    min_age: Annotated[
        Duration,
        _option(
            "Rotated files whose last line is younger than this are kept as well, so that a flood "
            "of lines does not push out older ones. If the disk fills up, lines wait in the spool.",
            live=True,
            min=0,
            max=366 * 86400,
        ),
    ] = Duration(3600)
    compress: Annotated[
        Literal["zstd", "gzip", "none"],
        _option(
            "How rotated files are compressed, all but the latest. zstd needs half the space of "
            "gzip and an eighth of the time. Without a Python library for it (python3-zstandard) "
            "sessiond uses gzip, and logs that.",
            live=True,
            aliases={True: "gzip", False: "none"},
        ),
    ] = "zstd"


class FileSettings(Section, frozen=True, kw_only=True):
    """Lines go to a file, which is reopened on SIGHUP, for logrotate."""

    enabled: Annotated[bool, _option("false: ignore this section.", live=True)] = True
    path: Annotated[Path, _option("The file.", live=True)] = Path("/var/log/sessiond/events.ndjson")
    mode: Annotated[Mode, _option("The file's permissions.", live=True)] = Mode(0o600)
    owner: Annotated[
        str | int | None, _option(f"The file's owner. {_OWNER_HELP}", live=True, example="root")
    ] = None
    group: Annotated[
        str | int | None, _option(f"The file's group. {_OWNER_HELP}", live=True, example="adm")
    ] = None
    rotate: RotateSettings = RotateSettings()


_FirstWait = Annotated[
    Duration, _option("The first wait; it doubles each time.", live=True, min=0.01, max=3600)
]
_LongestWait = Annotated[Duration, _option("The longest wait.", live=True, min=0.01, max=86400)]


class BackoffSettings(Section, frozen=True, kw_only=True):
    """How long to wait before reconnecting."""

    init: _FirstWait = Duration(0.1)
    max: _LongestWait = Duration(10)

    def __post_init__(self) -> None:
        """Refuse a first wait above the longest."""
        if self.init > self.max:
            wrong = f"init ({show(self.init)}) is longer than max ({show(self.max)})"
            raise InvalidError("", wrong, "init at most as long as max")


class TlsFiles(Section, frozen=True, kw_only=True):
    """TLS 1.2 or later: the certificates that verify the server, and those of the client."""

    ca: Annotated[
        Path | None,
        _option(
            "File with the trusted CA certificates; not set: the host's.",
            live=True,
            example="/etc/sessiond/ca.pem",
        ),
    ] = None
    certificate: Annotated[
        Path | None,
        _option("File with the client's certificate.", live=True, example="/etc/sessiond/tls.pem"),
    ] = None
    key: Annotated[
        Path | None,
        _option(
            "File with the client's private key; not set: it is in the certificate file.",
            live=True,
            example="/etc/sessiond/tls.key",
        ),
    ] = None
    server_name: Annotated[
        str | None,
        _option(
            "The name in the server's certificate, if it differs from the address.",
            live=True,
            example="logs.example.org",
        ),
    ] = None


class TlsSettings(TlsFiles, frozen=True, kw_only=True):
    """Encryption of tcp, with verification of the server: TLS 1.2 or later."""

    enabled: Annotated[
        bool,
        _option("Encrypt; only for type tcp. Otherwise lines are sent in the clear.", live=True),
    ] = False


class SocketSettings(Section, frozen=True, kw_only=True):
    """Lines go to a listening socket; sessiond connects and reconnects to it."""

    enabled: Annotated[bool, _option("false: ignore this section.", live=True)] = True
    type: Annotated[
        Literal["unix_stream", "unix_datagram", "tcp"],
        _option("unix_datagram: each line is one datagram.", live=True),
    ] = "unix_stream"
    address: Annotated[
        str,
        _option(
            "A unix socket's absolute path (@name for an abstract one), or host:port for tcp "
            "([::1]:5044 for IPv6).",
            live=True,
            allowed="an absolute path, @name or host:port",
            example="/run/collector/events.sock",
        ),
    ]
    backoff: BackoffSettings = BackoffSettings()
    tls: TlsSettings = TlsSettings()

    def __post_init__(self) -> None:
        """Refuse an address that doesn't fit the type."""
        if self.type == "tcp":
            self.host_and_port()
        elif not re.fullmatch(r"[/@][^\0]+", self.address) or len(os.fsencode(self.address)) > 107:
            wrong = f"{show(self.address)} is not the address of a {self.type} socket"
            raise InvalidError("address", wrong, "an absolute path or @name, of at most 107 bytes")

    def host_and_port(self) -> tuple[str, int]:
        """Split a tcp address into host and port; raises InvalidError for an invalid one."""
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:\[\]/]+)):(\d{1,5})", self.address)
        host = match and (match[1] or match[2])
        if not match or not host or not _is_host(host) or not 0 < int(match[3]) < 65536:
            wrong = f"{show(self.address)} is not the address of a tcp socket"
            raise InvalidError("address", wrong, "host:port, such as localhost:5044")
        return host, int(match[3])


def _is_host(name: str) -> bool:
    """Whether a name or address can be resolved: no label is empty or too long."""
    try:
        return bool(name.encode("idna"))
    except UnicodeError:
        return False


class HttpBackoffSettings(BackoffSettings, frozen=True, kw_only=True):
    """How long to wait before a request is retried; a server may ask for more."""

    init: _FirstWait = Duration(1)
    max: _LongestWait = Duration(60)


class HttpBatchSettings(Section, frozen=True, kw_only=True):
    """How many lines go into one request."""

    max_size: Annotated[
        Size,
        _option(
            "Maximum size of the lines in a request, before compression; a longer line is sent "
            "alone. Memory may hold twice as much.",
            live=True,
            min=2**12,
            max=64 * 2**20,
        ),
    ] = Size(2**20)
    interval: Annotated[
        Duration,
        _option(
            "How long a line waits for others to share its request.", live=True, min=0.01, max=60
        ),
    ] = Duration(1)


_OWN_HEADERS: Final = ("content-encoding", "content-length", "host", "transfer-encoding")
_SECRET_HEADERS: Final = ("authorization", "cookie", "proxy-authorization")


class HttpSettings(Section, frozen=True, kw_only=True):
    """Lines go to a server in POST requests of many lines; what it does not accept stays spooled.

    docs/outputs.md has an example for each preset.
    """

    enabled: Annotated[bool, _option("false: ignore this section.", live=True)] = True
    url: Annotated[
        str,
        _option(
            "The server's URL. Without a path, the preset's path is used. Redirects are not "
            "followed. Credentials belong in secret_headers, not here.",
            live=True,
            allowed="https://host[:port][/path][?query], or http://",
            example="https://elastic.example.org:9200",
        ),
    ]
    preset: Annotated[
        Literal["elasticsearch", "ndjson", "splunk_hec", "loki", "otlp"],
        _option(
            "The format of the requests. elasticsearch: the _bulk API, also OpenSearch's; event.id "
            "is the document's _id, so that no event is indexed twice. ndjson: the plain lines "
            "(ClickHouse, Vector, Logstash). splunk_hec, loki, otlp: each line becomes an event.",
            live=True,
        ),
    ] = "ndjson"
    index: Annotated[
        str,
        _option(
            "Elasticsearch's data stream or index.",
            live=True,
            allowed="lowercase letters, digits and . _ -, such as logs-sessiond.process-default",
        ),
    ] = "logs-sessiond.process-default"
    compression: Annotated[
        Literal["gzip", "zstd", "none"],
        _option(
            "zstd is faster and smaller, if the server supports it (ClickHouse, Vector, the "
            "OpenTelemetry Collector; OpenSearch closes the connection without an answer).",
            live=True,
        ),
    ] = "gzip"
    headers: Annotated[
        Headers,
        _option("HTTP headers of each request.", live=True, example="{X-Scope-OrgID: hosts}"),
    ] = Headers()
    secret_headers: Annotated[
        Headers,
        _option(
            "HTTP headers with secret values: for each name a file (readable only by its owner) "
            "or a systemd credential that holds one line, such as: ApiKey VnVhQ2ZH. They are read "
            "anew for each connection.",
            live=True,
            allowed="names of headers, each with an absolute path or a credential's name",
            example="{Authorization: /etc/sessiond.http.key}",
        ),
    ] = Headers()
    proxy: Annotated[
        str | None,
        _option(
            "The proxy; not set: none, whatever the environment says. Proxy-Authorization in "
            "secret_headers is sent only to the proxy.",
            live=True,
            allowed="http://host:port",
            example="http://proxy.example.org:3128",
        ),
    ] = None
    timeout: Annotated[
        Duration,
        _option(
            "How long a request may take, from connecting to the end of the response.",
            live=True,
            min=1,
            max=600,
        ),
    ] = Duration(30)
    refused_max_size: Annotated[
        Size,
        _option(
            "Maximum size of http.refused.ndjson in the spool directory, which holds lines that "
            "the server rejects for good, with the reason; the oldest half is deleted first. 0: "
            "no such file.",
            live=True,
            min=0,
            max=2**40,
        ),
    ] = Size(16 * 2**20)
    batch: HttpBatchSettings = HttpBatchSettings()
    backoff: HttpBackoffSettings = HttpBackoffSettings()
    tls: TlsFiles = TlsFiles()

    def __post_init__(self) -> None:
        """Refuse invalid URLs, and secrets in a file that everybody may read."""
        self.parts()
        if self.proxy is not None:
            proxy = _split_url("proxy", self.proxy, "http://host:port", schemes=("http",))
            if proxy.port is None or proxy.path.strip("/") or proxy.query:
                wrong = f"{show(self.proxy)} is not the address of a proxy"
                raise InvalidError("proxy", wrong, "http://host:port")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,254}", self.index):
            wrong = f"{show(self.index)} is not a valid index name"
            raise InvalidError("index", wrong, "lowercase letters, digits and . _ -")
        for setting, fields in (("headers", self.headers), ("secret_headers", self.secret_headers)):
            for name in fields:
                if name.lower() in _OWN_HEADERS:
                    raise InvalidError(setting, f"sessiond sets {name} itself", "other names")
        for name in self.headers:
            if name.lower() in _SECRET_HEADERS:
                wrong = f"{name} is a secret, but this file is not"
                raise InvalidError("headers", wrong, f"secret_headers: {{{name}: /path/of/file}}")
        for name, file in self.secret_headers.items():
            if not re.fullmatch(r"/[^\0]+|[\w.-]+", file):
                # Not shown: it may be the secret itself.
                wrong = f"the value of {name} is neither a file nor a credential"
                raise InvalidError(
                    "secret_headers", wrong, "absolute paths or names of credentials"
                )

    def parts(self) -> SplitResult:
        """Split the URL; raises InvalidError for an invalid one."""
        return _split_url("url", self.url, "https://host[:port][/path][?query], or http://")


def _split_url(
    setting: str, url: str, allowed: str, schemes: tuple[str, ...] = ("http", "https")
) -> SplitResult:
    if "@" in url.partition("?")[0]:
        wrong = "it contains a user or password, which everybody could read here"
        raise InvalidError(setting, wrong, "a file of secret_headers")
    try:
        parts = urlsplit(url)
        host = parts.hostname
        usable = host and _is_host(host) and parts.port != 0 and not parts.fragment
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[\x21-\x7e]+", url) or parts.scheme not in schemes:
        raise InvalidError(setting, f"{show(url)} is not the URL of a server", allowed)
    return parts


class ConsoleSettings(Section, frozen=True, kw_only=True):
    """Lines go to standard output."""

    enabled: Annotated[bool, _option("false: ignore this section.", live=True)] = True


class SpoolSettings(Section, frozen=True, kw_only=True):
    """Where lines wait on disk while a file, socket or server does not accept them."""

    path: Annotated[
        Path | None,
        _option(
            "The directory; not set: spool in state_directory.",
            example="/var/lib/sessiond/spool",
        ),
    ] = None
    max_size: Annotated[
        Size,
        _option("Maximum size for each output; 0: lines are not spooled.", min=0, max=2**44),
    ] = Size(512 * 2**20)
    drop: Annotated[
        Literal["oldest", "newest"], _option("Which lines are dropped when the spool is full.")
    ] = "oldest"


class OutputSettings(Section, frozen=True, kw_only=True):
    """Where lines go: any of file, socket, http and console. The default is file."""

    kinds: ClassVar[tuple[str, ...]] = ("file", "socket", "http", "console")

    file: FileSettings | None = None
    socket: SocketSettings | None = None
    http: HttpSettings | None = None
    console: ConsoleSettings | None = None
    spool: SpoolSettings = SpoolSettings()
    queue_size: Annotated[
        Size,
        _option(
            "Maximum size of the lines that wait in memory for an output whose spool does not "
            "accept them either, such as on a hanging disk.",
            live=True,
            min=2**20,
            max=2**40,
        ),
    ] = Size(64 * 2**20)

    def __post_init__(self) -> None:
        """Remove disabled outputs; without any output, write to the file."""
        configured = [name for name in self.kinds if getattr(self, name) is not None]
        for name in configured:
            if not getattr(self, name).enabled:
                msgspec.structs.force_setattr(self, name, None)
        if not configured:
            msgspec.structs.force_setattr(self, "file", FileSettings())
        elif all(getattr(self, name) is None for name in self.kinds):
            raise InvalidError(
                "", "every output is disabled", "enable file, socket, http or console"
            )


class RedactSettings(Section, frozen=True, kw_only=True):
    """Secrets on command lines: text that matches a pattern is replaced before it is written."""

    enabled: Annotated[
        bool, _option("Redact arguments, also those of parents and leaders.", live=True)
    ] = False
    shipped_patterns: Annotated[
        bool,
        _option(
            "Use the patterns that come with sessiond (passwords, tokens, URLs with credentials).",
            live=True,
        ),
    ] = True
    patterns: Annotated[
        tuple[str, ...],
        _option(
            "Python regular expressions, searched in the arguments, which are separated by NUL "
            "(\\0). The text of a pattern's groups is replaced, or the whole match if it has none.",
            live=True,
        ),
    ] = ()
    pattern_files: Annotated[
        tuple[str, ...],
        _option(
            "Files with such patterns (absolute paths, * and ? allowed), one per line; # starts a "
            "comment.",
            live=True,
        ),
    ] = ()

    def __post_init__(self) -> None:
        """Refuse invalid regular expressions."""
        for index, pattern in enumerate(self.patterns):
            try:
                re.compile(pattern)
            except (re.error, OverflowError, RecursionError) as error:
                wrong = f"{show(pattern)} is not a valid regular expression: {error}"
                raise InvalidError(f"patterns[{index}]", wrong, "Python's syntax") from None


Relative = Literal["parent", "group_leader", "session_leader", "entry_leader"]


class EventSettings(Section, frozen=True, kw_only=True):
    """What a line holds."""

    event_actions: Annotated[
        Literal["ecs", "auditbeat"],
        _option(
            "Names in event.action: ecs for Session View's (exec, end, ...), or auditbeat for "
            "Auditbeat's (executed, ...).",
            live=True,
        ),
    ] = "ecs"
    host_fields: Annotated[
        Literal["session_view", "full", "minimal"],
        _option(
            "Which host fields each line repeats. session_view: those that Session View shows. "
            "full: all. minimal: only the name, the id and host.os.type.",
            live=True,
        ),
    ] = "session_view"
    relatives: Annotated[
        tuple[Relative, ...],
        _option(
            "Which relatives of a process are written in full. The others have only what the "
            "process tree needs (entity_id, pid, start).",
            live=True,
        ),
    ] = ("parent", "group_leader", "session_leader", "entry_leader")
    processes: Annotated[
        Literal["all", "audited"],
        _option(
            "Which processes are written. all: every exec, setsid and end that an exact source "
            "reports, with or without an audit event. audited: execs and setsids that a rule "
            "covers, and the ends of their processes.",
            live=True,
        ),
    ] = "all"
    exec_failures: Annotated[
        Literal["all", "no_enoent", "none"],
        _option(
            "Which failed execs are written. no_enoent: all but those that found no file, since "
            "every search along PATH causes some. The built-in rules keep the kernel from "
            "recording those that are not wanted. `sessiond replay` writes all.",
            live=True,
        ),
    ] = "no_enoent"
    fork_events: Annotated[
        Literal["needed", "all", "none"] | bool,
        _option(
            "Which forks are written. needed: the fork of each process that an event mentions, as "
            "itself, as parent or as leader, and whose exec was not written, so that no tree has a "
            "gap; this includes processes older than sessiond. all (or true): every fork. none "
            "(or false): no fork.",
            live=True,
        ),
    ] = "needed"
    ancestors: Annotated[
        int,
        _option(
            "How many ancestors of a process are written, nearest first: their ids in "
            "process.Ext.ancestry, pid and executable in sessiond.ancestors; 0: none.",
            live=True,
            ge=0,
            le=20,
        ),
    ] = 5
    inventory: Annotated[
        bool,
        _option(
            "Write each process that is older than the daemon once, as already_running: on or off.",
            live=True,
        ),
    ] = True
    inventory_period: Annotated[
        Duration,
        _option(
            "How often all living processes are written again, for consumers that keep less than "
            "a boot; off (0): never.",
            live=True,
            min=0,
            max=366 * 86400,
        ),
    ] = Duration(0)
    max_args_bytes: Annotated[
        Size,
        _option(
            "Maximum size of a process's written arguments; sessiond.truncated names what was cut.",
            live=True,
            min=256,
            max=4 * 2**20,
        ),
    ] = Size(32 * 2**10)
    max_line_bytes: Annotated[
        Size,
        _option(
            "Maximum size of a line. Consumers have limits; the lowest known is Fluent Bit's 32 "
            "KiB. In a longer line the longest values are cut, those of relatives first, the "
            "process's own arguments last; sessiond.truncated names them.",
            live=True,
            min=8 * 2**10,
            max=16 * 2**20,
        ),
    ] = Size(32 * 2**10)
    fold_under_pressure: Annotated[
        bool,
        _option(
            "While lines come faster than they can be written (every output's queue or spool is "
            "half full, or the tracer loses events): count repeated events of the user with the "
            "most lines, as the filter under-pressure, instead of writing them; false: write all.",
            live=True,
        ),
    ] = True
    chain: Annotated[
        bool,
        _option(
            "Seal each line with an HMAC over itself and the line before it (sessiond.chain), so "
            "that sessiond verify finds lines that were changed, removed or inserted."
        ),
    ] = False
    chain_key: Annotated[
        Path | None,
        _option(
            "The file with the key of the chain, readable only by its owner; not set: the systemd "
            f"credential sessiond.chain, else {CHAIN_KEY}. sessiond verify --new-key creates one.",
            example="/etc/sessiond.chain.key",
        ),
    ] = None
    include_cgroup: Annotated[
        bool, _option("Write the process's control group to sessiond.cgroup.", live=True)
    ] = False
    include_namespaces: Annotated[
        bool, _option("Write the process's namespaces to sessiond.namespaces.", live=True)
    ] = False
    redact: RedactSettings = RedactSettings()


class HostSettings(Section, frozen=True, kw_only=True):
    """Values that replace the host's own in lines: for images and containers.

    Ids of processes and events still derive from the machine id.
    """

    name: Annotated[
        str | None,
        _option("host.name. Not set: the host's own.", live=True, example="web-1"),
    ] = None
    hostname: Annotated[
        str | None,
        _option("host.hostname. Not set: host.name.", live=True, example="web-1.example.org"),
    ] = None
    id: Annotated[
        str | None,
        _option("host.id. Not set: /etc/machine-id.", live=True, example="i-0a1b2c3d"),
    ] = None

    def __post_init__(self) -> None:
        """Refuse an empty text: no field of the output is empty."""
        for name in self.__struct_fields__:
            if getattr(self, name) == "":
                raise InvalidError(name, "'' is empty", "some text, or leave it out")


class LoggingSettings(Section, frozen=True, kw_only=True):
    """The daemon's own log (not the events)."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], _option("The lowest level logged.", live=True)
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "json", "journal"],
        _option(
            "console and json write to standard error; journal writes to the systemd journal, with "
            "fields. auto: journal under systemd, console otherwise."
        ),
    ] = "auto"


class CanarySettings(Section, frozen=True, kw_only=True):
    """A test process, started regularly to prove that audit and the tracer report it.

    Its exec and end are written with sessiond.canary: true, as a heartbeat. If they are missing,
    the daemon is degraded and stops notifying the service manager's watchdog.
    """

    interval: Annotated[
        Duration, _option("How often it is started; 0: never.", live=True, min=0, max=86400)
    ] = Duration(30)
    timeout: Annotated[
        Duration, _option("How soon its events must arrive.", live=True, min=1, max=3600)
    ] = Duration(10)


class StatusSocketSettings(Section, frozen=True, kw_only=True):
    """The unix socket that `sessiond status` and `sessiond ps` connect to."""

    enabled: Annotated[bool, _option("false: no socket.")] = True
    path: Annotated[
        Path | None,
        _option(
            "The socket; not set: status.sock in runtime_directory.",
            example="/run/sessiond/status.sock",
        ),
    ] = None
    mode: Annotated[
        Mode,
        _option(
            "The socket's permissions. A client that they admit must also be root, the owner, the "
            "daemon's user or a member of the group."
        ),
    ] = Mode(0o660)
    owner: Annotated[
        str | int | None, _option(f"The socket's owner. {_OWNER_HELP}", example="root")
    ] = None
    group: Annotated[
        str | int | None,
        _option(
            "The group whose members may connect; the daemon must be a member or root. Not set: "
            "no group.",
            example="sessiond",
        ),
    ] = None


class Config(Section, frozen=True, kw_only=True):
    """The whole configuration; ``Config()`` holds the built-in defaults."""

    auditd: AuditdSettings = AuditdSettings()
    session_metadata: SessionMetadataSettings = SessionMetadataSettings()
    output: OutputSettings = OutputSettings()
    event: EventSettings = EventSettings()
    logging: LoggingSettings = LoggingSettings()
    status_socket: StatusSocketSettings = StatusSocketSettings()
    canary: CanarySettings = CanarySettings()
    host: HostSettings = HostSettings()
    labels: Annotated[
        Labels,
        _option("Added to every line, as labels.NAME.", live=True, example="{env: prod}"),
    ] = Labels()
    tags: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        _option(
            "Added to every line, in tags, after the keys of audit rules.",
            live=True,
            example="[production]",
        ),
    ] = ()
    filters: Annotated[
        Filters,
        _option(
            "Which events are dropped, folded or labelled: the first filter whose conditions all "
            "hold decides. docs/filters.md has the conditions and recipes; `sessiond check` names "
            "filters that an ordinary user can hide behind.",
            live=True,
            example="""
  - {name: checks, when: {ancestor.name: zabbix_agentd, process.user.name: zabbix}, then: drop}
  - {name: probes, when: {process.args: "*/healthz*", systemd.unit: web.service}, then: fold}
  - {when: {systemd.unit: backup*.service}, then: {labels: {job: backup}, tags: [batch]}}""",
        ),
    ] = Filters()
    state_directory: Annotated[
        Path, _option("The directory for data that outlives a reboot: the spool.")
    ] = Path("/var/lib/sessiond")
    runtime_directory: Annotated[
        Path, _option("The directory for data of this boot: the status socket, the saved state.")
    ] = Path("/run/sessiond")

    def __post_init__(self) -> None:
        """Refuse a configuration without any source of events."""
        backend = self.session_metadata.backend
        if not self.auditd.enabled and backend == "procfs":
            wrong = "procfs alone reports no exec, and auditd.enabled is false"
            raise InvalidError("session_metadata.backend", wrong, "auto, ebpf, proc_connector")

    @property
    def spool_path(self) -> Path:
        """The spool's directory, the default filled in."""
        return self.output.spool.path or self.state_directory / "spool"

    @property
    def status_socket_path(self) -> Path:
        """The status socket, the default filled in."""
        return self.status_socket.path or self.runtime_directory / "status.sock"
