"""Where the lines go: files, sockets and the console.

A sink (``FileOutput``, ``StreamOutput``, ``DatagramOutput``, ``ConsoleOutput``) takes what it can;
``Delivery`` puts a ``Spool`` and a small queue before it and keeps the account; ``Writer`` has a
thread do that.
"""

from __future__ import annotations

from sessiond.output.console import ConsoleOutput
from sessiond.output.delivery import Delivery, Health, Loss, Sink
from sessiond.output.file import FileOutput
from sessiond.output.socket import DatagramOutput, StreamOutput
from sessiond.output.spool import Policy, Spool
from sessiond.output.writer import Writer

__all__ = [
    "ConsoleOutput",
    "DatagramOutput",
    "Delivery",
    "FileOutput",
    "Health",
    "Loss",
    "Policy",
    "Sink",
    "Spool",
    "StreamOutput",
    "Writer",
]
