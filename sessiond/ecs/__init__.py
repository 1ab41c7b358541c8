"""Audit events and processes as documents of the Elastic Common Schema."""
