"""What every worker of a slot runs, for as long as the search lasts: one trial after another."""

import gc
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import ray
import torch
from ray import train
from ray.train.torch import get_device

from thermal_search.data.frames import WorkerFrames
from thermal_search.data.ray_dataset import Share, open_share
from thermal_search.distributed.worker_group import WorkerGroup, WorkerLost
from thermal_search.errors import MetricError, TrialDiverged
from thermal_search.evaluation.baselines import Baselines, load_or_measure_baselines
from thermal_search.evaluation.evaluator import Evaluator, full_protocol, real_statistics
from thermal_search.metrics import (
    Extractor,
    FeaturesPrecision,
    PerceptualDistance,
    build_extractor,
    cached_statistics_path,
)
from thermal_search.storage import Location
from thermal_search.training.trial import Evaluation, Trial, TrialPlan
from thermal_search.tuning.slots.mailbox import Job, Result

IDLE_S = 5.0
"""Seconds the first worker waits for a trial before it tells the others that all is well."""

EvaluationSplit = Literal["val", "test"]


@dataclass(frozen=True, kw_only=True)
class SlotPlan:
    """What a slot's workers keep from trial to trial."""

    shares: list[Share]
    """One a worker."""

    statistics: Location
    """The folder where what is measured of the dataset is kept."""

    validation_count: int
    """Validation pairs over all shares."""

    test_count: int
    """Test pairs over all shares; 0 where trials are not judged on them."""

    features: str
    features_precision: FeaturesPrecision
    inception_weights: Path | None
    lpips_weights: Path | None
    protocol: Mapping[str, str | int]
    """The search's, for the validation split. A worker with other weights must not evaluator."""

    metric: str
    threads: int
    """CPU threads a worker computes with."""


@dataclass(frozen=True)
class Evaluators:
    """Who evaluators a slot's trials, each with what its scores are to be read against."""

    validation: tuple[Evaluator, Baselines]
    test: tuple[Evaluator, Baselines] | None
    """Of trials whose training has ended; only where a search decides between its finalists."""


def worker_loop(config: dict[str, Any]) -> None:
    """Takes trials from the mailbox until it closes. Ray Train's training function."""
    plan: SlotPlan = config["plan"]
    mailbox = config["mailbox"]
    group = WorkerGroup()
    if group.is_rank_zero:
        _record_placement_group(config["lease"])
    if not group.broadcast_object(lambda: ray.get(mailbox.start.remote())):
        return
    try:
        torch.set_num_threads(plan.threads)
        device = _device()
        data = open_share(plan.shares[train.get_context().get_world_rank()])
        extractor = build_extractor(
            plan.features,
            inception_weights=plan.inception_weights,
            precision=plan.features_precision,
            device=device,
        )
        perceptual = PerceptualDistance(plan.lpips_weights, device) if plan.lpips_weights else None

        def evaluator(split: EvaluationSplit) -> Evaluator:
            return build_evaluator(plan, data, split, extractor, perceptual, group, device)

        evaluators = Evaluators(
            validation=_with_baselines(evaluator("val"), plan, data, "val"),
            test=_with_baselines(evaluator("test"), plan, data, "test")
            if plan.test_count
            else None,
        )
    except WorkerLost:
        raise
    except Exception as error:
        ray.get(mailbox.start_failed.remote(_describe(error)))
        raise
    if group.is_rank_zero:
        ray.get(mailbox.ready.remote())
    while job := group.broadcast_object(partial(_take, mailbox)):
        if job != "idle":
            _train(job, data, evaluators, group, device, plan.metric, mailbox)
            _free_memory(device)


def _device() -> torch.device:
    """The GPU that Ray gives this worker, or the CPU."""
    device = get_device()
    assert isinstance(device, torch.device)
    if device.type != "cuda":
        return device
    if torch.cuda.is_available():
        # All GPUs of the machine's workers are visible to each.
        torch.cuda.set_device(device)
        return device
    # Ray also counts GPUs that are not there (`ray start --num-gpus`); of real ones it knows the
    # type.
    here = ray.get_runtime_context().get_node_id()
    (resources,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    if any(name.startswith("accelerator_type:") for name in resources):
        raise RuntimeError(
            f"this machine has a GPU that its torch {torch.__version__} cannot use: install a "
            "build of torch for the GPU's driver, or pass --gpus-per-worker 0"
        )
    return torch.device("cpu")


def _record_placement_group(lease: Location) -> None:
    """Writes down which reservation this group holds, for a slot that must clear up after it."""
    reservation = ray.util.get_current_placement_group()
    if reservation is not None:
        lease.write_text(reservation.id.hex())


def _take(mailbox: Any) -> Job | Literal["idle"] | None:
    job: Any = ray.get(mailbox.take.remote(IDLE_S))
    return job


def _train(
    job: Job,
    data: WorkerFrames,
    evaluators: Evaluators,
    group: WorkerGroup,
    device: torch.device,
    metric: str,
    mailbox: Any,
) -> None:
    """Trains one trial to its end, or to where Ray Tune stops it. Its faults stay its own."""

    def end(result: Result | None) -> None:
        if group.is_rank_zero:
            ray.get(mailbox.end.remote(job["id"], result))

    try:
        plan = TrialPlan(**job)
        evaluator, baselines = evaluators.validation
        trial = Trial(plan, data, evaluator, group, device)
        # What an earlier life of this trial found is told again: Tune may have missed the last of
        # it. The mailbox hands on only what is new.
        evaluations = itertools.chain(trial.history, trial.evaluations())
        for number, evaluation in enumerate(evaluations):
            result = _result(trial, evaluation, metric) | {"baselines": baselines}
            if evaluators.test and result["status"] == "completed":
                # Once, when nothing that is chosen can depend on it any more.
                test, result["test_baselines"] = evaluators.test
                found = trial.evaluate_on(test, trial.plan.folder / "test.png")
                result["test"] = found.metrics
            if group.broadcast_object(partial(_report, mailbox, job["id"], number, result)):
                break
        end(None)
    except TrialDiverged as divergence:
        end({"status": "diverged", "reason": str(divergence)})
    except WorkerLost:
        raise  # a fresh group takes the trial up again
    except Exception as error:
        # By whichever worker it is, before anything else, so that it is not tried again.
        ray.get(mailbox.end.remote(job["id"], _failed(error)))
        if group.size > 1:
            # The others may be waiting for this one inside a collective: only a fresh group is
            # sure to be sound.
            raise


def _report(mailbox: Any, trial: str, number: int, result: Result) -> bool:
    """Hands in one evaluation and waits for the answer: True when the trial is to stop."""
    return ray.get(mailbox.report.remote(trial, number, result))


def _result(trial: Trial, evaluation: Evaluation, metric: str) -> Result:
    is_last = evaluation.images >= trial.plan.images
    return {
        "status": "completed" if is_last else "running",
        "images": evaluation.images,
        "metrics": evaluation.metrics,
        "losses": evaluation.losses,
        "seconds": evaluation.seconds,
        "images_per_second": evaluation.images_per_second,
        "grid": evaluation.grid,
    }


def _with_baselines(
    evaluator: Evaluator, plan: SlotPlan, data: WorkerFrames, split: EvaluationSplit
) -> tuple[Evaluator, Baselines]:
    return evaluator, load_or_measure_baselines(evaluator, data.thermal, plan.statistics, split)


def build_evaluator(
    plan: SlotPlan,
    data: WorkerFrames,
    split: EvaluationSplit,
    extractor: Extractor,
    perceptual: PerceptualDistance | None,
    group: WorkerGroup,
    device: torch.device,
) -> Evaluator:
    """Of a split; MetricError where this worker would measure otherwise than the search does."""
    pairs, count = (
        (data.validation, plan.validation_count) if split == "val" else (data.test, plan.test_count)
    )
    size = pairs.rgb.shape[-1]
    protocol = full_protocol(extractor.protocol(images=count, size=size), perceptual)
    if (search := {**plan.protocol, "images": count}) != protocol:
        raise MetricError(
            f"This search measures with {search}, but a worker's machine has {protocol}: give all "
            "machines the same weights."
        )
    file = cached_statistics_path(plan.statistics, extractor, split, count)
    real = real_statistics(file, pairs, extractor, group)
    return Evaluator(pairs, extractor, real, group, device, perceptual)


def _failed(error: BaseException) -> Result:
    return {"status": "failed", "reason": _describe(error)}


def _describe(error: BaseException) -> str:
    """One line for the record: memory by its name, everything else as it says itself."""
    text = " ".join(str(error).split())
    is_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "alloc" in text
    name = "out of memory" if is_memory else type(error).__name__
    return f"{name}: {text[:400]}"


def _free_memory(device: torch.device) -> None:
    """Gives a trial's memory back before the next one begins."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
