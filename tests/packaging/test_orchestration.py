"""Ansible's role and the Helm chart require what the service's unit has, and no more."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from support.manager import PROJECT, UNIT

from sessiond import __version__
from sessiond.config import load

CHART = PROJECT / "packaging/helm/sessiond"
MANIFEST = PROJECT / "packaging/kubernetes/sessiond.yml"
ROLE = PROJECT / "packaging/ansible/sessiond"


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    """Return the objects of the manifest by their kind."""
    return {each["kind"]: each for each in yaml.safe_load_all(MANIFEST.read_text("utf-8"))}


@pytest.fixture(scope="module")
def pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the pod that runs on each node."""
    spec: dict[str, Any] = objects["DaemonSet"]["spec"]["template"]["spec"]
    return spec


def test_the_container_has_the_capabilities_of_the_service(pod: dict[str, Any]) -> None:
    """The capabilities are those of the unit; nothing is privileged."""
    (container,) = pod["containers"]
    wanted = set(re.findall(r"^AmbientCapabilities=(.*)$", UNIT.read_text(), re.MULTILINE))
    unit = {name.removeprefix("CAP_") for line in wanted for name in line.split()}
    security = container["securityContext"]
    assert set(security["capabilities"]["add"]) == unit
    assert security["capabilities"]["drop"] == ["ALL"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert "privileged" not in security


def test_the_container_has_the_mounts_of_the_documented_one(pod: dict[str, Any]) -> None:
    """docs/operations.md lists the directories that provide ids and names."""
    page = (PROJECT / "docs/operations.md").read_text("utf-8")
    documented = set(re.findall(r"-v (/[^:\s]+):", page))
    mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    hosts = {volume["name"] for volume in pod["volumes"] if "hostPath" in volume}
    assert {mounted[name] for name in hosts} == documented
    assert (pod["hostPID"], pod["hostNetwork"]) == (True, True)


def test_every_mount_has_its_volume(pod: dict[str, Any]) -> None:
    """Each volume is mounted."""
    mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_the_configuration_of_the_chart_loads(objects: dict[str, dict[str, Any]]) -> None:
    """It is the configuration file of the daemon."""
    (name,) = objects["ConfigMap"]["data"]
    load.loads(objects["ConfigMap"]["data"][name], name)
    container = objects["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]
    assert container["args"][-1] == f"/etc/sessiond/{name}"


def test_the_chart_has_the_version_of_the_source() -> None:
    """The image's tag is the version unless values say otherwise."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == chart["version"] == __version__


@pytest.mark.skipif(shutil.which("helm") is None, reason="needs helm")
def test_the_manifest_is_what_the_chart_makes() -> None:
    """helm lint reports no problem."""
    subprocess.run(["helm", "lint", "--strict", CHART], check=True, capture_output=True)
    made = subprocess.run(
        [
            "helm",
            "template",
            "sessiond",
            CHART,
            "--namespace",
            "sessiond",
            "--kube-version",
            "1.30.0",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert made == MANIFEST.read_text("utf-8")


def test_the_role_documents_its_variables() -> None:
    """Each default is an argument of the role, with a description."""
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text("utf-8"))
    specification = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text("utf-8"))
    options = specification["argument_specs"]["main"]["options"]
    assert set(defaults) == set(options)
    assert all(option["description"] for option in options.values())
