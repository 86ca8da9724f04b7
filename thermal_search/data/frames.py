"""Frames in memory, read by index."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from thermal_search.images import Temperatures, to_network_range, to_pixels
from thermal_search.pair_alignment import PairAlignment

EVALUATION_BATCH = 16
"""Images per batch of an evaluation. Shards of the validation split end on its multiples, so that
any number of workers evaluates the same batches."""


class Frames:
    """Images of one kind, in blocks of shape [rows, channels, size, size] that are not copied.

    Blocks are uint8, or with `temperatures` the uint16 counts of a radiometric camera.
    """

    def __init__(
        self,
        blocks: Sequence[np.ndarray[Any, Any]],
        *,
        size: int,
        channels: int,
        temperatures: Temperatures | None = None,
    ) -> None:
        self.blocks = [block for block in blocks if len(block)]
        self.starts = np.cumsum([0, *(len(block) for block in self.blocks)]).tolist()
        self.shape = (channels, size, size)
        self.temperatures = temperatures

    def __len__(self) -> int:
        return self.starts[-1]

    def __add__(self, other: "Frames") -> "Frames":
        channels, size, _ = self.shape
        blocks = [*self.blocks, *other.blocks]
        return Frames(blocks, size=size, channels=channels, temperatures=self.temperatures)

    def slice(self, start: int, stop: int) -> "Frames":
        """The frames from `start` to before `stop`, not copied."""
        channels, size, _ = self.shape
        blocks = [
            block[max(start - first, 0) : max(stop - first, 0)]
            for first, block in zip(self.starts, self.blocks, strict=False)
        ]
        return Frames(blocks, size=size, channels=channels, temperatures=self.temperatures)

    def take(self, indices: Iterable[int]) -> UInt8[Tensor, "count channels size size"]:
        """The frames of these indices as gray levels 0 .. 255, for display and for metrics."""
        raw = self.raw(indices)
        return to_pixels(self.temperatures.images(raw)) if self.temperatures else raw

    def images(self, raw: Tensor) -> Float[Tensor, "count channels size size"]:
        """Converts what `raw` returned to network range, -1 .. 1, on its device."""
        return self.temperatures.images(raw) if self.temperatures else to_network_range(raw)

    def raw(self, indices: Iterable[int]) -> Tensor:
        """A copy of the frames of these indices: bytes, or 16-bit counts, as on disk."""
        indices = list(indices)
        pixels = np.empty((len(indices), *self.shape), np.uint16 if self.temperatures else np.uint8)
        for row, index in enumerate(indices):
            block = bisect_right(self.starts, index) - 1
            pixels[row] = self.blocks[block][index - self.starts[block]]
        return torch.from_numpy(pixels)


@dataclass(frozen=True)
class EvaluationPairs:
    """One worker's shard of the pairs that generators are evaluated on."""

    rgb: Frames
    thermal: Frames
    start: int
    """Index of this shard's first pair among the pairs of all workers."""

    def __len__(self) -> int:
        return len(self.rgb)


@dataclass(frozen=True)
class WorkerFrames:
    """One worker's shard of a dataset."""

    size: int
    """Height and width in pixels."""

    paired: tuple[Frames, Frames]
    """RGB and thermal frames of the training pairs: equal indices show the same scene."""

    unpaired: tuple[Frames, Frames]
    """All RGB and all thermal training frames, including those without a partner."""

    validation: EvaluationPairs

    test: EvaluationPairs
    """Empty during a search, until the finalists are evaluated."""

    alignment: PairAlignment

    @property
    def thermal(self) -> tuple[Frames, Frames]:
        """All thermal training frames: those of the pairs, and those without a partner."""
        (_, paired), (_, every) = self.paired, self.unpaired
        return paired, every.slice(len(paired), len(every))

    @property
    def temperatures(self) -> Temperatures | None:
        """The meaning of thermal counts in degrees; None for 8-bit pixels."""
        return self.validation.thermal.temperatures
