"""The helper process for reads that a process could block.

guard.py starts ``python -m sessiond.sources.procfs.worker SOCKET ROOT ARGS_LIMIT`` with one end of
a socket pair. A request is (zombies too, pids); each pid, in order, gets one answer: an Observed,
or None. The helper exits when the other end closes.
"""

from __future__ import annotations

import socket
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


def serve(channel: socket.socket, procfs: Procfs) -> None:
    """Answer requests until the other end closes."""
    requests = msgspec.msgpack.Decoder(Request)
    encode = msgspec.msgpack.Encoder().encode
    try:
        channel.send(READY)
        while data := channel.recv(MAX_MESSAGE):
            request = requests.decode(data)
            for pid in request.pids:
                observed = procfs.observe(pid, zombies=request.zombies)
                channel.send(encode(Answer(observed, procfs.denied, procfs.malformed)))
                procfs.denied = procfs.malformed = 0
    except ConnectionError:
        return


if __name__ == "__main__":
    serve(
        socket.socket(fileno=int(sys.argv[1])),
        Procfs(Path(sys.argv[2]), args_limit=int(sys.argv[3])),
    )
