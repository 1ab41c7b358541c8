"""The process that loads the tracer's programs (loader.py), seen from the daemon."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import sessiond
from sessiond.errors import SourceUnavailableError
from sessiond.sources.ebpf.bpf import BPF_SYSCALL

_TIMEOUT: Final = 60.0  # seconds
_MAX_DESCRIPTORS: Final = 64


class Helper:
    """Loads the programs at once, compiled if needed, and attaches them on request.

    The process exits by itself, even without a request.
    """

    def __init__(self, ring_bytes: int, args_limit: int) -> None:
        """Start it, for a ring of ``ring_bytes`` and ``args_limit`` bytes of each argv.

        Raises SourceUnavailableError if there is no tracer for this processor.
        """
        if platform.machine() not in BPF_SYSCALL:
            raise SourceUnavailableError(
                "ebpf", f"{platform.machine()} is not supported", "use backend: proc_connector"
            )
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._messages = os.memfd_create("sessiond-loader-messages")
        # Run exactly this code, independently of working directory and search path.
        package_root = str(Path(sessiond.__file__).parent.parent)
        command = [sys.executable, "-P", "-m", "sessiond.sources.ebpf.loader"]
        command += [str(theirs.fileno()), str(ring_bytes), str(args_limit)]
        with theirs:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": package_root},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._messages,
                stderr=self._messages,
                process_group=0,  # Ctrl-C is for the daemon, which ends when it has started
            )

    def load(self) -> tuple[dict[str, Any], list[int]]:
        """Attach the programs; return the answer of loader.py and the descriptors.

        Raises SourceUnavailableError.
        """
        self._channel.settimeout(_TIMEOUT)
        try:
            self._channel.send(b"\n")
            data, descriptors, _, _ = socket.recv_fds(self._channel, 1 << 16, _MAX_DESCRIPTORS)
        except (TimeoutError, ConnectionError):
            self._process.kill()
            data, descriptors = b"", []
        status, said = self._end()
        if not data:
            raise SourceUnavailableError(
                "ebpf",
                f"the helper that loads the programs ended with {status} "
                f"({said or 'without a word'})",
                f"run it by hand: {sys.executable} -m sessiond.sources.ebpf.loader",
            )
        answer = json.loads(data)
        if "reason" in answer:
            reason = answer["reason"] + (f" ({said})" if said else "")
            raise SourceUnavailableError("ebpf", reason, answer["fix"])
        if len(descriptors) != answer["descriptors"]:
            raise SourceUnavailableError(
                "ebpf", "too few descriptors could be handed over", "raise LimitNOFILE="
            )
        return answer, descriptors

    def close(self) -> None:
        """Stop the helper without a request."""
        self._process.kill()
        self._end()

    def _end(self) -> tuple[int, str]:
        """Wait for its end; return its status, and its last message."""
        self._channel.close()
        status = self._process.wait()
        try:
            return status, _last_words(self._messages)
        finally:
            os.close(self._messages)


def _last_words(messages: int) -> str:
    """Return the last relevant line of the messages of compiler and verifier."""
    text = os.pread(messages, 1 << 20, 0).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines()]
    matter = [line for line in lines if line and not line.startswith(("processed ", "bpf: Failed"))]
    return matter[-1][:200] if matter else ""
