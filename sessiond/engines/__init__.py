"""Prepares engines for the events of sessiond; no part of the daemon."""
