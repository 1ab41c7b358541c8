"""The procfs source, and the procfs reader of the other sources."""
