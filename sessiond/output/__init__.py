"""Outputs: files, sockets, HTTP servers and the console.

A sink (``FileOutput``, ``StreamOutput``, ``DatagramOutput``, ``HttpOutput``, ``ConsoleOutput``)
accepts as many lines as it can; ``Delivery`` adds a ``Spool``, a small queue and counters;
``OutputThread`` runs the delivery in its own thread.
"""

from __future__ import annotations

from sessiond.output.console import ConsoleOutput
from sessiond.output.datagram import DatagramOutput
from sessiond.output.delivery import Delivery
from sessiond.output.file import FileOutput
from sessiond.output.http import HttpOutput
from sessiond.output.sink import HealthChange, LineLoss, Sink
from sessiond.output.spool import Policy, Spool
from sessiond.output.stream import StreamOutput
from sessiond.output.thread import OutputThread

__all__ = [
    "ConsoleOutput",
    "DatagramOutput",
    "Delivery",
    "FileOutput",
    "HealthChange",
    "HttpOutput",
    "LineLoss",
    "OutputThread",
    "Policy",
    "Sink",
    "Spool",
    "StreamOutput",
]
