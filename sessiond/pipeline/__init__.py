"""The pipeline: audit records and process events in, lines out; no I/O."""
