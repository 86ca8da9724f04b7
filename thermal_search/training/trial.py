"""One trial: a translator in training, as a stream of evaluations. Plain torch, no Ray."""

import contextlib
import copy
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from thermal_search import architectures, checkpoint
from thermal_search.architectures.translator import Translator
from thermal_search.data.batches import Batches, PairedBatches, UnpairedBatches
from thermal_search.data.frames import WorkerFrames
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.errors import SearchError, TrialDiverged
from thermal_search.evaluation.evaluator import EvaluationResult, Evaluator
from thermal_search.images import Rgb, to_network_range
from thermal_search.storage import Location
from thermal_search.training.cuda_graphs import StepRunner
from thermal_search.training.step import (
    Precision,
    autocast_for,
    build_optimizers,
    check_finite,
    fastest_memory_format,
    fastest_precision,
    use_cudnn_benchmark,
)

AVERAGE_RAMP = 0.05
"""The moving average's half-life is at most this share of the images shown so far (Karras et al.
2020, arXiv 1912.04958, the official code)."""

INIT_IMAGES = 64
"""Training frames an architecture is shown before the first step."""

STANDING_IMAGES = 256
"""Training frames, of each worker, on which an averaged generator's normalization is measured."""

STANDING_BATCH = 16
"""At least so many of them at once."""

STEPS_BETWEEN_CHECKS = 16
"""StepRunner between two looks at the losses on a GPU."""


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """What one trial is asked to do."""

    id: str
    architecture: str
    parameters: Mapping[str, object]
    folder: Location
    """Where its checkpoints and images go: every worker reaches it."""

    images: int
    """Its full budget, in images shown, over all workers."""

    evaluate_every: int
    """Images between two evaluations."""

    seed: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Location.of(self.folder))


def grid_name(images: int) -> str:
    """The file of an evaluation's image grid, in the trial's folder."""
    return f"images-{images:08d}.png"


@dataclass
class Evaluation:
    """What one evaluation found. This is what travels to Ray Tune, and into the history."""

    images: int
    metrics: dict[str, float]
    """By key, as in `EvaluationResult`."""

    losses: dict[str, float]
    seconds: float
    """Time the trial has trained and been judged so far."""

    images_per_second: float
    """Speed of training since the evaluation before."""

    grid: str | None
    """The image grid's file name in the trial's folder."""


@dataclass
class _Progress:
    precision: Literal["bf16", "fp32"]
    """Chosen once; a trial that goes on keeps to it."""

    images: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


class Trial:
    """A translator, its optimizers, its data and its history; resumes where its folder says."""

    def __init__(
        self,
        plan: TrialPlan,
        data: WorkerFrames,
        evaluator: Evaluator,
        group: WorkerGroup,
        device: torch.device,
    ) -> None:
        self.plan, self.evaluator, self.group, self.device = plan, evaluator, group, device
        # All workers build the same networks; their random draws differ afterwards.
        torch.manual_seed(plan.seed)
        self.translator = _build(plan, data.size).to(device)
        self.translator.to(memory_format=fastest_memory_format(self.translator, device))
        # For the whole process, which has one trial at a time.
        torch.backends.cudnn.benchmark = use_cudnn_benchmark(self.translator, device)
        self.translator.workers = group.size
        self.batches = _batches(self.translator, plan, data, group, device)
        self.temperatures = data.temperatures
        self.frames, _ = data.paired if self.translator.needs_pairs else data.unpaired
        self.translator.init_from_data(self._frames_from(0, INIT_IMAGES))
        group.broadcast_parameters(self.translator)
        self.optimizers = build_optimizers(self.translator)
        self.average = _MovingAverage.of(self.translator)
        torch.manual_seed(plan.seed + 1 + group.rank)
        self.progress = _Progress(precision=self._precision())
        if folder := group.broadcast_object(lambda: checkpoint.latest(plan.folder)):
            self._restore(folder)
        self.autocast = autocast_for(device, self.progress.precision)
        self.steps = StepRunner(
            self.translator,
            self.optimizers,
            self.batches,
            group=group,
            autocast=self.autocast,
            device=device,
        )

    @property
    def history(self) -> list[Evaluation]:
        return [Evaluation(**evaluation) for evaluation in self.progress.history]

    @property
    def is_done(self) -> bool:
        return self.progress.images >= self.plan.images

    def evaluations(self) -> Iterator[Evaluation]:
        """Trains on and yields at each evaluation, when its state is already safe."""
        while not self.is_done:
            yield self._train_to_next_evaluation()

    def _precision(self) -> Literal["bf16", "fp32"]:
        if self.plan.precision != "auto":
            return self.plan.precision
        # The first worker's answer is everyone's.
        return self.group.broadcast_object(lambda: fastest_precision(self.device))

    def _train_to_next_evaluation(self) -> Evaluation:
        plan, progress = self.plan, self.progress
        started, images_before = time.monotonic(), progress.images
        goal = min((progress.images // plan.evaluate_every + 1) * plan.evaluate_every, plan.images)
        meter = _LossMeter(self.device)
        self.translator.train()
        try:
            while progress.images < goal:
                meter.add(self.step())
            losses = meter.means()
        except TrialDiverged as divergence:
            raise TrialDiverged(f"{divergence} after {progress.images:,} images") from None
        trained = time.monotonic() - started
        self.group.average_running_stats(self.translator)
        with self.averaged_weights():
            found = self.evaluator.evaluate(
                self.translator, plan.folder / grid_name(progress.images)
            )
        progress.seconds += time.monotonic() - started
        evaluation = Evaluation(
            images=progress.images,
            metrics={
                name: value if name == self.evaluator.metric else round(value, 6)
                for name, value in found.metrics.items()
            },
            losses=losses,
            seconds=round(progress.seconds, 3),
            images_per_second=round((progress.images - images_before) / trained, 3),
            grid=found.grid,
        )
        progress.history.append(vars(evaluation).copy())
        self._save()
        return evaluation

    def step(self) -> dict[str, Tensor]:
        """Plays one training step; what it returns is averaged over the workers."""
        plan, progress = self.plan, self.progress
        is_fresh_start = self.translator.begin_step(progress.images, plan.images)
        factor = self.translator.learning_rate_factor(progress.images, plan.images)
        for player_optimizer in self.optimizers.values():
            player_optimizer.schedule(factor, min(progress.images / plan.images, 1.0))
            if is_fresh_start:
                player_optimizer.reset()
        if is_fresh_start:
            self.steps.reset()
        losses = self.steps.run()
        shown = self.translator.config.batch_size * self.group.size
        progress.images += shown
        if self.average:
            self.average.update(self.translator.generator, shown, progress.images)
        return losses

    def _frames_from(self, start: int, count: int) -> Rgb:
        """Training images in their stored order, from the first again after the last."""
        numbers = [number % len(self.frames) for number in range(start, start + count)]
        return to_network_range(self.frames.take(numbers).to(self.device))

    @contextlib.contextmanager
    def averaged_weights(self) -> Generator[None]:
        """Puts the moving average, where the trial keeps one, in the generator's place."""
        live = self.translator.generator
        if self.average:
            self.translator.generator = self.average.network
            self._measure_normalization(self.average.network)
            self.group.average_running_stats(self.average.network)
        try:
            yield
        finally:
            self.translator.generator = live

    @torch.no_grad()
    def _measure_normalization(self, averaged: nn.Module) -> None:
        """Measures batch normalization anew for averaged weights, on training frames.

        What the live generator measured belongs to other weights: judged with it, an average looks
        far worse than it is ("standing statistics", Brock et al. 2019, arXiv 1809.11096, app. C).
        """
        norms = [m for m in averaged.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]  # pyright: ignore[reportPrivateUsage] - the one base of 1d, 2d, 3d
        if not norms:
            return
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over all batches
        batch_size = max(self.translator.config.batch_size, STANDING_BATCH)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), self.autocast:
            torch.manual_seed(self.plan.seed)
            for start in range(0, STANDING_IMAGES, batch_size):
                self.translator.translate(self._frames_from(start, batch_size))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def evaluate_on(self, evaluator: Evaluator, grid: Location) -> EvaluationResult:
        """Evaluators what the trial would be exported as, on another split than that of its history."""
        with self.averaged_weights():
            return evaluator.evaluate(self.translator, grid)

    def _save(self) -> None:
        plan, group = self.plan, self.group
        folder = checkpoint.pending(plan.folder, self.progress.images)
        network = self.translator.state_dict()
        trained = {name for name, _ in self.translator.named_parameters()}
        own = {name: value for name, value in network.items() if name not in trained}
        checkpoint.save(
            {"translator": own, "batches": self.batches.state_dict(), "random": _random_state()},
            folder / f"worker-{group.rank}.pt",
        )
        if group.is_rank_zero:
            shared: checkpoint.State = {
                "translator": network,
                "optimizers": {
                    n: player_optimizer.optimizer.state_dict()
                    for n, player_optimizer in self.optimizers.items()
                },
                "average": self.average.network.state_dict() if self.average else None,
                "progress": vars(self.progress),
            }
            checkpoint.save(shared, folder / "shared.pt")
            generator = self.average.network if self.average else self.translator.generator
            checkpoint.save(
                {
                    "architecture": plan.architecture,
                    "parameters": dict(plan.parameters),
                    "size": self.translator.config.size,
                    "temperatures": self.temperatures and asdict(self.temperatures),
                    "images": self.progress.images,
                    "metrics": self.progress.history[-1]["metrics"],
                    "protocol": self.evaluator.full_protocol,
                    "generator": generator.state_dict(),
                },
                plan.folder / checkpoint.GENERATOR,
            )
        group.barrier()
        if group.is_rank_zero:
            workers = [f"worker-{rank}.pt" for rank in range(group.size)]
            checkpoint.commit(folder, ["shared.pt", *workers])
        group.barrier()

    def _restore(self, folder: Location) -> None:
        shared = checkpoint.load(folder / "shared.pt", self.device)
        network = shared["translator"]
        own_file = f"worker-{self.group.rank}.pt"
        # A worker more than last time starts from the first one's buffers, with fresh draws.
        is_known = own_file in checkpoint.parts(folder)
        own = checkpoint.load(folder / own_file) if is_known else None
        if own:
            network |= own["translator"]
        self.translator.load_state_dict(network)
        for name, player_optimizer in self.optimizers.items():
            player_optimizer.restore(shared["optimizers"][name])
        if self.average:
            self.average.network.load_state_dict(shared["average"])
        self.progress = _Progress(**shared["progress"])
        if own:
            self.batches.load_state_dict(own["batches"])
            _restore_random_state(own["random"])


class _MovingAverage:
    """An exponential moving average of the generator, with its half-life in images shown."""

    def __init__(self, generator: nn.Module, half_life_images: int) -> None:
        self.network = copy.deepcopy(generator).requires_grad_(False)
        self.half_life_images = half_life_images

    @classmethod
    def of(cls, translator: Translator) -> "_MovingAverage | None":
        half_life = translator.config.ema_half_life_images
        return cls(translator.generator, half_life) if half_life else None

    @torch.no_grad()
    def update(self, generator: nn.Module, images: int, images_so_far: int) -> None:
        # Shorter at the start, or a short trial would be judged by its first weights.
        half_life = min(self.half_life_images, images_so_far * AVERAGE_RAMP)
        kept = 0.5 ** (images / half_life)
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] - one kernel for all weights
            list(self.network.parameters()), list(generator.parameters()), 1 - kept
        )
        if buffers := list(self.network.buffers()):
            torch._foreach_copy_(buffers, list(generator.buffers()))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        for averaged, live in zip(self.network.modules(), generator.modules(), strict=True):
            if type(live).get_extra_state is not nn.Module.get_extra_state:
                averaged.set_extra_state(live.get_extra_state())


class _LossMeter:
    """Means of the loss terms since the last evaluation, without waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        for name in losses:
            if name not in self.sums:
                self.sums[name] = torch.zeros((), device=self.device)
        sums = [self.sums[name] for name in losses]
        torch._foreach_add_(sums, list(losses.values()))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        self.steps += 1
        if self.device.type != "cpu" and self.steps % STEPS_BETWEEN_CHECKS == 0:
            check_finite(self.sums)

    def means(self) -> dict[str, float]:
        check_finite(self.sums)
        return {name: round(value.item() / self.steps, 6) for name, value in self.sums.items()}


def _build(plan: TrialPlan, size: int) -> Translator:
    try:
        return architectures.build(plan.architecture, size, plan.parameters)
    except ValueError as error:
        raise SearchError(str(error)) from error


def _batches(
    translator: Translator,
    plan: TrialPlan,
    data: WorkerFrames,
    group: WorkerGroup,
    device: torch.device,
) -> Batches:
    kind = PairedBatches if translator.needs_pairs else UnpairedBatches
    rgb, thermal = data.paired if translator.needs_pairs else data.unpaired
    # Every worker shuffles its own share, so each needs its own seed.
    seed = plan.seed * 1009 + group.rank
    return kind(rgb, thermal, batch_size=translator.config.batch_size, seed=seed, device=device)


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _restore_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
