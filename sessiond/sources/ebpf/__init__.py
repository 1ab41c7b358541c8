"""The tracer: the eBPF programs, their loader, and the ring that they fill."""
