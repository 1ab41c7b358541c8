"""State that survives a restart or a crash."""
