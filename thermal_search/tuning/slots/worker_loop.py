"""What every worker of a slot runs while the search lasts: one trial after another."""

import gc
import itertools
import socket
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import ray
import torch
from ray import train
from ray.exceptions import RayError
from ray.train.torch import get_device

from thermal_search.architectures import from_file
from thermal_search.choices import EvaluationSplit
from thermal_search.data.frames import WorkerFrames
from thermal_search.data.ray_dataset import open_worker_shard
from thermal_search.distributed.worker_group import WorkerGroup, WorkerLost
from thermal_search.errors import MetricError, StorageError, TrialDiverged
from thermal_search.evaluation.baselines import Baselines, load_or_measure_baselines
from thermal_search.evaluation.evaluator import Evaluator, full_protocol
from thermal_search.evaluation.real_statistics import real_statistics
from thermal_search.metrics import (
    Extractor,
    PerceptualDistance,
    build_extractor,
    cached_statistics_path,
)
from thermal_search.storage import Location, describe_fault
from thermal_search.training.hardware import is_out_of_memory, limit_memory
from thermal_search.training.trial import Trial
from thermal_search.training.trial_plan import TEST_GRID, TrialEvaluation, TrialPlan
from thermal_search.tuning.slots.config import SlotPlan, WorkerConfig
from thermal_search.tuning.slots.messages import TrialReport
from thermal_search.tuning.slots.mps_keeper import join_mps
from thermal_search.tuning.summary import OUT_OF_SHARED_MEMORY

IDLE_S = 5.0
"""Seconds the first worker waits for a trial before it tells the others that it is alive."""


@dataclass(frozen=True)
class SplitEvaluator:
    """The evaluator of a split, with the split's baselines."""

    evaluator: Evaluator
    baselines: Baselines


@dataclass(frozen=True)
class _Worker:
    """What a worker keeps from trial to trial."""

    data: WorkerFrames
    validation: SplitEvaluator
    test: SplitEvaluator | None
    """For retrainings that completed."""

    group: WorkerGroup
    device: torch.device
    gpu_share: float


def worker_loop(config: WorkerConfig) -> None:
    """Takes trials from the mailbox until it closes."""
    join_mps(config.mps)
    plan: SlotPlan = ray.get(config.plan)
    mailbox = config.mailbox
    group = WorkerGroup()
    if group.is_rank_zero:
        _record_placement_group(config.placement_group_file)
    if not group.broadcast_object(lambda: ray.get(mailbox.start.remote())):
        return
    try:
        worker = _prepare_worker(plan, group)
    except WorkerLost:
        raise
    except Exception as error:
        ray.get(mailbox.start_failed.remote(_describe(error)))
        raise
    if group.is_rank_zero:
        ray.get(mailbox.ready.remote())
    while trial := group.broadcast_object(partial(_take, mailbox)):
        if trial != "idle":
            _train(trial, worker, mailbox)
            _free_memory(worker.device)


def _prepare_worker(plan: SlotPlan, group: WorkerGroup) -> _Worker:
    for file in plan.own_architectures:
        from_file.register(file)
    torch.set_num_threads(plan.threads)
    device = _device()
    limit_memory(device, plan.gpu_share)
    data = open_worker_shard(plan.shards[train.get_context().get_world_rank()])
    extractor = build_extractor(
        plan.features,
        inception_weights=plan.inception_weights,
        precision=plan.features_precision,
        device=device,
    )
    perceptual = PerceptualDistance(plan.lpips_weights, device) if plan.lpips_weights else None

    def split_evaluator(split: EvaluationSplit) -> SplitEvaluator:
        evaluator = build_evaluator(plan, data, split, extractor, perceptual, group, device)
        rgb, _ = data.paired
        baselines = load_or_measure_baselines(evaluator, data.thermal, rgb, plan.statistics, split)
        return SplitEvaluator(evaluator, baselines)

    return _Worker(
        data,
        validation=split_evaluator("val"),
        test=split_evaluator("test") if plan.test_count else None,
        group=group,
        device=device,
        gpu_share=plan.gpu_share,
    )


def _device() -> torch.device:
    """The GPU that Ray assigns to this worker, or the CPU."""
    device = get_device()
    assert isinstance(device, torch.device)
    if device.type != "cuda":
        return device
    if torch.cuda.is_available():
        # Every worker sees all GPUs of its node's workers.
        torch.cuda.set_device(device)
        return device
    # Ray also counts GPUs that do not exist (`ray start --num-gpus`), but knows the type only of
    # real ones.
    here = ray.get_runtime_context().get_node_id()
    (resources,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    if any(name.startswith("accelerator_type:") for name in resources):
        raise RuntimeError(
            f"this machine has a GPU that its torch {torch.__version__} cannot use: install a "
            "build of torch for the GPU's driver, or pass --gpus-per-worker 0"
        )
    return torch.device("cpu")


def _record_placement_group(path: Location) -> None:
    """Writes the id of this group's placement group, for a slot that must remove it later."""
    placement_group = ray.util.get_current_placement_group()
    if placement_group is not None:
        path.write_text(placement_group.id.hex(), make_folder=False)


def _take(mailbox: Any) -> TrialPlan | Literal["idle"] | None:
    return ray.get(mailbox.take.remote(IDLE_S))


def _train(plan: TrialPlan, worker: _Worker, mailbox: Any) -> None:
    """Trains one trial until it completes or Ray Tune stops it. Its errors end it, not the slot."""
    group = worker.group

    def end(report: TrialReport | None) -> None:
        if group.is_rank_zero:
            ray.get(mailbox.end.remote(plan.id, report))

    try:
        trial = Trial(plan, worker.data, worker.validation.evaluator, group, worker.device)
        # Evaluations from before a restart are reported again, because Tune may have missed the
        # last one. The mailbox delivers only new ones.
        evaluations = itertools.chain(trial.history, trial.evaluations())
        for number, evaluation in enumerate(evaluations):
            report = _report(trial, evaluation, worker)
            if group.broadcast_object(partial(_deliver, mailbox, plan.id, number, report)):
                break
        end(None)
    except TrialDiverged as divergence:
        end(TrialReport(status="diverged", reason=str(divergence)))
    except WorkerLost:
        raise  # a new group resumes the trial
    except Exception as error:
        if isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
            # CUDA fails in this process from now on: through MPS perhaps by a fault of another
            # process on the GPU. A new group resumes the trial.
            raise
        # From whichever worker it is, and before anything else, so that it is not retried.
        share = worker.gpu_share if group.size == 1 else 1.0
        ray.get(mailbox.end.remote(plan.id, failure_of(error, share)))
        if group.size > 1:
            # The others may be waiting for this one in a collective: only a new group is safe.
            raise


def failure_of(error: Exception, gpu_share: float = 1.0) -> TrialReport:
    """How a trial ends by an error.

    Training has no files or connections of its own: an error of these is the machine's. So is
    one of Ray, such as a process that was killed because the machine's memory ran out. What does
    not fit a share of a GPU may fit the whole: it is trained again alone.
    """
    if isinstance(error, (OSError, StorageError)):
        where = f"{socket.gethostname()}: {describe_fault(error)}"
        return TrialReport(status="interrupted", reason=where, stops_search=True)
    if isinstance(error, RayError):
        where = f"{socket.gethostname()}: {_describe(error)}"
        return TrialReport(status="interrupted", reason=where)
    if gpu_share < 1 and is_out_of_memory(error):
        reason = f"{OUT_OF_SHARED_MEMORY}: {' '.join(str(error).split())[:400]}"
        return TrialReport(status="interrupted", reason=reason)
    return TrialReport(status="failed", reason=_describe(error))


def _deliver(mailbox: Any, trial: str, number: int, report: TrialReport) -> bool:
    """Delivers one evaluation and waits for the answer: True if the trial is to stop."""
    return ray.get(mailbox.report.remote(trial, number, report))


def _report(trial: Trial, evaluation: TrialEvaluation, worker: _Worker) -> TrialReport:
    baselines = worker.validation.baselines
    taken = trial.taken_over
    start = (taken.taken_over, taken.left_out) if taken else None
    if evaluation.images < trial.plan.images or not worker.test:
        is_done = evaluation.images >= trial.plan.images
        return TrialReport(
            status="completed" if is_done else "running",
            evaluation=evaluation,
            baselines=baselines,
            start=start,
        )
    # Once, when no choice can depend on it any more.
    tested = trial.evaluate_on(worker.test.evaluator, trial.plan.folder / TEST_GRID)
    return TrialReport(
        status="completed",
        evaluation=evaluation,
        baselines=baselines,
        test_metrics=tested.metrics,
        test_baselines=worker.test.baselines,
        start=start,
    )


def build_evaluator(
    plan: SlotPlan,
    data: WorkerFrames,
    split: EvaluationSplit,
    extractor: Extractor,
    perceptual: PerceptualDistance | None,
    group: WorkerGroup,
    device: torch.device,
) -> Evaluator:
    """The evaluator of a split; MetricError if this worker would measure by another protocol."""
    pairs, count = (
        (data.validation, plan.validation_count) if split == "val" else (data.test, plan.test_count)
    )
    size = pairs.rgb.shape[-1]
    protocol = full_protocol(extractor.protocol(images=count, size=size), perceptual)
    if (expected := {**plan.protocol, "images": count}) != protocol:
        raise MetricError(
            f"This search measures with {expected}, but a worker's machine has {protocol}: give "
            "all machines the same weights."
        )
    file = cached_statistics_path(plan.statistics, extractor, split, count)
    real = real_statistics(file, pairs, extractor, group)
    return Evaluator(pairs, extractor, real, group, device, perceptual)


def _describe(error: BaseException) -> str:
    """One line for the record: "out of memory" by that name, everything else in its own words."""
    text = " ".join(str(error).split())
    name = "out of memory" if is_out_of_memory(error) else type(error).__name__
    return f"{name}: {text[:400]}"


def _free_memory(device: torch.device) -> None:
    """Returns a trial's memory before the next trial begins."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
