"""Measurements of sessiond, side by side with what else consumes the kernel's audit records."""
