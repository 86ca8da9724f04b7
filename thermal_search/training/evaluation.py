"""Judging a translator: the Frechet distance of what it paints to what the camera saw."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Generator, Tensor
from torchvision.utils import make_grid, save_image

from thermal_search.architectures.translator import Translator
from thermal_search.dataset.frames import EVALUATION_BATCH, WorkerFrames
from thermal_search.images import to_network_range, to_pixels
from thermal_search.metrics import Extractor, Reference, Statistics
from thermal_search.training.group import Group

JUDGE_SEED = 20_141_206
"""Latents and dropout of every evaluation of every trial: what changes is the generator alone."""

GRID_ROWS = 4


class Judge:
    """Judges translators on the validation pairs; stays warm from trial to trial."""

    def __init__(
        self,
        data: WorkerFrames,
        extractor: Extractor,
        reference: Reference,
        group: Group,
        device: torch.device,
    ) -> None:
        self.data, self.extractor, self.reference = data, extractor, reference
        self.group, self.device = group, device

    @torch.inference_mode()
    def evaluate(self, translator: Translator, grid: Path) -> tuple[float, str | None]:
        """The distance over all workers' shares, and the name of the picture grid, if drawn.

        Runs in float32 whatever trains, as the exported generator will, and leaves the random
        state of the training alone.
        """
        statistics = Statistics(self.extractor.dimensions)
        painted: list[Tensor] = []
        was_training = translator.training
        translator.eval()
        with torch.random.fork_rng(devices=_cuda_devices(self.device)):
            for thermal in self._paint(translator):
                pixels = to_pixels(thermal)
                statistics.add(self.extractor(pixels))
                if len(painted) * EVALUATION_BATCH < GRID_ROWS:
                    painted.append(pixels.cpu())
        translator.train(was_training)
        statistics.all_reduce(self.group.control)
        score = self.group.ask_leader(lambda: self.reference.distance(statistics))
        if not self.group.leads:
            return score, None
        self._draw(torch.cat(painted), grid)
        return score, grid.name

    def _paint(self, translator: Translator) -> Iterator[Tensor]:
        rgb, _ = self.data.validation
        for start in range(0, len(rgb), EVALUATION_BATCH):
            # By its place in the whole split, so that any number of workers draws the same.
            seed = JUDGE_SEED + self.data.validation_start + start
            torch.manual_seed(seed)
            numbers = range(start, min(start + EVALUATION_BATCH, len(rgb)))
            batch = to_network_range(rgb.take(numbers).to(self.device))
            z = translator.draw_latent(len(batch), Generator().manual_seed(seed))
            yield translator.translate(batch, None if z is None else z.to(self.device))

    def _draw(self, painted: Tensor, path: Path) -> None:
        """Rows of RGB | real thermal | painted thermal, spread over the share's first batch."""
        rgb, thermal = self.data.validation
        rows = torch.linspace(0, len(painted) - 1, min(GRID_ROWS, len(painted))).long().tolist()
        columns = (
            rgb.take(rows),
            thermal.take(rows).expand(-1, 3, -1, -1),
            painted[rows].expand(-1, 3, -1, -1),
        )
        pictures = torch.stack(columns, dim=1).flatten(0, 1).float() / 255
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.png")
        save_image(make_grid(pictures, nrow=3, padding=2, pad_value=1.0), partial)
        partial.replace(path)


def _cuda_devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
