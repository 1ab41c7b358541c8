"""Logs that others wrote, offline, as the lines that the daemon would have written."""
