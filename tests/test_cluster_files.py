"""The files of cluster/, without a cloud: Ray's own check, stricter schemas, and our own rules."""

import copy
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_schemas import SCHEMAS
from jsonschema import Draft202012Validator
from ray.autoscaler._private.command_runner import _with_interactive
from ray.autoscaler._private.util import prepare_config, validate_config

from thermal_search.cli import app

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
LAUNCHED = ["cluster.yaml", "gcp.yaml", "on-premise.yaml"]
MANIFESTS = [name for name in SCHEMAS if name not in LAUNCHED]


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text())


def keys(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every key, as keys and list indices."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from keys(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from keys(inner, (*path, number))


ARBITRARY = {"file_mounts", "rayStartParams", "nodeSelector"}
"""Mappings with arbitrary keys, which the schemas do not restrict."""

KEYS = [
    (name, path)
    for name in SCHEMAS
    for path in keys(read(name))
    if not any(key in ARBITRARY for key in path[:-1])
]


def test_every_yaml_file_has_a_schema():
    assert {str(path.relative_to(CLUSTER)) for path in CLUSTER.rglob("*.yaml")} == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_file_matches_its_schema(name):
    Draft202012Validator(SCHEMAS[name]).validate(read(name))


def test_schemas_refuse_every_misspelled_key():
    # One test for all keys: hundreds of parametrized tests would only add lines of output.
    files = {name: (read(name), Draft202012Validator(SCHEMAS[name])) for name in SCHEMAS}
    assert len(KEYS) > 100
    for name, path in KEYS:
        valid, schema = files[name]
        content = copy.deepcopy(valid)
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        parent[f"{path[-1]}x"] = parent.pop(path[-1])
        assert not schema.is_valid(content), f"{name}: {path}"


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_accepts_the_file(name):
    validate_config(prepare_config(read(name)))


def test_all_on_premise_machines_are_always_used():
    content = read("on-premise.yaml")
    content["provider"]["worker_ips"].append("10.0.0.13")
    prepared = prepare_config(content)
    (node_type,) = prepared["available_node_types"].values()

    validate_config(prepared)
    assert node_type["min_workers"] == node_type["max_workers"] == prepared["max_workers"] == 3


def test_google_disks_are_in_the_zone_of_their_machines():
    content = read("gcp.yaml")
    zone = content["provider"]["availability_zone"]
    for node_type in content["available_node_types"].values():
        for disk in node_type["node_config"]["disks"]:
            # A machine with an L4 refuses the default, pd-standard.
            assert disk["initializeParams"]["diskType"] == f"zones/{zone}/diskTypes/pd-balanced"


@pytest.mark.parametrize("name", LAUNCHED)
def test_file_mounts_exist_in_the_checkout(name):
    mounts = read(name)["file_mounts"]
    token = mounts.pop("~/.ray/auth_token")

    assert token == "~/.ray/auth_token"
    for remote, local in mounts.items():
        assert remote == local, "paths on the machines equal those of the checkout"
        assert (ROOT / Path(local).relative_to("~/thermal-search")).exists(), local


@pytest.mark.parametrize("name", LAUNCHED)
def test_file_mounts_contain_what_the_package_needs(name):
    copied = {Path(path).name for path in read(name)["file_mounts"]}

    assert {"thermal_search", "search_spaces", "pyproject.toml", "constraints.txt"} <= copied
    assert {"README.md", "process.py"} <= copied


@pytest.mark.parametrize("name", LAUNCHED)
def test_cluster_requires_a_token_and_shows_the_dashboard_on_loopback_only(name):
    content = read(name)
    setup = "\n".join(content["setup_commands"])
    head, workers = content["head_start_ray_commands"], content["worker_start_ray_commands"]

    assert "RAY_AUTH_MODE=token" in setup
    assert "--dashboard-host=127.0.0.1" in head[-1]
    assert "0.0.0.0" not in "\n".join([*head, *workers])


@pytest.mark.parametrize("name", LAUNCHED)
def test_submitted_command_has_the_login_environment(name, tmp_path):
    # As on most machines: a shell without a terminal returns here.
    (tmp_path / ".bashrc").write_text("case $- in *i*) ;; *) return ;; esac\n")

    def run_remotely(command: str) -> str:
        # As the remote shell runs the command line that Ray sends.
        return subprocess.run(
            ["bash", "-c", " ".join(_with_interactive(command))],
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    for _ in ("ray up", "again, with a changed line"):
        for command in read(name)["setup_commands"][-3:]:
            run_remotely(command)

    assert run_remotely("echo $MLFLOW_TRACKING_URI $RAY_AUTH_MODE").split() == [
        "http://127.0.0.1:5000",
        "token",
    ]
    assert run_remotely("echo $PATH").startswith(f"{tmp_path}/venv/bin:")
    assert (tmp_path / ".thermal-search").read_text().count("MLFLOW_TRACKING_URI") == 1


@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_manifest_sets_the_tracking_uri(name):
    content = read(name)["spec"]
    (head,) = content.get("rayClusterSpec", content)["headGroupSpec"]["template"]["spec"][
        "containers"
    ]

    assert "MLFLOW_TRACKING_URI" in {variable["name"] for variable in head["env"]}


@pytest.mark.parametrize("name", LAUNCHED)
def test_no_comment_truncates_a_command(name):
    for key, commands in read(name).items():
        if key.endswith("_commands"):
            for command in commands:
                assert shlex.split(command), command


@pytest.mark.parametrize("name", ["cluster.yaml", "gcp.yaml"])
def test_workers_are_spot_instances_and_scale_down_to_none(name):
    content = read(name)
    worker = content["available_node_types"]["worker"]

    assert worker["min_workers"] == 0
    assert worker["max_workers"] == content["max_workers"]
    assert "spot" in str(worker["node_config"]).lower()
    assert "spot" not in str(content["available_node_types"]["head"]).lower()
    assert content["available_node_types"]["head"]["resources"]["CPU"] == 0


@pytest.mark.parametrize("name", SCHEMAS)
def test_file_holds_no_credential(name):
    text = (CLUSTER / name).read_text()

    assert not re.search(r"AKIA|BEGIN .*PRIVATE KEY|secret_access_key\s*[:=]|password", text, re.I)


@pytest.mark.parametrize("name", MANIFESTS)
def test_image_manifest_and_constraints_pin_the_same_ray(name):
    content = read(name)["spec"]
    version = content.get("rayClusterSpec", content)["rayVersion"]
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    image = re.search(
        r"FROM rayproject/ray:([\d.]+)-", (CLUSTER / "kuberay/Dockerfile").read_text()
    )

    assert pinned
    assert image
    assert version == pinned[1] == image[1]


def test_ray_job_runs_search_py_with_valid_flags():
    words = shlex.split(read("kuberay/rayjob.yaml")["spec"]["entrypoint"])
    _, bound, _ = app["search"].parse_args(words[2:], print_error=False, exit_on_error=False)

    assert words[:2] == ["python", "/home/ray/thermal-search/cluster/search.py"]
    assert bound.kwargs["settings"].slots == 4


def test_all_launched_clusters_have_the_same_setup():
    first, *others = (read(name) for name in LAUNCHED)

    for other in others:
        assert other["file_mounts"] == first["file_mounts"]
        assert other["setup_commands"] == first["setup_commands"]
        assert other["worker_start_ray_commands"] == first["worker_start_ray_commands"]


@pytest.mark.parametrize("path", sorted(p for p in CLUSTER.rglob("*") if p.is_file()), ids=str)
def test_what_starts_from_the_network_is_pinned(path):
    text = path.read_text()
    if path.suffix in (".md", ".py"):
        return

    assert not re.search(r"curl|wget|[:/]latest\b|images/family", text)
    assert not re.search(r"pip install[^\n&]*\buv(?!==)\b(?! pip)", text)
