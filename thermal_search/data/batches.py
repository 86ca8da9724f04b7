"""Endless, shuffled, mirrored training batches whose place can be saved and found again exactly."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from thermal_search.data.frames import Frames
from thermal_search.images import Batch


class Batches(Protocol):
    """What a training step draws from, and a checkpoint remembers."""

    def __iter__(self) -> Iterator[Batch]: ...
    def __next__(self) -> Batch: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Shuffle:
    """Numbers below `count`, each once an epoch, every epoch in a new order, epochs end to end."""

    def __init__(self, count: int, random: Generator) -> None:
        self.count, self.random = count, random
        self.order = torch.empty(0, dtype=torch.int64)
        self.place = 0

    def take(self, wanted: int) -> list[int]:
        taken: list[int] = []
        while len(taken) < wanted:
            if self.place == len(self.order):
                self.order, self.place = torch.randperm(self.count, generator=self.random), 0
            until = min(self.place + wanted - len(taken), len(self.order))
            taken += self.order[self.place : until].tolist()
            self.place = until
        return taken

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order, "place": self.place, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        # Another number of workers deals other shares: the epoch then starts afresh.
        if state["count"] == self.count:
            self.order, self.place = state["order"], state["place"]


class PairedBatches:
    """The same scenes side by side, mirrored together."""

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
        numbers = self.shuffle.take(self.batch_size)
        mirrored = _flips(self.batch_size, self.random)
        return Batch(
            rgb=_prepare(self.rgb, numbers, mirrored, self.device),
            thermal=_prepare(self.thermal, numbers, mirrored, self.device),
        )

    def state_dict(self) -> dict[str, Any]:
        return {"random": self.random.get_state(), "pairs": self.shuffle.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.random.set_state(state["random"])
        self.shuffle.load_state_dict(state["pairs"])


class UnpairedBatches:
    """RGB and thermal frames drawn independently of each other, each mirrored by itself."""

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


def _prepare(frames: Frames, numbers: list[int], mirrored: Tensor, device: torch.device) -> Tensor:
    # Bytes (or counts) travel to the device, a quarter (or half) of the floats; the rest happens
    # there.
    pixels = frames.stored(numbers)
    if device.type == "cuda":
        pixels = pixels.pin_memory()
    pixels = pixels.to(device, non_blocking=True)
    mirrored = mirrored.to(device, non_blocking=True).view(-1, 1, 1, 1)
    images = frames.images(pixels)
    return torch.where(mirrored, images.flip(-1), images)
