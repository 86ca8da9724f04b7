"""Frames in memory, taken by number."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from thermal_search.images import Temperatures, to_network_range, to_pixels

EVALUATION_BATCH = 16
"""Images judged at once. Shares of the validation split end on its multiples, so that 1 and N
workers evaluator the very same batches."""


class Frames:
    """Images of one kind, over uncopied blocks of shape [rows, channels, size, size].

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

    def part(self, start: int, stop: int) -> "Frames":
        """Those from `start` to before `stop`, uncopied."""
        channels, size, _ = self.shape
        blocks = [
            block[max(start - first, 0) : max(stop - first, 0)]
            for first, block in zip(self.starts, self.blocks, strict=False)
        ]
        return Frames(blocks, size=size, channels=channels, temperatures=self.temperatures)

    def take(self, numbers: Iterable[int]) -> UInt8[Tensor, "count channels size size"]:
        """The frames of these numbers as people and metrics see them: 0 .. 255."""
        stored = self.stored(numbers)
        return to_pixels(self.temperatures.images(stored)) if self.temperatures else stored

    def images(self, stored: Tensor) -> Float[Tensor, "count channels size size"]:
        """What `stored` gave, in network range, on its device."""
        return self.temperatures.images(stored) if self.temperatures else to_network_range(stored)

    def stored(self, numbers: Iterable[int]) -> Tensor:
        """The frames of these numbers, copied out, bytes or counts as on disk."""
        numbers = list(numbers)
        pixels = np.empty((len(numbers), *self.shape), np.uint16 if self.temperatures else np.uint8)
        for row, number in enumerate(numbers):
            block = bisect_right(self.starts, number) - 1
            pixels[row] = self.blocks[block][number - self.starts[block]]
        return torch.from_numpy(pixels)


@dataclass(frozen=True)
class EvaluationPairs:
    """One worker's share of the pairs of a split that generators are judged on."""

    rgb: Frames
    thermal: Frames
    start: int
    """Number of this share's first pair among those of all workers."""

    def __len__(self) -> int:
        return len(self.rgb)


@dataclass(frozen=True)
class WorkerFrames:
    """One worker's share of a dataset."""

    size: int
    """Height and width in pixels."""

    paired: tuple[Frames, Frames]
    """RGB and thermal frames of the training pairs: equal numbers show the same scene."""

    unpaired: tuple[Frames, Frames]
    """Every RGB and every thermal training frame, the stills without a partner included."""

    validation: EvaluationPairs

    test: EvaluationPairs
    """Empty while a search chooses."""

    @property
    def thermal(self) -> tuple[Frames, Frames]:
        """Every thermal training frame: those of the pairs, and those without a partner."""
        (_, paired), (_, every) = self.paired, self.unpaired
        return paired, every.part(len(paired), len(every))

    @property
    def temperatures(self) -> Temperatures | None:
        """What thermal means in degrees; None where it is 8-bit pixels."""
        return self.validation.thermal.temperatures
