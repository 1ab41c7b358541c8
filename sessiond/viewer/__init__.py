"""Reads events and shows sessions, trees and processes; offline, not part of the daemon."""
