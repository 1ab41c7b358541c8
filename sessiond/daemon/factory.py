"""Builds pipelines and outputs from the configuration.

The daemon, ``replay`` and the tests all get their pipeline here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog

from sessiond.audit import kernel_names
from sessiond.audit.auditd_log import EnrichedNames
from sessiond.config.load import expand, group_id, user_id
from sessiond.config.quantities import Size, show
from sessiond.config.schema import (
    CHAIN_KEY,
    Config,
    EventSettings,
    HttpSettings,
    OutputSettings,
    RedactSettings,
    SocketSettings,
    TlsFiles,
    TlsSettings,
)
from sessiond.ecs import audit_event, redaction
from sessiond.ecs.audit_cache import AuditEventCache
from sessiond.ecs.audit_event import AuditEventEncoder
from sessiond.ecs.chain import MIN_KEY, LineChain
from sessiond.ecs.line import DocumentEncoder
from sessiond.ecs.process import NameLookup as ProcessNames
from sessiond.ecs.process import ProcessEncoder
from sessiond.ecs.redaction import Redactor, read_patterns
from sessiond.ecs.wall_clock import WallClock
from sessiond.errors import ConfigError
from sessiond.output.console import ConsoleOutput
from sessiond.output.datagram import DatagramOutput
from sessiond.output.delivery import Delivery
from sessiond.output.file import FileOutput
from sessiond.output.http_formats import Format, target
from sessiond.output.refused import RefusedLines
from sessiond.output.rotation import NO_ZSTD, NO_ZSTD_FIX
from sessiond.output.sink import Sink
from sessiond.output.spool import Spool
from sessiond.output.stream import StreamOutput
from sessiond.output.thread import OutputThread
from sessiond.pipeline.event_writer import Encoders
from sessiond.pipeline.pipeline import Pipeline, PipelineOptions
from sessiond.process import container, systemd_unit
from sessiond.process.entity_id import identifier
from sessiond.process.table import ProcessTable
from sessiond.system.account_names import AccountNames, NoAccountNames
from sessiond.system.files import read_trusted
from sessiond.system.host import HostFacts
from sessiond.system.secret import credential, read_key, read_secret
from sessiond.units import SECOND

if TYPE_CHECKING:
    from sessiond.output.tls import ClientTls

log = structlog.get_logger()

# The host and boot ids in events made from a log, which does not contain them.
_OFFLINE: Final = ("log", "log")
# Room in a line for a larger event.sequence.
_NUMBER_DIGITS: Final = 16

_NO_RULES: Final[Mapping[str, frozenset[bytes]]] = {}
_SHIPPED_PATTERNS: Final = Path(redaction.__file__).with_name("redact.patterns")


def names(config: Config) -> AccountNames | NoAccountNames:
    """Return the source of user and group names."""
    return AccountNames() if config.auditd.resolve_ids else NoAccountNames()


def live_pipeline(
    config: Config,
    names: AccountNames | NoAccountNames,
    host: HostFacts,
    *,
    clock: WallClock,
    source: str,
    exact: bool,
    audited: frozenset[str],
    always_audited: frozenset[str],
    audit_is_silent: bool,
    dropped_by_kernel: Mapping[str, frozenset[bytes]] = _NO_RULES,
) -> Pipeline:
    """Make the daemon's pipeline.

    ``clock`` gives dates; ``source`` names the source of process events and ``exact`` says whether
    it reports all of them; ``audited`` are the system calls that the loaded rules can record,
    ``always_audited`` those that they record for every process but those that never rules of the
    filters ``dropped_by_kernel`` leave out; ``audit_is_silent`` says that there will be no audit
    events.
    """
    options = PipelineOptions(
        source=source,
        exact=exact,
        audited=audited,
        always_audited=always_audited,
        audit_is_silent=audit_is_silent,
        dropped_by_kernel=dropped_by_kernel,
        event=config.event,
        filters=config.filters,
        assembler_timeout=int(config.auditd.reassembler.timeout * SECOND),
        max_in_flight=config.auditd.reassembler.max_in_flight,
        max_memory=config.session_metadata.max_memory,
    )
    return _pipeline(
        config,
        options,
        names,
        machine_and_boot=(host.id, host.boot_id),
        clock=clock,
        host_block=_host_block(config, host),
    )


def offline_pipeline(
    config: Config, names: EnrichedNames, *, node: str = "", machine: str = "", boot: str = ""
) -> Pipeline:
    """Make the pipeline of ``replay`` for one boot of one host, as named in the log.

    Its lines contain no data of this host. It writes every failed exec, because logs are usually
    replayed after an incident.
    """
    options = PipelineOptions(
        source="auditd",
        exact=False,
        event=msgspec.structs.replace(
            config.event,
            exec_failures="all",
            # Blocks of lines are numbered from 1, and then again when they are put together.
            max_line_bytes=Size(config.event.max_line_bytes - _NUMBER_DIGITS),
        ),
        filters=config.filters,
        assembler_timeout=int(config.auditd.reassembler.timeout * SECOND),
        max_memory=config.session_metadata.max_memory,
        replay=True,
    )
    host: dict[str, Any] = {"name": node, "hostname": node} if node else {}
    host |= {"id": machine} if machine else {}
    host |= {"boot": {"id": boot}} if machine and boot else {}
    host["os"] = {"type": "linux"}
    return _pipeline(
        config,
        options,
        names,
        machine_and_boot=(machine + node or _OFFLINE[0], boot or _OFFLINE[1]),
        clock=WallClock.constant(0),
        host_block=host,
        log_names=names,
    )


def encode_live(
    pipeline: Pipeline,
    config: Config,
    names: AccountNames | NoAccountNames,
    host: HostFacts,
    *,
    clock: WallClock,
) -> None:
    """Apply another configuration to the lines of the daemon's pipeline."""
    pipeline.encode_with(
        _encoders(
            config,
            names,
            machine_and_boot=(host.id, host.boot_id),
            clock=clock,
            host_block=_host_block(config, host),
        )
    )


def _host_block(config: Config, host: HostFacts) -> dict[str, Any]:
    """Return the ``host`` object of every line, with the configured replacements."""
    block = host.block(config.event.host_fields)
    named = config.host
    if named.name is not None:
        block["name"] = named.name
        if "hostname" in block:
            block["hostname"] = named.name
    if named.hostname is not None:
        block["hostname"] = named.hostname
    if named.id is not None:
        block["id"] = named.id
    return block


def _pipeline(
    config: Config,
    options: PipelineOptions,
    names: ProcessNames,
    *,
    machine_and_boot: tuple[str, str],
    clock: WallClock,
    host_block: Mapping[str, Any],
    log_names: EnrichedNames | None = None,
) -> Pipeline:
    identify = identifier(*machine_and_boot)
    encoders = _encoders(
        config,
        names,
        machine_and_boot=machine_and_boot,
        clock=clock,
        host_block=host_block,
    )
    return Pipeline(
        options,
        table=ProcessTable(identify, max_processes=config.session_metadata.max_processes),
        encoders=encoders,
        syscall_name=syscall_name,
        context=cgroup_fields,
        names=log_names,
    )


def _encoders(
    config: Config,
    names: ProcessNames,
    *,
    machine_and_boot: tuple[str, str],
    clock: WallClock,
    host_block: Mapping[str, Any],
) -> Encoders:
    redact = redactor(config.event.redact)
    full = frozenset(config.event.relatives)
    return Encoders(
        ProcessEncoder(
            names,
            clock,
            full=full,
            redact=redact,
            ancestors=config.event.ancestors,
            identify=identifier(*machine_and_boot),
        ),
        DocumentEncoder(host=host_block, identity=" ".join(machine_and_boot), labels=config.labels),
        AuditEventCache(
            _audit_encoder(config, names),
            auditbeat_actions=config.event.event_actions == "auditbeat",
            redact=redact,
            tags=config.tags,
        ),
    )


def line_chain(settings: EventSettings) -> LineChain | None:
    """Return the sealer of lines, None without event.chain. Raises ConfigError without a key."""
    if not settings.chain:
        return None
    path = settings.chain_key or credential("sessiond.chain") or CHAIN_KEY
    return LineChain(read_key("event.chain_key", path, least=MIN_KEY))


def redactor(settings: RedactSettings) -> Redactor | None:
    """Return the redactor of command lines, None if redaction is off.

    Raises ConfigError for a pattern file that can't be read, is writable by other users, or
    contains an invalid regular expression.
    """
    if not settings.enabled:
        return None
    files = expand("event.redact.pattern_files", settings.pattern_files)
    texts = [(str(file), read_trusted(file)) for file in files]
    if settings.shipped_patterns:
        texts.insert(0, (str(_SHIPPED_PATTERNS), _SHIPPED_PATTERNS.read_text("utf-8")))
    patterns = []
    for source, text in texts:
        for line, pattern in read_patterns(text):
            try:
                patterns.append(re.compile(pattern))
            except (re.error, OverflowError, RecursionError) as error:
                wrong = (
                    f"{source}:{line}: {show(pattern)} is not a valid regular expression: {error}"
                )
                raise ConfigError(wrong) from None
    return Redactor([*patterns, *map(re.compile, settings.patterns)])


def syscall_name(arch: bytes, number: bytes) -> str:
    """Return the name of a SYSCALL record's system call from arch= and syscall=; "" if unknown."""
    try:
        return kernel_names.syscall_name(int(number), int(arch, 16)) or ""
    except ValueError:
        return ""


@lru_cache(maxsize=1024)
def cgroup_fields(cgroup: bytes) -> Mapping[str, Any]:
    """Return the fields of the container and the systemd unit of a cgroup."""
    found = container.identify(cgroup)
    fields = found.fields() if found is not None else {}
    unit = systemd_unit.identify(cgroup)
    return fields if unit is None else fields | {"systemd": unit.fields()}


def _audit_encoder(config: Config, names: ProcessNames) -> AuditEventEncoder:
    options = audit_event.Options(
        resolve_ids=config.auditd.resolve_ids,
        include_raw_message=config.auditd.include_raw_message,
        include_warnings=config.auditd.include_warnings,
    )
    return AuditEventEncoder(names, kernel_names, options)


def outputs(config: Config) -> list[OutputThread]:
    """Make the configured outputs, not yet open. Raises ConfigError."""
    made: list[OutputThread] = []
    settings = config.output
    if settings.file is not None:
        file = settings.file
        sink = FileOutput(
            str(file.path),
            mode=file.mode,
            owner=user_id("output.file.owner", file.owner),
            group=group_id("output.file.group", file.group),
            rotate_size=file.rotate.size or None,
            rotate_interval=file.rotate.interval or None,
            keep=file.rotate.keep,
            min_age=file.rotate.min_age,
            compress=file.rotate.compress,
        )
        if file.rotate.compress == "zstd" and sink.compression != "zstd":
            log.warning("compression_is_gzip", problem=NO_ZSTD, fix=NO_ZSTD_FIX)
        made.append(_writer(config, "file", sink))
    if settings.socket is not None:
        made.append(_writer(config, "socket", _socket(settings.socket)))
    if settings.http is not None:
        made.append(_writer(config, "http", _http(config, settings.http)))
    if settings.console is not None:
        made.append(_writer(config, "console", ConsoleOutput()))
    return made


def _socket(settings: SocketSettings) -> Sink:
    waits = settings.backoff.init, settings.backoff.max
    if settings.type == "tcp":
        host, port = settings.host_and_port()
        return StreamOutput(host=host, port=port, backoff=waits, tls=_tls(settings.tls, host))
    if settings.type == "unix_datagram":
        return DatagramOutput(path=settings.address, backoff=waits)
    return StreamOutput(path=settings.address, backoff=waits)


def _http(config: Config, settings: HttpSettings) -> Sink:
    # Imported when it is configured: the standard library's client needs a megabyte.
    from sessiond.output.http import HttpOutput
    from sessiond.output.http_client import HttpClient, Server, compressor

    url, proxy = settings.parts(), None
    host = url.hostname or ""
    tls = None
    if url.scheme == "https":
        tls = _client_tls(settings.tls, host, "output.http.tls")
    else:
        _warn_of_the_clear(host, "output.http.url with https://")
    if settings.proxy is not None:
        way = urlsplit(settings.proxy)
        proxy = way.hostname or "", way.port or 0
    port = url.port or (80 if tls is None else 443)
    server = Server(host, port, target(settings.preset, url, settings.index), tls, proxy)

    def secrets() -> dict[str, str]:
        return {name: _secret(name, source) for name, source in settings.secret_headers.items()}

    secrets()  # an unreadable secret fails the start or the reload
    compress = compressor(settings.compression)
    if compress is not None and compress.encoding != settings.compression:
        problem = "this Python has no library for zstd: requests are compressed with gzip"
        fix = "install python3-zstandard, or set output.http.compression: gzip"
        log.warning("compression_is_gzip", problem=problem, fix=fix)
    return HttpOutput(
        HttpClient(server, headers=settings.headers, secrets=secrets, timeout=settings.timeout),
        Format(settings.preset),
        name=server.name,
        compress=compress,
        refused=RefusedLines(config.spool_path / "http.refused.ndjson", settings.refused_max_size),
        max_size=settings.batch.max_size,
        interval=settings.batch.interval,
        timeout=settings.timeout,
        backoff=(settings.backoff.init, settings.backoff.max),
    )


def _secret(header: str, source: str) -> str:
    return read_secret(f"output.http.secret_headers.{header}", source)


def unchecked_secrets(settings: OutputSettings) -> Iterator[str]:
    """Check the files with secrets and certificates; yield what only systemd gives the service.

    Raises ConfigError for a file that can't be used, or a secret that other users can read.
    """
    http, stream = settings.http, settings.socket
    if stream is not None and stream.tls.enabled:
        _client_tls(stream.tls, "", "output.socket.tls")
    if http is None:
        return
    if http.parts().scheme == "https":
        _client_tls(http.tls, "", "output.http.tls")
    for header, source in http.secret_headers.items():
        if source.startswith("/"):
            _secret(header, source)
        else:
            yield f"output.http.secret_headers.{header}: the credential {source} is not checked"


def _tls(settings: TlsSettings, host: str) -> ClientTls | None:
    """Return the TLS settings for ``host``, None without TLS. Raises ConfigError."""
    if not settings.enabled:
        _warn_of_the_clear(host, "output.socket.tls.enabled: true")
        return None
    return _client_tls(settings, host, "output.socket.tls")


def _client_tls(settings: TlsFiles, host: str, setting: str) -> ClientTls:
    # Imported when it is configured: OpenSSL needs 2 MB.
    from sessiond.output.tls import ClientTls

    return ClientTls(
        settings.server_name or host,
        ca=settings.ca,
        certificate=settings.certificate,
        key=settings.key,
        setting=setting,
    )


def _warn_of_the_clear(host: str, fix: str) -> None:
    if host not in ("localhost", "::1") and not host.startswith("127."):
        problem = f"lines to {host} can be read and changed on the way"
        log.warning("output_in_the_clear", problem=problem, fix=fix)


def _writer(config: Config, name: str, sink: Sink) -> OutputThread:
    settings = config.output.spool
    spool = None
    # Lines that wait for a terminal are not spooled for the next run.
    if settings.max_size and name != "console":
        spool = Spool(str(config.spool_path / name), max_size=settings.max_size, drop=settings.drop)
    queue_size = config.output.queue_size
    delivery = Delivery(sink, spool=spool, queue_size=queue_size, drop=settings.drop)
    return OutputThread(delivery, queue_size=queue_size, drop=settings.drop)
