"""Audit rules: their language, their binary form, and the plan that loads them."""
