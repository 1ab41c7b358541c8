"""The configuration: its schema, the loader and the reference of settings."""
