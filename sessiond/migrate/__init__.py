"""From the configuration of another audit daemon to ours."""
