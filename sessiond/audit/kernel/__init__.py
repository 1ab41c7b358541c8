"""The kernel's audit subsystem: its netlink socket, its settings, its other listeners."""
