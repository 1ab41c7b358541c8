"""Audit records and process events in, lines out; no I/O."""
