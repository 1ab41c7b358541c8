"""Reads events and shows them: sessions, trees, processes; offline, and no part of the daemon."""
