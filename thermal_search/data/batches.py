"""Endless, shuffled, randomly mirrored training batches, whose state can be saved and restored."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from thermal_search.data.frames import Frames
from thermal_search.images import Batch


class Batches(Protocol):
    """What a training step draws from, and a checkpoint saves."""

    def __iter__(self) -> Iterator[Batch]: ...
    def __next__(self) -> Batch: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Shuffle:
    """Indices below `count`: each once per epoch, every epoch in a new order, without gaps."""

    def __init__(self, count: int, random: Generator) -> None:
        self.count, self.random = count, random
        self.order = torch.empty(0, dtype=torch.int64)
        self.position = 0

    def take(self, wanted: int) -> list[int]:
        """The next `wanted` indices, across epochs if need be."""
        taken: list[int] = []
        while len(taken) < wanted:
            if self.position == len(self.order):
                self.order, self.position = torch.randperm(self.count, generator=self.random), 0
            end = min(self.position + wanted - len(taken), len(self.order))
            taken += self.order[self.position : end].tolist()
            self.position = end
        return taken

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order, "position": self.position, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        # With another number of workers the shards differ: a new epoch starts.
        if state["count"] == self.count:
            self.order, self.position = state["order"], state["position"]


class PairedBatches:
    """Pairs of one scene, both images mirrored or neither."""

    def __init__(
        self, rgb: Frames, thermal: Frames, *, batch_size: int, seed: int, device: torch.device
    ) -> None:
        assert len(rgb) == len(thermal)
        self.rgb, self.thermal = rgb, thermal
        self.batch_size, self.device = batch_size, device
        self.random = Generator().manual_seed(seed)
        self.shuffle = Shuffle(len(rgb), self.random)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        indices = self.shuffle.take(self.batch_size)
        mirrored = _flips(self.batch_size, self.random)
        return Batch(
            rgb=_prepare(self.rgb, indices, mirrored, self.device),
            thermal=_prepare(self.thermal, indices, mirrored, self.device),
        )

    def state_dict(self) -> dict[str, Any]:
        return {"random": self.random.get_state(), "pairs": self.shuffle.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.random.set_state(state["random"])
        self.shuffle.load_state_dict(state["pairs"])


class UnpairedBatches:
    """RGB and thermal frames that are drawn and mirrored independently of each other."""

    def __init__(
        self, rgb: Frames, thermal: Frames, *, batch_size: int, seed: int, device: torch.device
    ) -> None:
        self.rgb, self.thermal = rgb, thermal
        self.batch_size, self.device = batch_size, device
        self.random = Generator().manual_seed(seed)
        self.rgb_shuffle = Shuffle(len(rgb), self.random)
        self.thermal_shuffle = Shuffle(len(thermal), self.random)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        rgb = self.rgb_shuffle.take(self.batch_size)
        thermal = self.thermal_shuffle.take(self.batch_size)
        return Batch(
            rgb=_prepare(self.rgb, rgb, _flips(self.batch_size, self.random), self.device),
            thermal=_prepare(
                self.thermal, thermal, _flips(self.batch_size, self.random), self.device
            ),
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "random": self.random.get_state(),
            "rgb": self.rgb_shuffle.state_dict(),
            "thermal": self.thermal_shuffle.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.random.set_state(state["random"])
        self.rgb_shuffle.load_state_dict(state["rgb"])
        self.thermal_shuffle.load_state_dict(state["thermal"])


def _flips(count: int, random: Generator) -> Tensor:
    return torch.rand(count, generator=random) < 0.5


def _prepare(frames: Frames, indices: list[int], mirrored: Tensor, device: torch.device) -> Tensor:
    # Bytes (or counts) are copied to the device, a quarter (or half) of the floats, and are
    # converted there.
    pixels = frames.raw(indices)
    if device.type == "cuda":
        pixels = pixels.pin_memory()
    pixels = pixels.to(device, non_blocking=True)
    mirrored = mirrored.to(device, non_blocking=True).view(-1, 1, 1, 1)
    images = frames.images(pixels)
    return torch.where(mirrored, images.flip(-1), images)
