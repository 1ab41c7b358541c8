"""Replay: converts audit logs offline to the lines that the daemon would have written."""
