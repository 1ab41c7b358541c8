"""The tracer: eBPF programs, how they are loaded, and the ring that they fill."""
