"""The host, for every other folder: files, clocks, accounts, the service manager, the log."""
