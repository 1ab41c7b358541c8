"""sessiond records what every process on a host was, who started it, and in which session."""

__version__ = "0.2.0"
