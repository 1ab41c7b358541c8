"""Prepares search engines for the events; not part of the daemon."""
