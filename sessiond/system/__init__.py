"""Access to the host for all other folders: files, clocks, accounts, service manager, log."""
