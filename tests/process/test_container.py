"""Containers by the path of their cgroup: a sample for each line of the table, and others."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.process.container import Container, identify

ID = "6f2d1a9c0b7e4f3584c1d2e3f4a5b6c7d8e9f0a1b2c3d4e5f60718293a4b5c6d"
INNER = "0" * 64
UID = "0f9a7d3c-52b1-4e0e-9a53-1d2c3b4a5f6e"
UID_ = UID.replace("-", "_")
STATIC_UID = "57ee7bb4e5bb2d0c2d0c1ed6d3a4a1c6"


@pytest.mark.parametrize(
    ("path", "container_id", "runtime"),
    [
        (f"/system.slice/docker-{ID}.scope", ID, "docker"),
        (f"/system.slice/docker-{ID}.scope/init.scope", ID, "docker"),
        (f"/docker/{ID}", ID, "docker"),
        ("/docker/buildkit/x0p8v1k4lb6m3tq2w9r7s5y1z", "x0p8v1k4lb6m3tq2w9r7s5y1z", "docker"),
        (f"/system.slice/nerdctl-{ID}.scope", ID, "containerd"),
        (f"/machine.slice/libpod-{ID}.scope", ID, "podman"),
        (f"/machine.slice/libpod-{ID}.scope/container", ID, "podman"),
        (f"/machine.slice/libpod-payload-{ID}", ID, "podman"),
        (f"/libpod_parent/libpod-{ID}", ID, "podman"),
        (f"/machine.slice/crio-{ID}.scope", ID, "cri-o"),
        ("/system.slice/runc-web.scope", "web", "runc"),
        ("/system.slice/crun-web.scope", "web", "crun"),
        (r"/machine.slice/machine-web\x2d1.scope", "web-1", "systemd-nspawn"),
        ("/machine.slice/systemd-nspawn@web.service/payload", "web", "systemd-nspawn"),
        ("/lxc.payload.web/system.slice/cron.service", "web", "lxc"),
        ("/lxc.payload/web", "web", "lxc"),
        ("/lxc/101/ns/init.scope", "101", "lxc"),
        ("/ecs/2f1d/2f1d0c9b8a7e6f5d4c3b2a1908f7e6d5-1234567890", None, None),
        (f"/ecs/production/2f1d0c9b8a7e/{ID}", ID, None),
        (f"/user.slice/{ID}", ID, None),
        (f"/{ID}", ID, None),
    ],
)
def test_the_id_and_the_engine_are_in_the_path(
    path: str, container_id: str | None, runtime: str | None
) -> None:
    """Every engine spells a container's cgroup in its own way."""
    found = identify(path.encode())
    assert found is not None
    assert found.id == (container_id or path.rpartition("/")[2])
    assert found.runtime == runtime
    assert found.pod is None
    assert not found.rootless


@pytest.mark.parametrize(
    ("path", "uid", "runtime"),
    [
        (f"/kubepods/besteffort/pod{UID}/{ID}", UID, None),
        (f"/kubepods/burstable/pod{UID}/{ID}", UID, None),
        (f"/kubepods/pod{UID}/{ID}", UID, None),
        (f"/kubepods/besteffort/pod{UID}/crio-{ID}", UID, "cri-o"),
        (f"/kubepods/burstable/pod{STATIC_UID}/{ID}", STATIC_UID, None),
        (
            (
                "/kubepods.slice/kubepods-besteffort.slice/"
                f"kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope"
            ),
            UID,
            "containerd",
        ),
        (
            (
                "/kubepods.slice/kubepods-burstable.slice/"
                f"kubepods-burstable-pod{UID_}.slice/docker-{ID}.scope"
            ),
            UID,
            "docker",
        ),
        (f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope", UID, "cri-o"),
        (
            (
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/"
                f"kubelet-kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope"
            ),
            UID,
            "containerd",
        ),
        (
            (
                f"/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:"
                f"cri-containerd:{ID}"
            ),
            UID,
            "containerd",
        ),
    ],
)
def test_a_container_of_kubernetes_names_its_pod(path: str, uid: str, runtime: str | None) -> None:
    """Both drivers and each class of service; the pod's uid has dashes again."""
    assert identify(path.encode()) == Container(ID, runtime, uid, rootless=False)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/init.scope",
        "/system.slice/docker.service",
        "/system.slice/containerd.service",
        "/user.slice/user-1000.slice/session-3.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox.scope",
        f"/machine.slice/libpod-conmon-{ID}.scope",
        f"/system.slice/crio-conmon-{ID}.scope",
        r"/machine.slice/machine-qemu\x2d1\x2dweb.scope",
        "/lxc.monitor.web",
        f"/docker/{ID[:-1]}",
        f"/docker/{ID}0",
        f"/docker/{ID.upper()}",
        "/process_api/ec3340e091bc8be05fb7428eb9233ea6",
        "/kubepods/besteffort",
    ],
)
def test_other_cgroups_are_no_containers(path: str) -> None:
    """Engines, their monitors, virtual machines, logins, and similar ids."""
    assert identify(path.encode()) is None


def test_of_nested_containers_the_innermost_counts() -> None:
    """Kubernetes in docker: the process is in the pod's container."""
    path = f"/docker/{ID}/kubelet/kubepods/besteffort/pod{UID}/{INNER}"
    assert identify(path.encode()) == Container(INNER, None, UID, rootless=False)


def test_a_container_of_a_user_is_marked_as_such() -> None:
    """Below user@.service the user names the cgroups, so the container is the user's claim."""
    path = f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"
    assert identify(path.encode()) == Container(ID, "podman", None, rootless=True)


def test_a_user_cannot_claim_to_be_a_pod() -> None:
    """The name of a pod counts only if the user can't have created it."""
    path = f"/user.slice/user-1000.slice/user@1000.service/kubepods/pod{UID}/{ID}"
    found = identify(path.encode())
    assert found is not None
    assert found.rootless
    assert found.pod is None


def test_the_fields_are_those_of_ecs() -> None:
    """The container, and the pod as the resource of the orchestrator."""
    assert Container(ID, "containerd", UID, rootless=False).fields() == {
        "container": {"id": ID, "runtime": "containerd"},
        "orchestrator": {"type": "kubernetes", "resource": {"type": "pod", "id": UID}},
    }
    assert Container(ID, None, None, rootless=False).fields() == {"container": {"id": ID}}


@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from([b"/lxc/", b"\xff\n", b"/docker-", ID.encode(), b".scope", b"\\x2", b"/"])
    ).map(b"".join)
)
def test_any_name_is_safe(path: bytes) -> None:
    """The creator of a cgroup chooses its name: the fields are always valid text."""
    found = identify(path)
    if found is not None:
        assert found.id
        json.dumps(found.fields()).encode()


@pytest.mark.parametrize("part", [b"/lxc/", b"/runc-", b"kubepods-pod", b"/a:cri-containerd:"])
def test_a_long_hostile_path_costs_little(part: bytes) -> None:
    """No spelling makes the match slow: a path has at most 4,096 bytes."""
    path = (part * 4096)[:4096]
    start = time.thread_time()
    identify.__wrapped__(path)
    assert time.thread_time() - start < 0.1
