"""Filters, which drop, fold or label events, and count what they leave out."""
