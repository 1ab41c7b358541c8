"""The helper process that reads what a process could keep its reader waiting for.

``python -m sessiond.sources.procfs.worker SOCKET ROOT ARGS_LIMIT`` is started by guard.py with one
end of a socket pair. A request is (zombies too, pids); for each pid, in their order, there is one
answer: an Observed, or None. It ends when the other side is gone.
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
    """What is asked for."""

    zombies: bool
    pids: list[int]


class Answer(msgspec.Struct, array_like=True):
    """What procfs shows of one process, and how many reads were refused or not understood."""

    observed: Observed | None
    denied: int
    malformed: int


def serve(channel: socket.socket, procfs: Procfs) -> None:
    """Answer until the other side is gone."""
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
