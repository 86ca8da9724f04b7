"""Runs a search: Optuna suggests, Ray Tune schedules, slots train, SearchRecord stores."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from rich.console import Console

from thermal_search.data.manifest import Manifest
from thermal_search.data.ray_dataset import LoadedDataset, load
from thermal_search.errors import SearchError
from thermal_search.evaluation.evaluator import full_protocol
from thermal_search.metrics import PerceptualDistance, build_extractor
from thermal_search.tracking.store import require_store
from thermal_search.training.trial import TrialPlan
from thermal_search.tuning import nodes
from thermal_search.tuning.callback import SearchCallback
from thermal_search.tuning.final_ranking import finalists
from thermal_search.tuning.nodes import NodeWait
from thermal_search.tuning.placement import SlotPlacement
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import Phase, SearchRecord
from thermal_search.tuning.scheduler import PerArchitectureASHA
from thermal_search.tuning.searcher import PruningOptunaSearch, RetrainingQueue, build_searcher
from thermal_search.tuning.slots.slot import Slot, SlotConfig
from thermal_search.tuning.slots.worker_loop import SlotPlan
from thermal_search.tuning.space import RETRAINING_CONFIG, TrialConfig
from thermal_search.tuning.summary import TrialRecord

HEAD = "node:__internal_head__"
"""The resource that Ray gives the head node, 1.0 of it."""

SLOT_LOSSES_PER_TRIAL = 3
"""Times a trial may lose its whole slot (not only a worker) and start again in another."""


def search(
    plan: SearchPlan,
    *,
    address: str = "local",
    resume: bool = False,
    wait: NodeWait = NodeWait(),  # noqa: B008 - immutable
) -> SearchRecord:
    """Runs a search to its end, or the rest of one, and returns its record.

    Raises SearchError, DatasetError or WeightsUnavailable before anything starts.
    """
    manifest = plan.check()
    _check_output(plan, manifest, resume)
    require_store(plan.output)
    # Before any machine is requested: a missing weights file is an error now.
    protocol = protocol_of(plan, manifest)
    if resume:
        require_same_protocol(protocol, plan.protocol)
    else:
        plan = plan.started_on(manifest.digest, protocol)
    plan.output.make_folder()
    plan.save()
    if not resume:
        plan.warn_if_short(manifest.size)
    was_connected = ray.is_initialized()
    nodes.join(address)
    try:
        _silence_libraries()
        placement = nodes.wait_for(plan, wait, Console(highlight=False, soft_wrap=True).print)
        _run_trials(plan, manifest, placement, resume)
        if plan.finalists:
            _retrain_finalists(plan, manifest, placement)
    finally:
        if not was_connected:
            ray.shutdown()
    return SearchRecord.load(plan.output)


def protocol_of(plan: SearchPlan, manifest: Manifest) -> dict[str, str | int]:
    """How this search measures, by the weights on this machine; raises WeightsUnavailable."""
    extractor = build_extractor(
        plan.features, inception_weights=plan.inception_weights, precision=plan.features_precision
    )
    perceptual = PerceptualDistance(plan.lpips_weights) if plan.lpips_weights else None
    if perceptual:
        perceptual.require_size(manifest.size)
    return full_protocol(
        extractor.protocol(images=manifest.count("pairs", "val"), size=manifest.size), perceptual
    )


def _check_output(plan: SearchPlan, manifest: Manifest, resume: bool) -> None:
    if resume:
        if plan.dataset_digest != manifest.digest:
            raise SearchError(
                f"{plan.data} is not the dataset this search began with, so its trials would not "
                "compare: pass the same --data, or start a new search."
            )
    elif plan.output.list():
        raise SearchError(
            f"{plan.output} must be empty, but is not: pass --resume to resume the search in it, "
            "or another --output."
        )


def require_same_protocol(protocol: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """Raises SearchError if a search would resume with numbers that are measured differently."""
    for name in sorted({*protocol, *first}):
        if protocol.get(name) != first.get(name):
            raise SearchError(
                f"This search began with {name} {first.get(name)}, but would now measure with "
                f"{protocol.get(name)}, and its numbers would not compare: use what it began with, "
                "or start a new search."
            )


def _run_trials(
    plan: SearchPlan, manifest: Manifest, placement: SlotPlacement, resume: bool
) -> None:
    # Held until the search ends: its blocks live as long as the process that loaded them.
    dataset = load(manifest)
    trainable = slot_trainable(plan, manifest, dataset, placement)
    _tuner(plan, trainable, placement.slots, resume).fit()
    del dataset


def _retrain_finalists(plan: SearchPlan, manifest: Manifest, placement: SlotPlacement) -> None:
    """Retrains the best trials with further seeds, evaluates them on the test split, and records
    the final ranking. Resumes where it was stopped."""
    record = SearchRecord.load(plan.output)
    chosen = finalists(record, plan.finalists)
    plan = plan.with_finalists(len(chosen))
    if record.final_ranking:
        # MLflow may have been unreachable when it was recorded.
        SearchCallback(plan, "retrainings").resend()
        return
    ended = [trial for trial in record.trials.values() if trial.status != "running"]
    if len(ended) < plan.trials or not chosen:
        return
    # Only now: while trials are compared, nothing reads the test split.
    dataset = load(manifest, with_test=True)
    trainable = slot_trainable(plan, manifest, dataset, placement, phase="retrainings")
    _retraining_tuner(plan, chosen, trainable, placement.slots).fit()
    del dataset


def slot_trainable(
    plan: SearchPlan,
    manifest: Manifest,
    dataset: LoadedDataset,
    placement: SlotPlacement,
    phase: Phase = "trials",
) -> Any:
    """The trainable of this plan's slots, as Ray Tune takes it."""
    test_count = manifest.count("pairs", "test")  # a single image has no Frechet distance
    slot_plan = SlotPlan(
        shards=dataset.split_among(plan.workers),
        statistics=manifest.statistics,
        validation_count=manifest.count("pairs", "val"),
        test_count=test_count if phase == "retrainings" and test_count >= 2 else 0,
        features=plan.features,
        features_precision=plan.features_precision,
        inception_weights=plan.inception_weights,
        lpips_weights=plan.lpips_weights,
        protocol=plan.protocol,
        threads=placement.threads_per_worker,
    )
    slot = SlotConfig(
        plan=slot_plan,
        workers=plan.workers,
        placement=placement,
        storage=plan.output / "tune" / "slots",
        trial_template=TrialPlan(
            id="",
            architecture="",
            parameters={},
            folder=plan.output / phase,
            images=plan.images,
            evaluate_every=plan.evaluate_every,
            seed=plan.seed,
            precision=plan.precision,
        ),
        objective=plan.parsed_objective,
        average_last=plan.average_last,
    )
    # The slot's own process only waits; its workers hold the resources. It runs on the head node,
    # whose loss is the loss of the cluster anyway: any other node may then leave at any time, and
    # takes only workers with it, which Ray Train restarts elsewhere.
    return tune.with_resources(tune.with_parameters(Slot, slot=slot), {HEAD: 0.001})


def _tuner(plan: SearchPlan, trainable: Any, slots: int, resume: bool) -> tune.Tuner:
    PruningOptunaSearch.slots = slots
    if resume and (restored := _restored(plan, "trials", trainable)):
        return restored
    has_two_objectives = plan.parsed_objective.has_two_objectives
    # ASHA compares by one objective: with two, every trial runs to its end.
    scheduler = (
        FIFOScheduler()
        if has_two_objectives
        else PerArchitectureASHA(
            plan.output,
            images=plan.images,
            grace_images=plan.evaluate_every,
            reduction=plan.reduction,
        )
    )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=build_searcher(
                plan.architectures, plan.seed, has_two_objectives=has_two_objectives
            ),
            scheduler=scheduler,
            num_samples=plan.trials,
            reuse_actors=True,
        ),
        run_config=_run_config(plan, "trials"),
    )


def _retraining_tuner(
    plan: SearchPlan, chosen: Sequence[TrialRecord], trainable: Any, slots: int
) -> tune.Tuner:
    RetrainingQueue.slots = slots
    if restored := _restored(plan, "retrainings", trainable):
        return restored
    configs = [
        TrialConfig(
            trial.architecture, trial.parameters, finalist=trial.id, seed=plan.seed + further
        ).to_tune()
        for further in range(1, plan.seeds + 1)
        for trial in chosen
    ]
    return tune.Tuner(
        trainable,
        param_space={RETRAINING_CONFIG: tune.grid_search(configs)},
        tune_config=tune.TuneConfig(search_alg=RetrainingQueue(), reuse_actors=True),
        run_config=_run_config(plan, "retrainings"),
    )


def _restored(plan: SearchPlan, phase: Phase, trainable: Any) -> tune.Tuner | None:
    """The run of Ray Tune that was stopped; None if it had not begun."""
    folder = plan.output / "tune" / phase
    filesystem = folder.filesystem
    if not tune.Tuner.can_restore(folder.path, storage_filesystem=filesystem):
        return None
    return tune.Tuner.restore(
        folder.path, trainable, resume_errored=True, storage_filesystem=filesystem
    )


def _run_config(plan: SearchPlan, phase: Phase) -> tune.RunConfig:
    storage = plan.output / "tune"
    return tune.RunConfig(
        name=phase,
        storage_path=storage.path,
        storage_filesystem=storage.filesystem,
        callbacks=[SearchCallback(plan, phase)],
        failure_config=tune.FailureConfig(max_failures=SLOT_LOSSES_PER_TRIAL),
        verbose=0,
    )


def _silence_libraries() -> None:
    """The search shows its own progress; the libraries' messages stay in their log files."""
    for name in ("ray.tune", "ray.train", "ray.data", "optuna"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=Warning, module="optuna")
