"""The files of cluster/, without a cloud: Ray's own check, a stricter one, and rules of ours."""

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
    """The path to every key whose name a schema knows."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from keys(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from keys(inner, (*path, number))


ANYONES = {"file_mounts", "rayStartParams", "nodeSelector"}
"""Mappings whose keys are names of ours or of the reader."""

KEYS = [
    (name, path)
    for name in SCHEMAS
    for path in keys(read(name))
    if not any(part in ANYONES for part in path[:-1])
]


def test_every_file_of_the_folder_is_checked():
    assert {str(path.relative_to(CLUSTER)) for path in CLUSTER.rglob("*.yaml")} == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_has_only_fields_that_exist(name):
    Draft202012Validator(SCHEMAS[name]).validate(read(name))


def test_a_misspelt_key_is_found_wherever_it_is():
    # All of them in one test: each alone would only add lines.
    files = {name: (read(name), Draft202012Validator(SCHEMAS[name])) for name in SCHEMAS}
    assert len(KEYS) > 100
    for name, path in KEYS:
        sound, schema = files[name]
        content = copy.deepcopy(sound)
        place = content
        for part in path[:-1]:
            place = place[part]
        place[f"{path[-1]}x"] = place.pop(path[-1])
        assert not schema.is_valid(content), f"{name}: {path}"


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_takes_it(name):
    validate_config(prepare_config(read(name)))


def test_all_machines_of_ones_own_are_used_always():
    content = read("on-premise.yaml")
    content["provider"]["worker_ips"].append("10.0.0.13")
    prepared = prepare_config(content)
    (machines,) = prepared["available_node_types"].values()

    validate_config(prepared)
    assert machines["min_workers"] == machines["max_workers"] == prepared["max_workers"] == 3


def test_the_disks_of_google_are_in_the_zone_of_its_machines():
    content = read("gcp.yaml")
    zone = content["provider"]["availability_zone"]
    for machine in content["available_node_types"].values():
        for disk in machine["node_config"]["disks"]:
            # A machine with an L4 refuses the default, pd-standard.
            assert disk["initializeParams"]["diskType"] == f"zones/{zone}/diskTypes/pd-balanced"


@pytest.mark.parametrize("name", LAUNCHED)
def test_what_it_copies_is_in_the_checkout(name):
    mounts = read(name)["file_mounts"]
    token = mounts.pop("~/.ray/auth_token")

    assert token == "~/.ray/auth_token"
    for remote, local in mounts.items():
        assert remote == local, "the machines look like the checkout"
        assert (ROOT / Path(local).relative_to("~/thermal-search")).exists(), local


@pytest.mark.parametrize("name", LAUNCHED)
def test_what_the_package_needs_is_copied(name):
    copied = {Path(path).name for path in read(name)["file_mounts"]}

    assert {"thermal_search", "search_spaces", "pyproject.toml", "constraints.txt"} <= copied
    assert {"README.md", "process.py"} <= copied


@pytest.mark.parametrize("name", LAUNCHED)
def test_asks_for_a_token_and_shows_the_dashboard_to_nobody(name):
    content = read(name)
    logins = "\n".join(content["setup_commands"])
    head, workers = content["head_start_ray_commands"], content["worker_start_ray_commands"]

    assert "RAY_AUTH_MODE=token" in logins
    assert "--dashboard-host=127.0.0.1" in head[-1]
    assert "0.0.0.0" not in "\n".join([*head, *workers])


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_submitted_command_finds_what_the_logins_set(name, tmp_path):
    # As most machines have it: only those at a terminal read further.
    (tmp_path / ".bashrc").write_text("case $- in *i*) ;; *) return ;; esac\n")

    def typed(command: str) -> str:
        # What the far shell makes of Ray's words.
        return subprocess.run(
            ["bash", "-c", " ".join(_with_interactive(command))],
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    for _ in ("ray up", "again, with a changed line"):
        for command in read(name)["setup_commands"][-3:]:
            typed(command)

    assert typed("echo $MLFLOW_TRACKING_URI $RAY_AUTH_MODE").split() == [
        "http://127.0.0.1:5000",
        "token",
    ]
    assert typed("echo $PATH").startswith(f"{tmp_path}/venv/bin:")
    assert (tmp_path / ".thermal-search").read_text().count("MLFLOW_TRACKING_URI") == 1


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_search_on_kubernetes_is_told_where_the_runs_are_kept(name):
    content = read(name)["spec"]
    (head,) = content.get("rayClusterSpec", content)["headGroupSpec"]["template"]["spec"][
        "containers"
    ]

    assert "MLFLOW_TRACKING_URI" in {variable["name"] for variable in head["env"]}


@pytest.mark.parametrize("name", LAUNCHED)
def test_no_command_is_cut_off_by_a_comment(name):
    for key, commands in read(name).items():
        if key.endswith("_commands"):
            for command in commands:
                assert shlex.split(command), command


@pytest.mark.parametrize("name", ["cluster.yaml", "gcp.yaml"])
def test_workers_are_spot_and_cost_nothing_while_nothing_is_searched(name):
    content = read(name)
    worker = content["available_node_types"]["worker"]

    assert worker["min_workers"] == 0
    assert worker["max_workers"] == content["max_workers"]
    assert "spot" in str(worker["node_config"]).lower()
    assert "spot" not in str(content["available_node_types"]["head"]).lower()
    assert content["available_node_types"]["head"]["resources"]["CPU"] == 0


@pytest.mark.parametrize("name", SCHEMAS)
def test_holds_no_credential(name):
    text = (CLUSTER / name).read_text()

    assert not re.search(r"AKIA|BEGIN .*PRIVATE KEY|secret_access_key\s*[:=]|password", text, re.I)


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_image_and_the_manifest_name_one_ray(name):
    content = read(name)["spec"]
    version = content.get("rayClusterSpec", content)["rayVersion"]
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    image = re.search(
        r"FROM rayproject/ray:([\d.]+)-", (CLUSTER / "kuberay/Dockerfile").read_text()
    )

    assert pinned
    assert image
    assert version == pinned[1] == image[1]


def test_the_job_asks_for_a_search_that_our_flags_know():
    words = shlex.split(read("kuberay/rayjob.yaml")["spec"]["entrypoint"])
    _, bound, _ = app["search"].parse_args(words[2:], print_error=False, exit_on_error=False)

    assert words[:2] == ["python", "/home/ray/thermal-search/cluster/search.py"]
    assert bound.kwargs["settings"].slots == 4


def test_all_launched_clusters_are_set_up_alike():
    first, *others = (read(name) for name in LAUNCHED)

    for other in others:
        assert other["file_mounts"] == first["file_mounts"]
        assert other["setup_commands"] == first["setup_commands"]
        assert other["worker_start_ray_commands"] == first["worker_start_ray_commands"]
