"""One trial: a translator in training, as a stream of evaluations. Plain torch, no Ray."""

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from thermal_search import architectures, checkpoint
from thermal_search.architectures.translator import Translator
from thermal_search.data.batches import PairedBatches, UnpairedBatches
from thermal_search.data.frames import Frames, WorkerFrames
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.errors import SearchError, TrialDiverged
from thermal_search.evaluation.evaluator import EvaluationResult, Evaluator
from thermal_search.images import Batch, Rgb, to_network_range
from thermal_search.storage import Location
from thermal_search.training.cuda_graphs import StepRunner
from thermal_search.training.hardware import (
    ComputePrecision,
    autocast_for,
    fastest_memory_format,
    fastest_precision,
    use_cudnn_benchmark,
)
from thermal_search.training.loss_meter import LossMeter
from thermal_search.training.moving_average import MovingAverage, recompute_batch_norm
from thermal_search.training.optimizers import build_optimizers
from thermal_search.training.starting_weights import start_from
from thermal_search.training.system_metrics import SystemMeter
from thermal_search.training.trial_plan import TrialEvaluation, TrialPlan, grid_name

INIT_IMAGES = 64
"""Training frames, at most, for `Translator.init_from_data`, before the first step."""

BATCH_NORM_IMAGES = 256
"""Training frames of each worker on which the moving average's batch normalization is measured."""

MIN_BATCH_NORM_BATCH = 16
"""Smallest batch size for recomputing batch normalization's statistics."""

SHARED_FILE = "shared.pt"
"""The part of a state that all workers have in common (see `checkpoint`)."""


@dataclass
class _Progress:
    precision: ComputePrecision
    """Chosen once: a trial that resumes keeps it."""

    images: int = 0
    seconds: float = 0.0
    history: list[TrialEvaluation] = field(default_factory=list[TrialEvaluation])


class Trial:
    """A translator, its optimizers, its data and its history.

    If the plan's folder holds a state, the trial resumes from it. Raises SearchError for an unknown
    architecture or unknown parameters, and if it would train with a network of the evaluator.
    """

    def __init__(
        self,
        plan: TrialPlan,
        data: WorkerFrames,
        evaluator: Evaluator | None,
        group: WorkerGroup,
        device: torch.device,
    ) -> None:
        """`evaluator`: None for a trial whose steps are only timed."""
        self.plan, self.group, self.device = plan, group, device
        self._evaluator = evaluator
        start = plan.applicable_start
        # All workers build the same networks; afterwards their random draws differ.
        torch.manual_seed(plan.seed)
        self.translator = _build(plan, data.size).to(device)
        if evaluator:
            _require_other_networks(self.translator, evaluator)
        self.translator.to(memory_format=fastest_memory_format(self.translator, device))
        # A setting of the whole process, which runs one trial at a time.
        torch.backends.cudnn.benchmark = use_cudnn_benchmark(self.translator, device)
        self.translator.workers = group.size
        self.batches = _batches(self.translator, plan, data, group, device)
        self.temperatures, self.alignment = data.temperatures, data.alignment
        self.frames, thermal = data.paired if self.translator.needs_pairs else data.unpaired
        self.translator.init_from_data(
            Batch(rgb=self._spread(self.frames), thermal=self._spread(thermal))
        )
        # After it: an exported generator's constants belong to its weights.
        self.taken_over = start_from(self.translator.generator, start) if start else None
        group.broadcast_parameters(self.translator)
        self.optimizers = build_optimizers(self.translator)
        self.average = MovingAverage.of(self.translator)
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
    def evaluator(self) -> Evaluator:
        assert self._evaluator, "a trial whose steps are only timed is not evaluated"
        return self._evaluator

    @property
    def history(self) -> list[TrialEvaluation]:
        return [*self.progress.history]

    @property
    def is_done(self) -> bool:
        return self.progress.images >= self.plan.images

    def evaluations(self) -> Iterator[TrialEvaluation]:
        """Trains to the end of the budget and yields each evaluation after saving the state.

        Before the first step it writes the image grid of the untrained generator.
        """
        if not self.progress.images:
            self._write_untrained_grid()
        while not self.is_done:
            yield self._train_to_next_evaluation()

    def _precision(self) -> ComputePrecision:
        if self.plan.precision != "auto":
            return self.plan.precision
        # All workers use what is fastest on rank 0's device.
        return self.group.broadcast_object(lambda: fastest_precision(self.device))

    def _train_to_next_evaluation(self) -> TrialEvaluation:
        plan, progress = self.plan, self.progress
        started, images_before = time.monotonic(), progress.images
        goal = min((progress.images // plan.evaluate_every + 1) * plan.evaluate_every, plan.images)
        meter, system = LossMeter(self.device), SystemMeter(self.group, self.device)
        self.translator.train()
        try:
            while progress.images < goal:
                meter.add(self.step())
            losses = meter.means()
        except TrialDiverged as divergence:
            raise TrialDiverged(f"{divergence} after {progress.images:,} images") from None
        trained, used = time.monotonic() - started, system.read()
        self.group.average_running_stats(self.translator)
        with self.averaged_weights():
            result = self.evaluator.evaluate(
                self.translator, plan.folder / grid_name(progress.images)
            )
        progress.seconds += time.monotonic() - started
        evaluation = TrialEvaluation(
            images=progress.images,
            metrics={
                name: value if name == self.evaluator.metric else round(value, 6)
                for name, value in result.metrics.items()
            },
            losses=losses,
            seconds=round(progress.seconds, 3),
            images_per_second=round((progress.images - images_before) / trained, 3),
            grid=result.grid,
            system=used,
        )
        progress.history.append(evaluation)
        self._save()
        return evaluation

    def _write_untrained_grid(self) -> None:
        """Only an image: neither the weights nor the random numbers of the training change."""
        if self.group.is_rank_zero:
            self.evaluator.write_grid(self.translator, self.plan.folder / grid_name(0))

    def step(self) -> dict[str, Tensor]:
        """Runs one training step; returns its loss terms, averaged over the workers."""
        plan, progress = self.plan, self.progress
        batch_size = self.translator.config.batch_size_at(progress.images / plan.images)
        self.batches.batch_size = batch_size
        needs_reset = self.translator.begin_step(progress.images, plan.images)
        factor = self.translator.learning_rate_factor(progress.images, plan.images)
        for player_optimizer in self.optimizers.values():
            player_optimizer.schedule(factor, min(progress.images / plan.images, 1.0))
            if needs_reset:
                player_optimizer.reset()
        if needs_reset:
            self.steps.reset()
        losses = self.steps.run()
        shown = batch_size * self.group.size
        progress.images += shown
        if self.average:
            self.average.update(self.translator.generator, shown, progress.images)
        return losses

    def _spread(self, frames: Frames) -> Tensor:
        """Different training images from all over the shard, in network range."""
        count = min(INIT_IMAGES, len(frames))
        indices = [index * len(frames) // count for index in range(count)]
        return frames.images(frames.raw(indices).to(self.device))

    def _frames_from(self, start: int, count: int) -> Rgb:
        """Training images in their stored order; after the last comes the first again."""
        indices = [index % len(self.frames) for index in range(start, start + count)]
        return to_network_range(self.frames.take(indices).to(self.device))

    @contextlib.contextmanager
    def averaged_weights(self) -> Generator[None]:
        """A context in which the translator's generator is the moving average, if there is one."""
        live = self.translator.generator
        if self.average:
            self.translator.generator = self.average.network
            self._recompute_batch_norm(self.average.network)
            self.group.average_running_stats(self.average.network)
        try:
            yield
        finally:
            self.translator.generator = live

    def _recompute_batch_norm(self, averaged: nn.Module) -> None:
        batch_size = max(self.translator.config.batch_size, MIN_BATCH_NORM_BATCH)
        batches = (
            self._frames_from(start, batch_size)
            for start in range(0, BATCH_NORM_IMAGES, batch_size)
        )
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), self.autocast:
            torch.manual_seed(self.plan.seed)
            recompute_batch_norm(averaged, self.translator.translate, batches)

    def evaluate_on(self, evaluator: Evaluator, grid: Location) -> EvaluationResult:
        """Evaluates the generator that would be exported with another evaluator than the trial's
        own: on the test split."""
        with self.averaged_weights():
            return evaluator.evaluate(self.translator, grid)

    def _save(self) -> None:
        plan, group = self.plan, self.group
        folder = checkpoint.pending(plan.folder, self.progress.images)
        network = self.translator.state_dict()
        parameters = {name for name, _ in self.translator.named_parameters()}
        buffers = {name: value for name, value in network.items() if name not in parameters}
        checkpoint.save(
            {
                "translator": buffers,
                "batches": self.batches.state_dict(),
                "random": _random_state(),
            },
            folder / _worker_file(group.rank),
        )
        if group.is_rank_zero:
            shared: checkpoint.State = {
                "trial": self._identity,
                "translator": network,
                "optimizers": {
                    name: player_optimizer.optimizer.state_dict()
                    for name, player_optimizer in self.optimizers.items()
                },
                "average": self.average.network.state_dict() if self.average else None,
                "progress": asdict(self.progress),
            }
            checkpoint.save(shared, folder / SHARED_FILE)
            self._save_generator()
        group.barrier()
        if group.is_rank_zero:
            workers = [_worker_file(rank) for rank in range(group.size)]
            checkpoint.commit(folder, [SHARED_FILE, *workers])
        group.barrier()

    def _save_generator(self) -> None:
        description = checkpoint.GeneratorDescription(
            architecture=self.plan.architecture,
            parameters=dict(self.plan.parameters),
            size=self.translator.config.size,
            temperatures=self.temperatures,
            alignment=self.alignment,
            images=self.progress.images,
            metrics=self.progress.history[-1].metrics,
            protocol=self.evaluator.full_protocol,
        )
        generator = self.average.network if self.average else self.translator.generator
        checkpoint.save_generator(description, generator.state_dict(), self.plan.folder)

    @property
    def _identity(self) -> dict[str, Any]:
        """What a state must agree in with the trial that resumes from it."""
        plan = self.plan
        return {
            "architecture": plan.architecture,
            "parameters": dict(plan.parameters),
            "seed": plan.seed,
            "images": plan.images,
            **({"start": start.digest} if (start := plan.applicable_start) else {}),
        }

    def _restore(self, folder: Location) -> None:
        shared = checkpoint.load(folder / SHARED_FILE, self.device)
        if shared["trial"] != self._identity:
            return  # of another trial, whose record was lost
        network = shared["translator"]
        own_file = _worker_file(self.group.rank)
        # With more workers than before, a new one starts with rank 0's buffers and fresh draws.
        has_state = own_file in checkpoint.files_of(folder)
        own = checkpoint.load(folder / own_file) if has_state else None
        if own:
            network |= own["translator"]
        self.translator.load_state_dict(network)
        for name, player_optimizer in self.optimizers.items():
            player_optimizer.restore(shared["optimizers"][name])
        if self.average:
            self.average.network.load_state_dict(shared["average"])
        self.progress = _Progress(**shared["progress"])
        self.progress.history = [
            TrialEvaluation(**fields) for fields in shared["progress"]["history"]
        ]
        if own:
            self.batches.load_state_dict(own["batches"])
            _restore_random_state(own["random"])


def _worker_file(rank: int) -> str:
    return f"worker-{rank}.pt"


def _build(plan: TrialPlan, size: int) -> Translator:
    try:
        return architectures.build(plan.architecture, size, plan.parameters)
    except ValueError as error:
        raise SearchError(str(error)) from error


def _require_other_networks(translator: Translator, evaluator: Evaluator) -> None:
    """Raises SearchError if the translator minimizes a distance that it is evaluated by."""
    if shared := translator.config.loss_networks & evaluator.networks:
        raise SearchError(
            f"perceptual_network must not be a network that the search measures with, but is "
            f"{min(shared)}: choose another one, or other --features."
        )


def _batches(
    translator: Translator,
    plan: TrialPlan,
    data: WorkerFrames,
    group: WorkerGroup,
    device: torch.device,
) -> PairedBatches | UnpairedBatches:
    batches_class = PairedBatches if translator.needs_pairs else UnpairedBatches
    rgb, thermal = data.paired if translator.needs_pairs else data.unpaired
    # Each worker shuffles its own shard, with its own seed.
    seed = plan.seed * 1009 + group.rank
    return batches_class(
        rgb, thermal, batch_size=translator.config.batch_size, seed=seed, device=device
    )


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _restore_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
