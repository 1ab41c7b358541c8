"""What survives a restart or a crash."""
