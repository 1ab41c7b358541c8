"""The kernel's audit subsystem: records, events, rules and the netlink socket."""
