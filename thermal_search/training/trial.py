"""One trial: a translator in training, as a stream of evaluations. Plain torch, no Ray."""

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from thermal_search import architectures
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
from thermal_search.training.trial_state import Progress, restore_state, save_state

INIT_IMAGES = 64
"""Training frames, at most, for `Translator.init_from_data`, before the first step."""

BATCH_NORM_IMAGES = 256
"""Training frames of each worker on which the moving average's batch normalization is measured."""

MIN_BATCH_NORM_BATCH = 16
"""Smallest batch size for recomputing batch normalization's statistics."""


class Trial:
    """A translator, its optimizers, its data and its history.

    If the plan's folder holds a state, the trial resumes from it; else, if the plan names a state
    of another trial, it continues from that. Raises SearchError for an unknown architecture or
    unknown parameters, and if it would train with a network of the evaluator.
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
        self.parameters = plan.parameters
        """Those of the last step, or of the first one."""

        self.progress = Progress(precision=self._precision())
        restore_state(self)
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
        """The evaluations so far, without those of a trial whose state it continues from."""
        since = self.plan.origin.images if self.plan.origin else 0
        return [item for item in self.progress.history if item.images > since]

    @property
    def is_done(self) -> bool:
        return self.progress.images >= self.plan.images

    def evaluations(self) -> Iterator[TrialEvaluation]:
        """Trains to the end of the budget and yields each evaluation after saving the state.

        Before the first step it writes the image grid of the untrained generator.
        """
        if not self.progress.images:
            self._write_untrained_grid()
        since = self.plan.origin.images if self.plan.origin else 0
        while not self.is_done:
            evaluation = self._train_to_next_evaluation()
            if evaluation.images > since:
                yield evaluation

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
        save_state(self)
        return evaluation

    def _write_untrained_grid(self) -> None:
        """Only an image: neither the weights nor the random numbers of the training change."""
        if self.group.is_rank_zero:
            self.evaluator.write_grid(self.translator, self.plan.folder / grid_name(0))

    def step(self) -> dict[str, Tensor]:
        """Runs one training step; returns its loss terms, averaged over the workers."""
        plan, progress = self.plan, self.progress
        self._change_parameters(plan.parameters_at(progress.images))
        config = self.translator.config
        batch_size = config.batch_size_at(progress.images / plan.images)
        half_life = config.ema_half_life_at(progress.images / plan.images)
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
            self.average.update(self.translator.generator, shown, progress.images, half_life)
        return losses

    def _change_parameters(self, parameters: Mapping[str, object]) -> None:
        """Sets parameters that may change in flight, from the next step on."""
        if parameters == self.parameters:
            return
        self.parameters = parameters
        self.translator.config = replace(self.translator.config, **parameters)
        for name, player in self.translator.players().items():
            self.optimizers[name] = replace(self.optimizers[name], config=player.optimizer)
        self.steps.reset()  # a captured step has the weights of its losses built in

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
