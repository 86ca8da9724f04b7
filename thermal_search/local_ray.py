"""A Ray of this machine alone, which no other machine can reach."""

import os
from typing import Any


def start(**settings: Any) -> None:
    """`ray.init`, listening on the loopback interface and on no other.

    On macOS and Windows Ray does so by itself. On Linux it listens everywhere, and the switch
    between the two is read when Ray is imported: it has no other name in Ray's interface.
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
