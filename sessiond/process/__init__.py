"""The host's processes: what they were, who started them, and how they came in."""
