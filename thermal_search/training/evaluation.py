"""Judging a translator: the Frechet distance of what it paints to what the camera saw."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor
from torchvision.utils import make_grid, save_image

from thermal_search.architectures.translator import Translator
from thermal_search.dataset.frames import EVALUATION_BATCH, WorkerFrames
from thermal_search.images import Thermal, to_network_range, to_pixels
from thermal_search.metrics import ClassStatistics, Extractor, Reference, Statistics
from thermal_search.training.group import Group

JUDGE_SEED = 20_141_206
"""Latents and dropout of every evaluation of every trial: what changes is the generator alone."""

GRID_ROWS = 4


@dataclass(frozen=True)
class Judgement:
    """What is found when a generator is judged."""

    score: float
    """The Frechet distance: what a search minimises."""

    beside: dict[str, float]
    """Logged, never searched for: the mean absolute error over the pairs (`l1`, 0 .. 255), and the
    Inception Score where the features' network has classes."""

    grid: str | None
    """The picture grid's file name, on the worker that drew it."""


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
    def evaluate(self, translator: Translator, grid: Path) -> Judgement:
        """Judges over all workers' shares, and draws the picture grid.

        Runs in float32 whatever trains, as the exported generator will, and leaves the random
        state of the training alone.
        """
        statistics = Statistics(self.extractor.dimensions)
        # On every worker, one without frames included: all of them add up what they have.
        classes = ClassStatistics(count) if (count := self.extractor.classes) else None
        error = torch.zeros(2, dtype=torch.float64)  # sum, and pixels
        painted: list[Tensor] = []
        was_training = translator.training
        translator.eval()
        with torch.random.fork_rng(devices=_cuda_devices(self.device)):
            for thermal, real in self._paint(translator):
                pixels = to_pixels(thermal)
                features = self.extractor(pixels)
                statistics.add(features)
                if classes:
                    classes.add(self.extractor.classify(features))
                difference = (pixels.float() - real.to(self.device).float()).abs()
                error += torch.tensor([difference.sum().item(), difference.numel()])
                if len(painted) * EVALUATION_BATCH < GRID_ROWS:
                    painted.append(pixels.cpu())
        translator.train(was_training)
        statistics.all_reduce(self.group.control)
        total, pixels = self.group.sum(error)
        beside = {"l1": (total / pixels).item()}
        if classes:
            classes.all_reduce(self.group.control)
            beside[f"inception_score{self._suffix}"] = classes.score
        score = self.group.ask_leader(lambda: self.reference.distance(statistics))
        if not self.group.leads:
            return Judgement(score, beside, None)
        self._draw(torch.cat(painted), grid)
        return Judgement(score, beside, grid.name)

    @property
    def _suffix(self) -> str:
        """Keeps apart what was measured with another network than Inception, as the metric does."""
        is_inception = self.extractor.name == "inception"
        return "" if is_inception else f"_{self.extractor.name.replace('-', '_')}"

    def _paint(self, translator: Translator) -> Iterator[tuple[Thermal, Tensor]]:
        """What is painted of each batch, and the real frames as bytes."""
        rgb, real = self.data.validation
        for start in range(0, len(rgb), EVALUATION_BATCH):
            # By its place in the whole split, so that any number of workers draws the same.
            seed = JUDGE_SEED + self.data.validation_start + start
            torch.manual_seed(seed)
            numbers = range(start, min(start + EVALUATION_BATCH, len(rgb)))
            batch = to_network_range(rgb.take(numbers).to(self.device))
            z = translator.draw_latent(len(batch), Generator().manual_seed(seed))
            thermal = translator.translate(batch, None if z is None else z.to(self.device))
            yield thermal, real.take(numbers)

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
