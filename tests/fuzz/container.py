"""Any cgroup name is classified quickly, and its fields are valid text for JSON."""

from __future__ import annotations

import orjson

from sessiond.process.container import identify

ID = b"0a" * 32
SEEDS = [
    b"/system.slice/docker-%b.scope" % ID,
    b"/docker/" + ID,
    b"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod"
    b"01234567_89ab_cdef_0123_456789abcdef.slice/cri-containerd-%b.scope" % ID,
    b"/kubepods/burstable/pod01234567-89ab-cdef-0123-456789abcdef/" + ID,
    b"/machine.slice/libpod-%b.scope/container" % ID,
    b"/machine.slice/systemd-nspawn@web\\x2d1.service/payload",
    b"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-%b.scope" % ID,
    b"/lxc.payload.web/init.scope",
    b"/machine.slice/machine-web\\x2d1.scope",
]


def one(data: bytes) -> None:
    """Identify ``data``."""
    found = identify(data)
    if found is not None:
        assert found.id
        orjson.dumps(found.fields())
