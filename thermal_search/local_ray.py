"""Ray on this machine only, which no other machine can reach, or on an existing cluster."""

import os
from typing import Any

from thermal_search.errors import SearchError


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


def connect(address: str, **settings: Any) -> None:
    """Calls `ray.init` for the cluster at `address`.

    Raises SearchError if no cluster answers, or if it refuses this machine's token.
    """
    import ray
    from ray.exceptions import AuthenticationError

    try:
        ray.init(address=address, **settings)
    except ConnectionError:
        raise SearchError(
            f"No Ray cluster answers at {address!r}: start one (ray start --head), or pass "
            "--address local to use this machine alone."
        ) from None
    except AuthenticationError:
        raise SearchError(
            f"The Ray cluster at {address!r} requires another token than this machine's: copy "
            "~/.ray/auth_token from the head of the cluster and set RAY_AUTH_MODE=token."
        ) from None
