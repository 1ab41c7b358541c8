"""The helper process for reads that a process could block.

guard.py starts ``python -m sessiond.sources.procfs.worker SOCKET ROOT ARGS_LIMIT`` with one end of
a socket pair. A request is (zombies too, pids); each pid, in order, gets one answer: an Observed,
or None. The helper exits when the other end closes.

It runs as long as the daemon and so imports little: not even the module socket.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from sessiond.process.events import Observed
from sessiond.sources.procfs.reader import Procfs

READY: Final = b"ready"  # the first message
MAX_MESSAGE: Final = 1 << 20  # bytes


class Request(msgspec.Struct, array_like=True):
    """A request for processes."""

    zombies: bool
    pids: list[int]


class Answer(msgspec.Struct, array_like=True):
    """One process from procfs, with the numbers of refused and malformed reads."""

    observed: Observed | None
    denied: int
    malformed: int


def serve(channel: int, procfs: Procfs) -> None:
    """Answer the requests that come through a descriptor until the other end closes."""
    requests = msgspec.msgpack.Decoder(Request)
    encode = msgspec.msgpack.Encoder().encode
    try:
        os.write(channel, READY)
        while data := os.read(channel, MAX_MESSAGE):
            request = requests.decode(data)
            for pid in request.pids:
                observed = procfs.observe(pid, zombies=request.zombies)
                os.write(channel, encode(Answer(observed, procfs.denied, procfs.malformed)))
                procfs.denied = procfs.malformed = 0
    except ConnectionError:
        return


if __name__ == "__main__":
    serve(
        int(sys.argv[1]),
        Procfs(Path(sys.argv[2]), args_limit=int(sys.argv[3])),
    )
