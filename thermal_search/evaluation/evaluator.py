"""Evaluates a translator: metrics of its generated images against the real thermal images."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Generator, Tensor

from thermal_search.architectures.translator import Translator
from thermal_search.data.frames import EVALUATION_BATCH, EvaluationPairs
from thermal_search.distributed.worker_group import WorkerGroup, detect_lost_workers
from thermal_search.errors import TrialDiverged
from thermal_search.images import to_network_range, to_pixels
from thermal_search.metrics import (
    ClassStatistics,
    Extractor,
    FrechetReference,
    KIDReference,
    PairedMetrics,
    PerceptualDistance,
    Protocol,
    Statistics,
    extrapolate_to_infinity,
    suffix_of,
    without_tf32,
)
from thermal_search.storage import Location

EVALUATION_SEED = 20_141_206
"""Seed of latents and dropout, the same in every evaluation: only the generator differs."""

GRID_ROWS = 4


@dataclass(frozen=True)
class EvaluationResult:
    """The metrics and the image grid of one evaluation."""

    metrics: dict[str, float]
    """By key: the Frechet distance (`fid` on Inception's features) and its extrapolation to
    infinitely many images, `..._infinity`; `kid`, its standard error `kid_std` and, if the network
    has classes, `inception_score`, each with the features' name at the end unless they are
    Inception's; `l1` (0 .. 255), `psnr`, `ssim`, and `lpips` if its weights are given."""

    grid: str | None
    """The file name of the image grid on rank 0; None on other workers."""


def full_protocol(
    protocol: Protocol, perceptual: PerceptualDistance | None
) -> dict[str, str | int]:
    """How all metrics are measured: the protocol of the features, and LPIPS's weights if any."""
    lpips = {"lpips": f"{perceptual.backbone} {perceptual.digest}"} if perceptual else {}
    return protocol.to_json() | lpips


def ignore_progress(images: int) -> None:
    """For an evaluation whose progress is not shown."""


class Evaluator:
    """Evaluates translators on the pairs of one split; reused from trial to trial.

    `advance` is called with the number of images of each batch once it is measured.
    """

    def __init__(
        self,
        pairs: EvaluationPairs,
        extractor: Extractor,
        real: Statistics,
        group: WorkerGroup,
        device: torch.device,
        perceptual: PerceptualDistance | None = None,
        advance: Callable[[int], None] = ignore_progress,
    ) -> None:
        self.pairs, self.extractor, self.real = pairs, extractor, real
        """`pairs` are this worker's; `real` are the statistics of the whole split."""
        self.advance = advance
        self.group, self.device, self.perceptual = group, device, perceptual

    @property
    def networks(self) -> frozenset[str]:
        """The networks that it measures with, by name."""
        lpips = {self.perceptual.backbone} if self.perceptual else set[str]()
        return frozenset({self.extractor.name} | lpips)

    @property
    def protocol(self) -> Protocol:
        """How the metrics on the extractor's features are measured."""
        return self.extractor.protocol(images=self.real.count, size=self.pairs.rgb.shape[-1])

    @property
    def full_protocol(self) -> dict[str, str | int]:
        """How all metrics are measured, LPIPS included."""
        return full_protocol(self.protocol, self.perceptual)

    @cached_property
    def _references(self) -> tuple[FrechetReference, KIDReference]:
        # On rank 0 only, which alone computes distances.
        return FrechetReference(self.real), KIDReference(self.real)

    @torch.inference_mode()
    def evaluate(self, translator: Translator, grid: Location | Path) -> EvaluationResult:
        """Evaluates a translator on all workers' pairs and writes the image grid to `grid`.

        Runs in float32 for any precision of the training, as the exported generator will, and
        leaves the random state of the training unchanged. Raises TrialDiverged if a generated pixel
        or a metric is not finite.
        """
        for_grid: list[Tensor] = []
        not_finite = torch.zeros(1, dtype=torch.int64)

        def generated_pairs() -> Iterator[tuple[Tensor, Tensor]]:
            for generated, real in self._generate(translator):
                # Before the conversion to bytes, which has no NaN.
                not_finite.add_((~generated.isfinite()).sum().cpu())
                pixels = to_pixels(generated)
                if len(for_grid) * EVALUATION_BATCH < GRID_ROWS:
                    for_grid.append(pixels.cpu())
                yield pixels, real

        was_training = translator.training
        translator.eval()
        with torch.random.fork_rng(devices=_cuda_devices(self.device)):
            metrics = self.measure_pairs(generated_pairs())
        translator.train(was_training)
        if count := int(self.group.sum(not_finite).item()):
            raise TrialDiverged(f"its generator has generated {count} pixels that are not finite")
        for key, value in metrics.items():
            if not math.isfinite(value):
                raise TrialDiverged(f"its {key} is {value}")
        if not self.group.is_rank_zero:
            return EvaluationResult(metrics, None)
        grid = Location.of(grid)
        self._write_grid(torch.cat(for_grid), grid)
        return EvaluationResult(metrics, grid.name)

    @torch.inference_mode()
    def write_grid(self, translator: Translator, grid: Location | Path) -> None:
        """Writes the image grid of `evaluate`, without metrics: not a collective, for rank 0.

        Leaves the random state of the training unchanged.
        """
        batches = range(-(-GRID_ROWS // EVALUATION_BATCH))
        was_training = translator.training
        translator.eval()
        with torch.random.fork_rng(devices=_cuda_devices(self.device)):
            generated = [
                to_pixels(thermal).cpu()
                for _, (thermal, _) in zip(batches, self._generate(translator), strict=False)
            ]
        translator.train(was_training)
        self._write_grid(torch.cat(generated), Location.of(grid))

    @torch.inference_mode()
    def measure_pairs(self, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """All metrics of uint8 batches of generated images and their real ones, over all workers.

        The batches follow the order of `pairs`.
        """
        paired = PairedMetrics(self.perceptual)

        def generated_batches() -> Iterator[tuple[int, Tensor]]:
            index = self.pairs.start
            for generated, real in batches:
                paired.add(generated, real)
                yield index, generated
                index += len(generated)

        metrics = self.measure_distribution(generated_batches())
        with detect_lost_workers():
            paired.all_reduce(self.group.control)
        return metrics | paired.means

    @torch.inference_mode()
    def measure_distribution(self, batches: Iterable[tuple[int, Tensor]]) -> dict[str, float]:
        """The metrics without paired images, of uint8 batches over all workers; each batch comes
        with the index of its first image among those of all workers."""
        # On every worker, including one without frames: the sums are collectives.
        statistics = Statistics(self.extractor.dimensions)
        classes = ClassStatistics(count) if (count := self.extractor.classes) else None
        for index, pixels in batches:
            features = self.extractor(pixels)
            statistics.add(features, index)
            if classes:
                classes.add(self.extractor.classify(features))
            self.advance(len(pixels))
        with detect_lost_workers():
            for sums in (statistics, *([classes] if classes else [])):
                sums.all_reduce(self.group.control)
        metrics = self.group.broadcast_object(lambda: self._distances(statistics))
        if classes:
            metrics[f"inception_score{self._suffix}"] = classes.score
        return metrics

    def _distances(self, generated: Statistics) -> dict[str, float]:
        frechet, kid_reference = self._references
        kid = kid_reference.distance(generated)
        distances = {
            self.metric: frechet.distance(generated),
            f"{self.metric}_infinity": extrapolate_to_infinity(frechet, generated),
            self.kid_metric: kid.value,
            f"kid_std{self._suffix}": kid.std,
        }
        return {key: value for key, value in distances.items() if value is not None}

    @property
    def metric(self) -> str:
        """The key of the Frechet distance."""
        return self.extractor.metric

    @property
    def kid_metric(self) -> str:
        """The key of KID."""
        return f"kid{self._suffix}"

    @property
    def _suffix(self) -> str:
        """The end of the keys of metrics on other features than Inception's."""
        return suffix_of(self.extractor.metric)

    def _generate(self, translator: Translator) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of generated images, in network range, and of their real ones, as bytes."""
        pairs = self.pairs
        for start in range(0, len(pairs), EVALUATION_BATCH):
            # By the batch's position in the whole split: any number of workers draws the same.
            seed = EVALUATION_SEED + pairs.start + start
            torch.manual_seed(seed)
            indices = range(start, min(start + EVALUATION_BATCH, len(pairs)))
            rgb = to_network_range(pairs.rgb.take(indices).to(self.device))
            z = translator.draw_latent(len(rgb), Generator().manual_seed(seed))
            with without_tf32():
                generated = translator.translate(rgb, None if z is None else z.to(self.device))
            yield generated, pairs.thermal.take(indices).to(self.device)

    def _write_grid(self, generated: Tensor, path: Location) -> None:
        """Writes rows of RGB | real | generated thermal, evenly spaced in rank 0's first images."""
        # Here: torchvision takes two seconds to import.
        from torchvision.utils import make_grid, save_image

        rows = torch.linspace(0, len(generated) - 1, min(GRID_ROWS, len(generated))).long().tolist()
        columns = (
            self.pairs.rgb.take(rows),
            self.pairs.thermal.take(rows).expand(-1, 3, -1, -1),
            generated[rows].expand(-1, 3, -1, -1),
        )
        images = torch.stack(columns, dim=1).flatten(0, 1).float() / 255
        with path.open_output(make_folder=False) as file:
            grid = make_grid(images, nrow=3, padding=2, pad_value=1.0)
            save_image(grid, file, format="png")


def _cuda_devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
