"""Every setting of the configuration, declared once: type, default, bounds, help, and what is live.

From these declarations come the validation, the error messages, the listing of all settings and
the shipped ``etc/sessiond.yml``; :mod:`sessiond.config.load` does all that. Pure.
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
    help: str,  # noqa: A002 - that is what it is
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
    of values. ``allowed`` says what is allowed where the type alone doesn't. ``example`` is YAML,
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
    """How records are put together to events."""

    max_in_flight: Annotated[
        int,
        _option(
            "How many audit events may be incomplete at once; the oldest is closed as it is when "
            "there are more.",
            live=True,
            ge=1,
            le=65536,
        ),
    ] = 8192
    timeout: Annotated[
        Duration,
        _option(
            "How long an audit event may wait for its last record.", live=True, min=0.01, max=60
        ),
    ] = Duration(2)


# Where the key of event.chain is, unless configured otherwise.
CHAIN_KEY: Final = Path("/etc/sessiond.chain.key")


class AuditdSettings(Section, frozen=True, kw_only=True):
    """The kernel's audit system: how to listen to it, and what it shall record."""

    enabled: Annotated[
        bool,
        _option(
            "false: leave audit alone altogether, no socket, no rules. Each exec, setsid and end "
            "comes from the tracer, without the price of rules for the host; missing is what only "
            "audit tells: logins, failed execs, whatever rules record. Needs the backend ebpf or "
            "proc_connector."
        ),
    ] = True
    socket_type: Annotated[
        Literal["unicast", "multicast", "auto"],
        _option(
            "unicast: be the host's audit daemon; the kernel keeps records for us while we are "
            "slow or restarting. multicast: listen beside another audit daemon; the rules are "
            "that daemon's, and what we are too slow for is lost (and counted). auto: unicast, "
            "unless a healthy audit daemon is registered."
        ),
    ] = "auto"
    audit_rules: Annotated[
        str | None,
        _option(
            "Audit rules as text, one a line, in auditctl's language. When neither this nor "
            "audit_rule_files is given, built-in rules record execve, execveat, exit_group and "
            "setsid. Rules that were loaded by others are never touched.",
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
            "Skip rules that are wrong or refused by the kernel, with a warning, instead of "
            "stopping (auditctl -i).",
            live=True,
        ),
    ] = False
    immutable: Annotated[
        bool,
        _option(
            "Lock the audit configuration until the next boot once the rules are loaded "
            "(auditctl -e 2). Our rules then stay when we leave. Not with multicast."
        ),
    ] = False
    failure_mode: Annotated[
        Literal["silent", "log", "panic"],
        _option(
            "What the kernel does when it loses a record: nothing, a line in the kernel log, or "
            "halt the machine.",
            live=True,
        ),
    ] = "silent"
    backlog_limit: Annotated[
        int,
        _option(
            "How many records the kernel keeps for us before it loses some.",
            live=True,
            ge=1,
            le=2**32 - 1,
        ),
    ] = 8192
    backlog_wait_time: Annotated[
        int,
        _option(
            "How long (kernel ticks, as in auditctl --backlog_wait_time) the host's processes are "
            "made to wait when the kernel's backlog is full. 0: never, records are lost instead; "
            "the host comes first.",
            live=True,
            ge=0,
            le=2**31 - 1,
        ),
    ] = 0
    rate_limit: Annotated[
        int,
        _option(
            "Most records a second that the kernel makes; 0: no limit.",
            live=True,
            ge=0,
            le=2**32 - 1,
        ),
    ] = 0
    backpressure_strategy: Annotated[
        Literal["kernel", "userspace", "both", "none", "auto"],
        _option(
            "What gives way when records come faster than they can be handled. kernel: never "
            "make processes wait (wait time 0), the kernel drops. userspace: we drop. both: both. "
            "none: nobody drops, backlog_wait_time applies and processes wait. auto: kernel "
            "where it can, else userspace.",
            live=True,
            aliases={"user-space": "userspace", "default": "auto"},
        ),
    ] = "auto"
    resolve_ids: Annotated[
        bool, _option("Add the names of users and groups to their ids.", live=True)
    ] = True
    include_raw_message: Annotated[
        bool,
        _option("Keep the text of the records in auditd.messages and event.original.", live=True),
    ] = False
    include_warnings: Annotated[
        bool, _option("Tell in auditd.warnings what could not be parsed.", live=True)
    ] = False
    reconcile: Annotated[
        bool,
        _option(
            "Put back what of our rules and settings somebody else changes while we run, and take "
            "our place again; at most five times a minute each. false: only tell.",
            live=True,
        ),
    ] = True
    keep_rules_on_exit: Annotated[
        bool, _option("Leave our rules in the kernel when we end.", live=True)
    ] = False
    receive_buffer: Annotated[
        Size,
        _option(
            "Size of the audit socket's receive buffer: what gathers here while we restart is not "
            "lost. Above net.core.rmem_max it needs CAP_NET_ADMIN.",
            min=64 * 2**10,
            max=2**30,
        ),
    ] = Size(64 * 2**20)
    reassembler: ReassemblerSettings = ReassemblerSettings()

    def __post_init__(self) -> None:
        """Refuse what the kernel can't do together."""
        if self.socket_type != "multicast":
            return
        for name, given in (
            ("audit_rules", self.audit_rules is not None),
            ("audit_rule_files", bool(self.audit_rule_files)),
            ("immutable", self.immutable),
        ):
            if given:
                wrong = "can't be used with socket_type multicast, where another daemon's rules are"
                raise InvalidError(name, wrong, "leave it out, or socket_type unicast or auto")


class SessionMetadataSettings(Section, frozen=True, kw_only=True):
    """Where processes, parents, sessions and ends are learned from."""

    backend: Annotated[
        Literal["auto", "ebpf", "proc_connector", "procfs"],
        _option(
            "ebpf: every fork, exec and exit, exact and cheap. proc_connector: every one too, with "
            "details read from /proc, late for short-lived processes. procfs: snapshots only. "
            "auto: the best that this host allows, in that order.",
            aliases={"kernel_tracing": "ebpf", "modern": "ebpf"},
        ),
    ] = "auto"
    fallback: Annotated[
        bool,
        _option("When the backend can't be had, go on with the next one and say so; false: stop."),
    ] = True
    max_processes: Annotated[
        int,
        _option(
            "Most processes remembered, the ended ones that others still refer to included. "
            "Beyond it, ended ones that nobody refers to go first, then the longest ended.",
            ge=1024,
            le=2**22,
        ),
    ] = 131072
    max_memory: Annotated[
        Size,
        _option(
            "About how much memory the process table may take, besides 1 KB for each living "
            "process. Beyond it, what is known of a process is cut, in this order: argument lists "
            "of earlier programs, of ended processes, of the least recently active ones; then "
            "ended processes are forgotten. Events tell what is cut.",
            min=8 * 2**20,
            max=2**36,
        ),
    ] = Size(64 * 2**20)
    ring_buffer: Annotated[
        Size,
        _option(
            "Size of the eBPF ring buffer; a power of two. It holds what happens while sessiond "
            "starts again: 8 MiB are some 5,000 processes.",
            min=64 * 2**10,
            max=2**30,
        ),
    ] = Size(8 * 2**20)
    args_limit: Annotated[
        Size,
        _option(
            "Most bytes of a program's arguments that the tracer reads (256 while more than 1 "
            "MiB of its ring buffer are not read yet); the audit records have all of them.",
            min=256,
            max=32 * 2**10,
        ),
    ] = Size(4 * 2**10)

    def __post_init__(self) -> None:
        """Refuse a ring size that the kernel would refuse."""
        if self.ring_buffer & (self.ring_buffer - 1):
            wrong = f"{show(self.ring_buffer)} is not a power of two"
            raise InvalidError("ring_buffer", wrong, "64KiB, 128KiB, ... 8MiB, 16MiB, ... 1GiB")


_OWNER_HELP = "A name or a numeric id; not set: that of the daemon."


class RotateSettings(Section, frozen=True, kw_only=True):
    """When a new file is begun, and what happens to the old ones."""

    size: Annotated[
        Size,
        _option(
            "Begin a new file before this one gets larger; 0: never. Sizes are written as 10MB "
            "(10,000,000) or 10MiB (10,485,760).",
            live=True,
            min=0,
            max=2**40,
        ),
    ] = Size(100 * 2**20)
    interval: Annotated[
        Duration,
        _option(
            "Begin a new file this long after the last; 0: never. Durations are written as 500ms, "
            "2s, 10m, 1h30m or 7d.",
            live=True,
            min=0,
            max=366 * 86400,
        ),
    ] = Duration(0)
    keep: Annotated[int, _option("How many old files are kept.", live=True, ge=0, le=10000)] = 7
    min_age: Annotated[
        Duration,
        _option(
            "Files whose last line is younger are kept as well: a flood of lines does not push out "
            "the lines before it. Where the disk is full then, lines wait in the spool.",
            live=True,
            min=0,
            max=366 * 86400,
        ),
    ] = Duration(3600)
    compress: Annotated[
        Literal["zstd", "gzip", "none"],
        _option(
            "How old files are compressed, all but the last. zstd makes half as many bytes as gzip "
            "in an eighth of the time; where Python has no library for it (python3-zstandard), "
            "gzip is used, and the log says so.",
            live=True,
            aliases={True: "gzip", False: "none"},
        ),
    ] = "zstd"


class FileSettings(Section, frozen=True, kw_only=True):
    """Lines go to a file. It is opened anew on SIGHUP, for logrotate."""

    enabled: Annotated[bool, _option("false: as if this section were not there.", live=True)] = True
    path: Annotated[Path, _option("The file.", live=True)] = Path("/var/log/sessiond/events.ndjson")
    mode: Annotated[Mode, _option("The file's permissions.", live=True)] = Mode(0o600)
    owner: Annotated[
        str | int | None, _option(f"The file's owner. {_OWNER_HELP}", live=True, example="root")
    ] = None
    group: Annotated[
        str | int | None, _option(f"The file's group. {_OWNER_HELP}", live=True, example="adm")
    ] = None
    rotate: RotateSettings = RotateSettings()


class BackoffSettings(Section, frozen=True, kw_only=True):
    """How long to wait before connecting again."""

    init: Annotated[
        Duration, _option("The first wait; it doubles each time.", live=True, min=0.01, max=3600)
    ] = Duration(0.1)
    max: Annotated[Duration, _option("The longest wait.", live=True, min=0.01, max=86400)] = (
        Duration(10)
    )

    def __post_init__(self) -> None:
        """Refuse a first wait above the longest."""
        if self.init > self.max:
            wrong = f"init ({show(self.init)}) is longer than max ({show(self.max)})"
            raise InvalidError("", wrong, "init at most as long as max")


class TlsFiles(Section, frozen=True, kw_only=True):
    """The server is checked, TLS 1.2 or later; files for that and for who we are."""

    ca: Annotated[
        Path | None,
        _option(
            "File with the certificates of the authorities that are believed; none: the host's.",
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
            "File with the client's private key; none: it is in the certificate's file.",
            live=True,
            example="/etc/sessiond/tls.key",
        ),
    ] = None
    server_name: Annotated[
        str | None,
        _option(
            "The name in the server's certificate, where it is not the address's.",
            live=True,
            example="logs.example.org",
        ),
    ] = None


class TlsSettings(TlsFiles, frozen=True, kw_only=True):
    """Lines over tcp are encrypted, and the server is checked: TLS 1.2 or later."""

    enabled: Annotated[
        bool, _option("Encrypt; only for type tcp. Otherwise lines go in the clear.", live=True)
    ] = False


class SocketSettings(Section, frozen=True, kw_only=True):
    """Lines go to a reader that listens; sessiond connects, and connects again."""

    enabled: Annotated[bool, _option("false: as if this section were not there.", live=True)] = True
    type: Annotated[
        Literal["unix_stream", "unix_datagram", "tcp"],
        _option("unix_datagram: one datagram is one line.", live=True),
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
            wrong = f"{show(self.address)} is no address of a {self.type} socket"
            raise InvalidError("address", wrong, "an absolute path or @name, of at most 107 bytes")

    def host_and_port(self) -> tuple[str, int]:
        """Split a tcp address; raises ValueError when it is none."""
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:\[\]/]+)):(\d{1,5})", self.address)
        if match is None or not 0 < int(match[3]) < 65536:
            wrong = f"{show(self.address)} is no address of a tcp socket"
            raise InvalidError("address", wrong, "host:port, such as localhost:5044")
        return match[1] or match[2], int(match[3])


class HttpBackoffSettings(BackoffSettings, frozen=True, kw_only=True):
    """How long to wait before a request is tried again; a server may ask for more."""

    init: Annotated[
        Duration, _option("The first wait; it doubles each time.", live=True, min=0.01, max=3600)
    ] = Duration(1)
    max: Annotated[Duration, _option("The longest wait.", live=True, min=0.01, max=86400)] = (
        Duration(60)
    )


class HttpBatchSettings(Section, frozen=True, kw_only=True):
    """How many lines go into one request."""

    max_size: Annotated[
        Size,
        _option(
            "Most bytes of lines in a request, before compression; a longer line goes alone. Twice "
            "as much may be in memory.",
            live=True,
            min=2**12,
            max=64 * 2**20,
        ),
    ] = Size(2**20)
    interval: Annotated[
        Duration,
        _option("How long a line may wait for others.", live=True, min=0.01, max=60),
    ] = Duration(1)


_OWN_HEADERS: Final = ("content-encoding", "content-length", "host", "transfer-encoding")
_SECRET_HEADERS: Final = ("authorization", "cookie", "proxy-authorization")


class HttpSettings(Section, frozen=True, kw_only=True):
    """Lines go to a server by POST, many in one request; what it does not take waits in the spool.

    docs/outputs.md has an example for each preset.
    """

    enabled: Annotated[bool, _option("false: as if this section were not there.", live=True)] = True
    url: Annotated[
        str,
        _option(
            "Where to. Without a path, that of the preset. Redirects are not followed. No key in "
            "it: see secret_headers.",
            live=True,
            allowed="https://host[:port][/path][?query], or http://",
            example="https://elastic.example.org:9200",
        ),
    ]
    preset: Annotated[
        Literal["elasticsearch", "ndjson", "splunk_hec", "loki", "otlp"],
        _option(
            "What the server understands. elasticsearch: OpenSearch as well, by _bulk; event.id "
            "is the document's id, so that no event is there twice. ndjson: the lines as they are "
            "(ClickHouse, Vector, Logstash). splunk_hec, loki, otlp: each line as an event there.",
            live=True,
        ),
    ] = "ndjson"
    index: Annotated[
        str,
        _option(
            "Elasticsearch's data stream or index.",
            live=True,
            allowed="small letters, digits and . _ -, such as logs-sessiond.process-default",
        ),
    ] = "logs-sessiond.process-default"
    compression: Annotated[
        Literal["gzip", "zstd", "none"],
        _option(
            "zstd takes less time and gets smaller, where the server knows it (ClickHouse, Vector, "
            "OpenTelemetry's collector).",
            live=True,
        ),
    ] = "gzip"
    headers: Annotated[
        Headers,
        _option("Header fields of each request.", live=True, example="{X-Scope-OrgID: hosts}"),
    ] = Headers()
    secret_headers: Annotated[
        Headers,
        _option(
            "Header fields whose values are secret: name and file (readable by its owner alone), "
            "or name and systemd credential. Each holds one line, such as: ApiKey VnVhQ2ZH. They "
            "are read for each connection.",
            live=True,
            allowed="names of header fields, each with an absolute path or a credential's name",
            example="{Authorization: /etc/sessiond.http.key}",
        ),
    ] = Headers()
    proxy: Annotated[
        str | None,
        _option(
            "The proxy on the way; not set: none, whatever the environment says. A field "
            "Proxy-Authorization in secret_headers is for it alone.",
            live=True,
            allowed="http://host:port",
            example="http://proxy.example.org:3128",
        ),
    ] = None
    timeout: Annotated[
        Duration,
        _option(
            "How long a request may take, until the whole answer is there.",
            live=True,
            min=1,
            max=600,
        ),
    ] = Duration(30)
    refused_max_size: Annotated[
        Size,
        _option(
            "Lines that the server refuses for good go to http.refused.ndjson in the spool's "
            "directory, with the reason; most bytes of it, the oldest half goes first. 0: none.",
            live=True,
            min=0,
            max=2**40,
        ),
    ] = Size(16 * 2**20)
    batch: HttpBatchSettings = HttpBatchSettings()
    backoff: HttpBackoffSettings = HttpBackoffSettings()
    tls: TlsFiles = TlsFiles()

    def __post_init__(self) -> None:
        """Refuse what is no URL, and secrets where everybody can read them."""
        self.parts()
        if self.proxy is not None:
            proxy = _split_url("proxy", self.proxy, "http://host:port", schemes=("http",))
            if proxy.port is None or proxy.path.strip("/") or proxy.query:
                wrong = f"{show(self.proxy)} is no address of a proxy"
                raise InvalidError("proxy", wrong, "http://host:port")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,254}", self.index):
            wrong = f"{show(self.index)} is no name of an index"
            raise InvalidError("index", wrong, "small letters, digits and . _ -")
        for setting, fields in (("headers", self.headers), ("secret_headers", self.secret_headers)):
            for name in fields:
                if name.lower() in _OWN_HEADERS:
                    raise InvalidError(setting, f"{name} is made by sessiond", "other names")
        for name in self.headers:
            if name.lower() in _SECRET_HEADERS:
                wrong = f"{name} is a secret, and this file is none"
                raise InvalidError("headers", wrong, f"secret_headers: {{{name}: /path/of/file}}")
        for name, file in self.secret_headers.items():
            if not re.fullmatch(r"/[^\0]+|[\w.-]+", file):
                # Not shown: it may be the secret itself.
                wrong = f"what {name} has is neither a file nor a credential"
                raise InvalidError("secret_headers", wrong, "absolute paths, or credentials' names")

    def parts(self) -> SplitResult:
        """Take the URL apart; raises ValueError when it is none."""
        return _split_url("url", self.url, "https://host[:port][/path][?query], or http://")


def _split_url(
    setting: str, url: str, allowed: str, schemes: tuple[str, ...] = ("http", "https")
) -> SplitResult:
    if "@" in url.partition("?")[0]:
        wrong = "there is a user or a password in it, which everybody could read here"
        raise InvalidError(setting, wrong, "a file of secret_headers")
    try:
        parts = urlsplit(url)
        usable = parts.hostname and parts.port != 0 and not parts.fragment
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[\x21-\x7e]+", url) or parts.scheme not in schemes:
        raise InvalidError(setting, f"{show(url)} is no URL of a server", allowed)
    return parts


class ConsoleSettings(Section, frozen=True, kw_only=True):
    """Lines go to standard output."""

    enabled: Annotated[bool, _option("false: as if this section were not there.", live=True)] = True


class SpoolSettings(Section, frozen=True, kw_only=True):
    """Where lines wait on disk while a file, socket or server can't take them."""

    path: Annotated[
        Path | None,
        _option(
            "The directory. Not set: spool in state_directory.",
            example="/var/lib/sessiond/spool",
        ),
    ] = None
    max_size: Annotated[
        Size,
        _option("Most bytes kept for an output; 0: nothing is kept on disk.", min=0, max=2**44),
    ] = Size(512 * 2**20)
    drop: Annotated[
        Literal["oldest", "newest"], _option("Which lines go when the spool is full.")
    ] = "oldest"


class OutputSettings(Section, frozen=True, kw_only=True):
    """Where the lines go: any of file, socket, http and console. With none of them: to the file."""

    kinds: ClassVar[tuple[str, ...]] = ("file", "socket", "http", "console")

    file: FileSettings | None = None
    socket: SocketSettings | None = None
    http: HttpSettings | None = None
    console: ConsoleSettings | None = None
    spool: SpoolSettings = SpoolSettings()
    queue_size: Annotated[
        Size,
        _option(
            "Most bytes that wait in memory for an output that takes nothing, not even into its "
            "spool: a disk that hangs.",
            live=True,
            min=2**20,
            max=2**40,
        ),
    ] = Size(64 * 2**20)

    def __post_init__(self) -> None:
        """Drop what is not enabled; without any output, write the file."""
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
    """Secrets on command lines: what the patterns find is replaced before it is written."""

    enabled: Annotated[
        bool, _option("Redact arguments, those of parents and leaders too.", live=True)
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
            "Regular expressions (Python's) searched in the arguments, which are parted by NUL "
            "(\\0); what their groups match is replaced, all that matched where there is none.",
            live=True,
        ),
    ] = ()
    pattern_files: Annotated[
        tuple[str, ...],
        _option(
            "Files with such patterns (absolute paths, * and ? allowed), one a line, # begins a "
            "comment.",
            live=True,
        ),
    ] = ()

    def __post_init__(self) -> None:
        """Refuse what is no regular expression."""
        for index, pattern in enumerate(self.patterns):
            try:
                re.compile(pattern)
            except (re.error, OverflowError, RecursionError) as error:
                wrong = f"{show(pattern)} is no regular expression: {error}"
                raise InvalidError(f"patterns[{index}]", wrong, "Python's syntax") from None


Relative = Literal["parent", "group_leader", "session_leader", "entry_leader"]


class EventSettings(Section, frozen=True, kw_only=True):
    """What a line holds."""

    event_actions: Annotated[
        Literal["ecs", "auditbeat"],
        _option(
            "Names in event.action: exec, end, ... as Session View has them, or Auditbeat's "
            "(executed, ...).",
            live=True,
        ),
    ] = "ecs"
    host_fields: Annotated[
        Literal["session_view", "full", "minimal"],
        _option(
            "How much of the host each line repeats: what Session View shows, everything, or its "
            "name, its id and the type of its system alone.",
            live=True,
        ),
    ] = "session_view"
    relatives: Annotated[
        tuple[Relative, ...],
        _option(
            "Which relatives of a process are written in full; the others are reduced to what the "
            "process tree needs (entity_id, pid, start).",
            live=True,
        ),
    ] = ("parent", "group_leader", "session_leader", "entry_leader")
    processes: Annotated[
        Literal["all", "audited"],
        _option(
            "Which processes are told. all: every exec, setsid and end that an exact source sees, "
            "whether or not audit tells of it. audited: execs and setsids that a rule covers, and "
            "the ends of their processes.",
            live=True,
        ),
    ] = "all"
    exec_failures: Annotated[
        Literal["all", "no_enoent", "none"],
        _option(
            "Which failed execs are told. no_enoent: not those that found no file, of which every "
            "search along PATH makes some. With the built-in rules the kernel makes no records of "
            "what is left out. `sessiond replay` tells all.",
            live=True,
        ),
    ] = "no_enoent"
    fork_events: Annotated[
        Literal["needed", "all", "none"] | bool,
        _option(
            "Which forks are told. needed: that of a process which an event speaks of, as itself, "
            "as parent or as leader, and whose exec was not told, so that no tree has a gap; also "
            "of processes that are older than sessiond. all (or true): every fork. none (or "
            "false): no fork.",
            live=True,
        ),
    ] = "needed"
    ancestors: Annotated[
        int,
        _option(
            "How many of the processes above a process are told, the nearest first: their ids in "
            "process.Ext.ancestry, pid and executable in sessiond.ancestors; 0: none.",
            live=True,
            ge=0,
            le=20,
        ),
    ] = 5
    inventory: Annotated[
        bool,
        _option(
            "Tell each process that is older than the daemon once, as already_running: on or off.",
            live=True,
        ),
    ] = True
    inventory_period: Annotated[
        Duration,
        _option(
            "Tell all living processes again this often, for consumers that keep less than a boot; "
            "off (0): never.",
            live=True,
            min=0,
            max=366 * 86400,
        ),
    ] = Duration(0)
    max_args_bytes: Annotated[
        Size,
        _option(
            "Most bytes of a process's arguments that are written; what is cut is told in "
            "sessiond.truncated.",
            live=True,
            min=256,
            max=4 * 2**20,
        ),
    ] = Size(32 * 2**10)
    max_line_bytes: Annotated[
        Size,
        _option(
            "Most bytes of a line: what its readers take (Fluent Bit's 32 KiB are the least). Of a "
            "longer one the longest values are cut, those of relatives first, the process's own "
            "arguments last; sessiond.truncated names them.",
            live=True,
            min=8 * 2**10,
            max=16 * 2**20,
        ),
    ] = Size(32 * 2**10)
    chain: Annotated[
        bool,
        _option(
            "Seal each line with an HMAC over itself and the line before it (sessiond.chain), so "
            "that sessiond verify finds lines that were changed, taken out or put in."
        ),
    ] = False
    chain_key: Annotated[
        Path | None,
        _option(
            "The file with the key for that, readable by its owner alone; not set: systemd's "
            f"credential sessiond.chain, else {CHAIN_KEY}. sessiond verify --new-key makes one.",
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
    """What lines say of the host instead of what it says of itself: for images and containers.

    Ids of processes and events are made from the machine's own id all the same.
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
        _option("host.id. Not set: that of /etc/machine-id.", live=True, example="i-0a1b2c3d"),
    ] = None

    def __post_init__(self) -> None:
        """Refuse an empty text: no field is empty."""
        for name in self.__struct_fields__:
            if getattr(self, name) == "":
                raise InvalidError(name, "'' is empty", "some text, or leave it out")


class LoggingSettings(Section, frozen=True, kw_only=True):
    """The daemon's own log (not the events)."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], _option("The least that is told.", live=True)
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "json", "journal"],
        _option(
            "console and json go to standard error; journal goes to systemd's with fields. auto: "
            "journal under systemd, console otherwise."
        ),
    ] = "auto"


class CanarySettings(Section, frozen=True, kw_only=True):
    """A process started from time to time, to see it come back through audit and the tracer.

    Its exec and end are written with sessiond.canary: true, as a heartbeat. One that does not come
    back is a health problem, and the service manager's watchdog is no longer fed.
    """

    interval: Annotated[
        Duration, _option("How often one is started; 0: never.", live=True, min=0, max=86400)
    ] = Duration(30)
    timeout: Annotated[
        Duration, _option("How long it may take to come back.", live=True, min=1, max=3600)
    ] = Duration(10)


class StatusSocketSettings(Section, frozen=True, kw_only=True):
    """The unix socket that `sessiond status` asks."""

    enabled: Annotated[bool, _option("false: nobody can ask.")] = True
    path: Annotated[
        Path | None,
        _option(
            "The socket. Not set: status.sock in runtime_directory.",
            example="/run/sessiond/status.sock",
        ),
    ] = None
    mode: Annotated[
        Mode,
        _option(
            "The socket's permissions. Whoever they let in must also be root, the owner, the "
            "daemon's user or in the group."
        ),
    ] = Mode(0o660)
    owner: Annotated[
        str | int | None, _option(f"The socket's owner. {_OWNER_HELP}", example="root")
    ] = None
    group: Annotated[
        str | int | None,
        _option(
            "The group whose members may ask; the daemon must be in it, or be root. Not set: "
            "none may.",
            example="sessiond",
        ),
    ] = None


class Config(Section, frozen=True, kw_only=True):
    """The whole configuration; ``Config()`` is the built-in defaults."""

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
        _option("Written to every line, as labels.NAME.", live=True, example="{env: prod}"),
    ] = Labels()
    tags: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        _option(
            "Written to every line, in tags, after the keys of the audit rules.",
            live=True,
            example="[production]",
        ),
    ] = ()
    filters: Annotated[
        Filters,
        _option(
            "What is left out, folded or labelled: the first whose conditions all hold decides. "
            "docs/filters.md has the conditions and recipes; `sessiond check` says which of them "
            "an ordinary user can hide behind.",
            live=True,
            example="""
  - {name: checks, when: {ancestor.name: zabbix_agentd, process.user.name: zabbix}, then: drop}
  - {name: probes, when: {process.args: "*/healthz*", systemd.unit: web.service}, then: fold}
  - {when: {systemd.unit: backup*.service}, then: {labels: {job: backup}, tags: [batch]}}""",
        ),
    ] = Filters()
    state_directory: Annotated[
        Path, _option("What must outlive a restart: the spool, the state of the process table.")
    ] = Path("/var/lib/sessiond")
    runtime_directory: Annotated[
        Path, _option("What must not outlive a boot: the status socket.")
    ] = Path("/run/sessiond")

    def __post_init__(self) -> None:
        """Refuse to listen to nothing at all."""
        backend = self.session_metadata.backend
        if not self.auditd.enabled and backend == "procfs":
            wrong = "procfs tells of no exec by itself, and auditd.enabled is false"
            raise InvalidError("session_metadata.backend", wrong, "auto, ebpf, proc_connector")

    @property
    def spool_path(self) -> Path:
        """The spool's directory, the default filled in."""
        return self.output.spool.path or self.state_directory / "spool"

    @property
    def status_socket_path(self) -> Path:
        """The status socket, the default filled in."""
        return self.status_socket.path or self.runtime_directory / "status.sock"
