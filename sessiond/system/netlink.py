"""Imports only the parts of pyroute2 that sessiond uses.

Importing the whole package, from traffic control to its database, needs 11 MB of memory; its
netlink core needs 3 MB.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from typing import Final

_PARTS: Final = (
    "pyroute2.netlink.nlsocket",
    "pyroute2.netlink.rtnl.ifaddrmsg",
    "pyroute2.netlink.rtnl.ifinfmsg",
    "pyroute2.netlink.connector.cn_proc",
)


def import_parts(parts: Iterable[str]) -> None:
    """Import modules of the package, without the package's own imports.

    If that fails, nothing is imported here, and the caller imports the whole package.
    """
    spec = importlib.util.find_spec("pyroute2")
    if spec is None or "pyroute2" in sys.modules:
        return
    sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)
    try:
        for part in parts:
            importlib.import_module(part)
    except ImportError:
        # In this version the parts need the whole package.
        for name in [module for module in sys.modules if module.partition(".")[0] == "pyroute2"]:
            del sys.modules[name]


import_parts(_PARTS)

from pyroute2.netlink import (  # noqa: E402 -- see above
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_AUDIT,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    SOL_NETLINK,
    nlmsg,
    nlmsgerr,
)
from pyroute2.netlink.connector.cn_proc import (  # noqa: E402
    PROC_EVENT_EXEC,
    PROC_EVENT_EXIT,
    PROC_EVENT_FORK,
    PROC_EVENT_GID,
    PROC_EVENT_NONE,
    PROC_EVENT_SID,
    PROC_EVENT_UID,
    ProcEventSocket,
)
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402
from pyroute2.netlink.nlsocket import AsyncNetlinkSocket, NetlinkSocket  # noqa: E402
from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK  # noqa: E402
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # noqa: E402
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: E402

__all__ = [
    "NETLINK_ADD_MEMBERSHIP",
    "NETLINK_AUDIT",
    "NETLINK_ROUTE",
    "NLMSG_DONE",
    "NLMSG_ERROR",
    "NLM_F_ACK",
    "NLM_F_DUMP",
    "NLM_F_REQUEST",
    "PROC_EVENT_EXEC",
    "PROC_EVENT_EXIT",
    "PROC_EVENT_FORK",
    "PROC_EVENT_GID",
    "PROC_EVENT_NONE",
    "PROC_EVENT_SID",
    "PROC_EVENT_UID",
    "RTM_GETADDR",
    "RTM_GETLINK",
    "RTM_NEWADDR",
    "RTM_NEWLINK",
    "SOL_NETLINK",
    "AsyncNetlinkSocket",
    "NetlinkError",
    "NetlinkSocket",
    "ProcEventSocket",
    "ifaddrmsg",
    "ifinfmsg",
    "nlmsg",
    "nlmsgerr",
]
