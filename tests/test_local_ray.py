"""Ray on this machine: it asks for a token, and says nothing about it."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.ray

START = """
import ray
from thermal_search import local_ray
local_ray.start(include_dashboard=False, num_cpus=1, log_to_driver=False, logging_level="warning")
print(ray.get(ray.remote(lambda: 6 * 7).remote()))
ray.shutdown()
"""


def run(code, home):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_local_cluster_has_a_token_and_does_not_warn_of_it(tmp_path):
    done = run(START, tmp_path)

    assert done.stdout.split() == ["42"], done.stderr
    assert "token" not in done.stderr.lower()
    assert len((tmp_path / ".ray" / "auth_token").read_text()) == 64
