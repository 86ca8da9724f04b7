"""How the workers of a slot connect to each other, unreachable for anyone else."""

import os
import socket
import struct
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

SIOCGIFADDR = 0x8915
"""Linux's request for an interface's address (netdevice(7))."""


@dataclass
class Rendezvous(BackendConfig):
    """Ray Train's configuration for workers that connect at rank 0's address in Ray.

    On a single machine that is loopback. torch's own rendezvous listens on all addresses, and Ray's
    configuration of torch imports torch in the controller, which only waits.
    """

    backend: str
    """The torch.distributed backend: nccl or gloo."""

    timeout_s: int = 1800
    """Seconds after which a collective operation fails."""

    @property
    def backend_cls(self) -> type[Backend]:  # pyright: ignore[reportIncompatibleMethodOverride] - Ray calls nothing but what every Backend has
        return _RendezvousBackend


class _RendezvousBackend(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        assert isinstance(backend_config, Rendezvous)
        size = len(worker_group)
        if size == 1:
            return
        address, port = worker_group.execute_single(0, _listen)
        timeout = timedelta(seconds=backend_config.timeout_s)
        arguments = (backend_config.backend, address, port, size, timeout)
        ray.get([worker_group.execute_single_async(r, _join, r, *arguments) for r in range(size)])


_listening: list[socket.socket] = []
"""On rank 0: the open socket, from `_listen` to `_join`."""


def _listen() -> tuple[str, int]:
    """Opens rank 0's socket; returns its address and port."""
    address = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, 0), family=family)
    _listening[:] = [listener]
    return address, listener.getsockname()[1]


def _join(rank: int, backend: str, address: str, port: int, size: int, timeout: timedelta) -> None:
    """Joins the process group whose rank 0 listens at this address."""
    import torch.distributed as dist

    from thermal_search.distributed.worker_group import keep_to_loopback

    if address in ("127.0.0.1", "::1"):
        keep_to_loopback()
    elif interface := _interface_of(ray.util.get_node_ip_address()):
        # Otherwise gloo resolves the machine's name, which on Debian is a loopback address.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    listener = _listening.pop().detach() if rank == 0 else None
    store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage] - documented there
        address, port, size, rank == 0, timeout, wait_for_workers=False, master_listen_fd=listener
    )
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def _interface_of(address: str) -> str | None:
    """The network interface with an IPv4 address; None if there is none, or outside Linux."""
    if sys.platform != "linux":
        return None
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for _, name in socket.if_nameindex():
            try:
                reply = fcntl.ioctl(control, SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # without an IPv4 address
            if socket.inet_ntoa(reply[20:24]) == address:
                return name
    return None
