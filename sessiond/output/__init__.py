"""Outputs: files, sockets, HTTP servers and the console.

Each has a sink, which accepts as many lines as it can. ``Delivery`` adds a ``Spool``, a small queue
and counters; ``OutputThread`` runs the delivery in its own thread.
"""
