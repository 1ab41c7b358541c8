"""A simulated fleet: the recorded lines of a login, with other ids for each host.

``SESSIOND_ENGINES=1 PYTHONPATH=tests:. python -m support.fleet`` sends the lines of 200 hosts
through the daemon's HTTP output into a real OpenSearch, and prints the figures of
integrations/fleet/README.md.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import resource
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.engines import count, merged_size, opensearch
from support.manager import PROJECT
from support.truth import until

from sessiond.config.load import loads
from sessiond.daemon import factory
from sessiond.engines import elasticsearch
from sessiond.output.thread import OutputThread

HOSTS = 200
RATE = 2  # lines a second and host, which the engine can take
RECORDED = PROJECT / "tests" / "data" / "viewer" / "login.ndjson.gz"
# Entity ids, which some event ids contain; what other event ids begin with; host, boot and name.
_IDS = re.compile(
    rb'(?<=id":")[\w-]{24}(?=["-])|(?<="id":")[0-9a-f]{16}(?=-)|0{31}1(?=")'
    rb'|(?<="boot":\{"id":")[0-9a-f-]{36}|(?<=name":")web1(?=")'
)


def stream(host: int) -> list[bytes]:
    """Return the lines of a host."""
    known: dict[bytes, bytes] = {}

    def renamed(match: re.Match[bytes]) -> bytes:
        return known.setdefault(match[0], _renamed(match[0], host))

    text = gzip.decompress(RECORDED.read_bytes())
    return _IDS.sub(renamed, text).splitlines(keepends=True)


def _renamed(name: bytes, host: int) -> bytes:
    if name == b"web1":
        return b"web%03d" % host
    made = hashlib.sha256(name + b"%d" % host)
    if len(name) == 24:
        return urlsafe_b64encode(made.digest())[:24]
    digits = made.hexdigest()
    return "".join(
        "-" if old == ord("-") else new for old, new in zip(name, digits, strict=False)
    ).encode()


@contextmanager
def senders(
    url: str, directory: Path, hosts: Iterable[int], interval: int = 1
) -> Iterator[dict[int, OutputThread]]:
    """Open the daemon's HTTP output of each host; at the end wait for what is in flight.

    A line waits up to ``interval`` seconds for others.
    """
    made = {}
    for host in hosts:
        http = f'{{url: "{url}", preset: elasticsearch, batch: {{interval: {interval}s}}}}'
        text = f"state_directory: {directory}/{host}\noutput: {{http: {http}}}\n"
        (directory / str(host) / "spool").mkdir(parents=True)
        (made[host],) = factory.outputs(loads(text, "fleet"))
        made[host].open()
    try:
        yield made
    finally:
        for output in made.values():
            output.flush(5.0)
            output.close()


def delivered(outputs: Iterable[OutputThread]) -> int:
    """Return the number of acknowledged lines."""
    return sum(each.status()["delivered"] for each in outputs)


def _engines_seconds() -> float:
    """Return the CPU time of the only child, the engine."""
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    (engine,) = task.read_text().split()
    fields = Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(interval: int) -> None:
    """Send the lines of a fleet to a real engine, and print the figures."""
    streams = {host: stream(host) for host in range(HOSTS)}
    total = sum(map(len, streams.values()))
    written = sum(len(line) for lines in streams.values() for line in lines)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made, opensearch(Path(made)) as url:
        list(elasticsearch.install(elasticsearch.Engine(url), keep_days=1))
        with senders(url, Path(made), streams, interval) as outputs:
            own, engines, started = _own_seconds(), _engines_seconds(), time.monotonic()
            for number in range(max(map(len, streams.values()))):
                for host, lines in streams.items():
                    outputs[host].write(lines[number : number + 1])
                    time.sleep(1 / RATE / HOSTS)
            until(lambda: delivered(outputs.values()) == total, 1200, "all lines")
            own, engines = _own_seconds() - own, _engines_seconds() - engines
            seconds = time.monotonic() - started
            sinks = [each.status()["sink"] for each in outputs.values()]
        stored, size = count(url), merged_size(url)
    assert stored == total
    requests, failed, sent = (
        sum(sink[name] for sink in sinks) for name in ("requests", "failed_requests", "sent_bytes")
    )
    sys.stdout.write(
        f"{HOSTS} hosts, {total} lines of {written / total:.0f} bytes, in {seconds:.0f} s\n"
        f"an interval of {interval} s: {requests} requests, of which {failed} failed, "
        f"{sent / total:.0f} bytes a line on the wire\n"
        f"the outputs: {own / total * 1e6:.0f} us of CPU a line\n"
        f"the engine: {engines / total * 1e6:.0f} us of CPU a line, {size / total:.0f} bytes\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    for seconds in (1, 10):
        measure(seconds)
