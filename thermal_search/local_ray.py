"""Ray on this machine only, which no other machine can reach."""

import os
from typing import Any


def start(**settings: Any) -> None:
    """Calls `ray.init` so that Ray listens on the loopback interface only.

    On macOS and Windows Ray does so by default. On Linux it listens on all interfaces, unless a
    switch is set that Ray reads when it is imported; its public interface has no other one.
    """
    import ray
    from ray._private import ray_constants

    switch = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(switch)
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[switch] = False, "0"
    try:
        ray.init(address="local", **settings)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before[0]
        if before[1] is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before[1]
