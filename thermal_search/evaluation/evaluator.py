"""Judging a translator: the Frechet distance of what it paints to what the camera saw."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Generator, Tensor
from torchvision.utils import make_grid, save_image

from thermal_search.architectures.translator import Translator
from thermal_search.data.frames import EVALUATION_BATCH, EvaluationPairs
from thermal_search.distributed.worker_group import WorkerGroup, detect_lost_workers
from thermal_search.errors import TrialDiverged
from thermal_search.images import to_network_range, to_pixels
from thermal_search.metrics import (
    ClassStatistics,
    Extractor,
    KernelReference,
    PairedMeasures,
    PerceptualDistance,
    Protocol,
    Reference,
    Statistics,
    at_infinity,
    keep,
    load_cached,
    measure,
    without_tf32,
)
from thermal_search.storage import Location

EVALUATION_SEED = 20_141_206
"""Latents and dropout of every evaluation of every trial: what changes is the generator alone."""

GRID_ROWS = 4


@dataclass(frozen=True)
class EvaluationResult:
    """What is found when a generator is judged."""

    metrics: dict[str, float]
    """By key: the Frechet distance (`fid` on Inception's features) and its extrapolation to
    infinitely many images, `..._infinity`; `kid`, its standard error `kid_std` and, if the network
    has classes, `inception_score`, each with the features' name at the end unless that is Inception;
    `l1` (0 .. 255), `psnr`, `ssim`, and `lpips` if its weights are given."""

    grid: str | None
    """The image grid's file name, on the worker that drew it."""


def full_protocol(
    protocol: Protocol, perceptual: PerceptualDistance | None
) -> dict[str, str | int]:
    """How every number of a search is measured."""
    lpips = {"lpips": f"{perceptual.backbone} {perceptual.digest}"} if perceptual else {}
    return protocol.to_json() | lpips


def _ignore_progress(pictures: int) -> None:
    """Nobody follows how far a evaluator is."""


class Evaluator:
    """Evaluators translators on the pairs of one split; stays warm from trial to trial.

    `advance` hears of every batch how many images it had, as soon as they are measured.
    """

    def __init__(
        self,
        pairs: EvaluationPairs,
        extractor: Extractor,
        real: Statistics,
        group: WorkerGroup,
        device: torch.device,
        perceptual: PerceptualDistance | None = None,
        advance: Callable[[int], None] = _ignore_progress,
    ) -> None:
        self.pairs, self.extractor, self.real = pairs, extractor, real
        self.advance = advance
        self.group, self.device, self.perceptual = group, device, perceptual

    @property
    def protocol(self) -> Protocol:
        """How this evaluator's numbers on the extractor's features are measured."""
        return self.extractor.protocol(images=self.real.count, size=self.pairs.rgb.shape[-1])

    @property
    def full_protocol(self) -> dict[str, str | int]:
        """The same, with what the paired measures hang on."""
        return full_protocol(self.protocol, self.perceptual)

    @cached_property
    def _references(self) -> tuple[Reference, KernelReference]:
        # The first worker's alone: only it computes distances.
        return Reference(self.real), KernelReference(self.real)

    @torch.inference_mode()
    def evaluate(self, translator: Translator, grid: Location | Path) -> EvaluationResult:
        """Evaluators over all workers' shares, and draws the image grid.

        Runs in float32 whatever trains, as the exported generator will, and leaves the random
        state of the training alone. Raises TrialDiverged where what is painted is not finite.
        """
        painted: list[Tensor] = []
        broken = torch.zeros(1, dtype=torch.int64)

        def seen() -> Iterator[tuple[Tensor, Tensor]]:
            for thermal, real in self._generate(translator):
                # Bytes would not show it: such a number becomes one of them.
                broken.add_((~thermal.isfinite()).sum().cpu())
                pixels = to_pixels(thermal)
                if len(painted) * EVALUATION_BATCH < GRID_ROWS:
                    painted.append(pixels.cpu())
                yield pixels, real

        was_training = translator.training
        translator.eval()
        with torch.random.fork_rng(devices=_cuda_devices(self.device)):
            metrics = self.measure(seen())
        translator.train(was_training)
        if bad := int(self.group.sum(broken).item()):
            raise TrialDiverged(f"its generator painted {bad} pixels that are not finite numbers")
        if not self.group.is_rank_zero:
            return EvaluationResult(metrics, None)
        grid = Location.of(grid)
        self._draw(torch.cat(painted), grid)
        return EvaluationResult(metrics, grid.name)

    @torch.inference_mode()
    def measure(self, painted: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """The whole table of batches of painted images and the real ones beside them, as bytes,
        over all workers' shares."""
        paired = PairedMeasures(self.perceptual)

        def alone() -> Iterator[tuple[int, Tensor]]:
            number = self.pairs.start
            for pixels, real in painted:
                paired.add(pixels, real)
                yield number, pixels
                number += len(pixels)

        found = self.measure_alone(alone())
        with detect_lost_workers():
            paired.all_reduce(self.group.control)
        return found | paired.means

    @torch.inference_mode()
    def measure_alone(self, pictures: Iterable[tuple[int, Tensor]]) -> dict[str, float]:
        """What of the table needs no image beside another, of batches of bytes over all workers;
        each comes after the number of its first image among those of all."""
        # On every worker, one without frames included: all of them add up what they have.
        statistics = Statistics(self.extractor.dimensions)
        classes = ClassStatistics(count) if (count := self.extractor.classes) else None
        for number, pixels in pictures:
            features = self.extractor(pixels)
            statistics.add(features, number)
            if classes:
                classes.add(self.extractor.classify(features))
            self.advance(len(pixels))
        with detect_lost_workers():
            for sums in (statistics, *([classes] if classes else [])):
                sums.all_reduce(self.group.control)
        found = self.group.broadcast_object(lambda: self._distances(statistics))
        if classes:
            found[f"inception_score{self._suffix}"] = classes.score
        return found

    def _distances(self, painted: Statistics) -> dict[str, float]:
        frechet, kernel = self._references
        kid = kernel.distance(painted)
        found = {
            self.metric: frechet.distance(painted),
            f"{self.metric}_infinity": at_infinity(frechet, painted),
            self.kernel_metric: kid.value,
            f"kid_std{self._suffix}": kid.std,
        }
        return {key: value for key, value in found.items() if value is not None}

    @property
    def metric(self) -> str:
        """The key of the Frechet distance."""
        return self.extractor.metric

    @property
    def kernel_metric(self) -> str:
        return f"kid{self._suffix}"

    @property
    def _suffix(self) -> str:
        """Keeps apart what was measured with another network than Inception, as the metric does."""
        return self.extractor.metric.removeprefix("fid").removeprefix("fd")

    def _generate(self, translator: Translator) -> Iterator[tuple[Tensor, Tensor]]:
        """What is painted of each batch, in network range, and the real frames, as bytes."""
        pairs = self.pairs
        for start in range(0, len(pairs), EVALUATION_BATCH):
            # By its place in the whole split, so that any number of workers draws the same.
            seed = EVALUATION_SEED + pairs.start + start
            torch.manual_seed(seed)
            numbers = range(start, min(start + EVALUATION_BATCH, len(pairs)))
            batch = to_network_range(pairs.rgb.take(numbers).to(self.device))
            z = translator.draw_latent(len(batch), Generator().manual_seed(seed))
            with without_tf32():
                thermal = translator.translate(batch, None if z is None else z.to(self.device))
            yield thermal, pairs.thermal.take(numbers).to(self.device)

    def _draw(self, painted: Tensor, place: Location) -> None:
        """Rows of RGB | real thermal | painted thermal, spread over the share's first batch."""
        rows = torch.linspace(0, len(painted) - 1, min(GRID_ROWS, len(painted))).long().tolist()
        columns = (
            self.pairs.rgb.take(rows),
            self.pairs.thermal.take(rows).expand(-1, 3, -1, -1),
            painted[rows].expand(-1, 3, -1, -1),
        )
        pictures = torch.stack(columns, dim=1).flatten(0, 1).float() / 255
        with place.open_output() as file:
            grid = make_grid(pictures, nrow=3, padding=2, pad_value=1.0)
            save_image(grid, file, format="png")


def real_statistics(
    file: Location, pairs: EvaluationPairs, extractor: Extractor, group: WorkerGroup
) -> Statistics:
    """Of the real thermal frames of a split: kept with the dataset, or measured together now."""
    kept = group.broadcast_object(lambda: load_cached(file))
    return kept or measure_real(file, pairs, extractor, group)


def measure_real(
    file: Location,
    pairs: EvaluationPairs,
    extractor: Extractor,
    group: WorkerGroup,
    advance: Callable[[int], None] = _ignore_progress,
) -> Statistics:
    """Of the real thermal frames of a split, measured by all workers together now, and kept in
    `file`. `advance` hears of every batch, as soon as it is measured."""
    thermal = pairs.thermal

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(thermal), EVALUATION_BATCH):
            batch = thermal.take(range(start, min(start + EVALUATION_BATCH, len(thermal))))
            yield batch
            advance(len(batch))

    statistics = measure(extractor, batches(), pairs.start)
    with detect_lost_workers():
        statistics.all_reduce(group.control)
    if group.is_rank_zero:
        keep(statistics, file)
    return statistics


def _cuda_devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
