"""Benchmarks of sessiond, side by side with other consumers of the kernel's audit records."""
