"""The search itself: Optuna proposes, Ray Tune schedules, slots train, the record remembers."""

import dataclasses
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
from thermal_search.storage import Location
from thermal_search.tracking.runs import require_store
from thermal_search.tuning import nodes as machines
from thermal_search.tuning.callback import SearchCallback
from thermal_search.tuning.final_ranking import finalists
from thermal_search.tuning.nodes import NodeWait
from thermal_search.tuning.placement import SlotPlacement
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import Kind, SearchRecord, TrialRecord
from thermal_search.tuning.scheduler import PerArchitectureASHA
from thermal_search.tuning.slots.slot import Slot
from thermal_search.tuning.slots.worker_loop import SlotPlan
from thermal_search.tuning.space import FINALIST, PruningOptunaSearch, RetrainingQueue, searcher

NAME, RETRAININGS = "search", "retrainings"
HEAD = "node:__internal_head__"
"""The resource by which Ray marks the machine that leads; there is 1.0 of it."""

SLOT_LOSSES_PER_TRIAL = 3
"""Times a trial may lose its whole slot (not only a worker) and be started elsewhere."""


def search(
    plan: SearchPlan,
    *,
    address: str = "local",
    resume: bool = False,
    patience: NodeWait = NodeWait(),  # noqa: B008 - immutable
) -> SearchRecord:
    """Runs a search to its end, or the rest of one, and returns its record.

    Raises SearchError, DatasetError or WeightsUnavailable before anything is started.
    """
    manifest = plan.check()
    _check_output(plan, manifest, resume)
    require_store(plan.output)
    # Before any machine is asked for: a missing weights file is known now.
    protocol = protocol_of(plan, manifest)
    if resume:
        require_same_protocol(protocol, plan.protocol)
    else:
        plan = dataclasses.replace(plan, dataset_digest=manifest.digest, protocol=protocol)
    plan.output.make_folder()
    plan.save()
    was_joined = ray.is_initialized()
    machines.join(address)
    try:
        _quieten()
        layout = machines.wait_for(plan, patience, Console(highlight=False, soft_wrap=True).print)
        _run_trials(plan, manifest, layout, resume)
        if plan.finalists:
            _decide(plan, manifest, layout)
    finally:
        if not was_joined:
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
                f"{plan.data} is not the dataset this search began with: its trials would not "
                "compare. Pass the same --data, or start a new search."
            )
    elif plan.output.list():
        raise SearchError(
            f"{plan.output} must be empty, but holds something already: pass --resume to go on "
            "with the search in it, or another --output."
        )


def require_same_protocol(protocol: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """Raises SearchError where a search would go on with numbers that are measured otherwise."""
    for name in sorted({*protocol, *first}):
        if protocol.get(name) != first.get(name):
            raise SearchError(
                f"This search began with {name} {first.get(name)}, but would now measure with "
                f"{protocol.get(name)}, and its numbers would not compare: go on with what it "
                "began with, or start a new search."
            )


def _run_trials(plan: SearchPlan, manifest: Manifest, layout: SlotPlacement, resume: bool) -> None:
    # Held until the search is over: its blocks live as long as the process that loaded them.
    dataset = load(manifest)
    slots = slot_for(plan, manifest, dataset, layout)
    _tuner(plan, slots, layout.slots, resume).fit()
    del dataset


def _decide(plan: SearchPlan, manifest: Manifest, layout: SlotPlacement) -> None:
    """Trains the best configurations again with further seeds, evaluators them on the test split, and
    writes the final_ranking down. Goes on where it was stopped."""
    record = SearchRecord.load(plan.output)
    running = any(trial.status == "running" for trial in record.trials.values())
    chosen = finalists(record, plan.finalists)
    plan = dataclasses.replace(plan, finalists=len(chosen))
    if record.final_ranking:
        # MLflow may have been away when it was given.
        SearchCallback(plan, "retrainings").resend()
        return
    if running or len(record.trials) < plan.trials or not chosen:
        return
    # Only now: while the search chooses, nothing has seen the test split.
    dataset = load(manifest, with_test=True)
    slots = slot_for(plan, manifest, dataset, layout, kind="retrainings")
    _retraining_tuner(plan, chosen, slots, layout.slots).fit()
    del dataset


def slot_for(
    plan: SearchPlan,
    manifest: Manifest,
    dataset: LoadedDataset,
    layout: SlotPlacement,
    kind: Kind = "trials",
) -> Any:
    """The trainable of this plan's slots, as Ray Tune takes it."""
    tested = manifest.count("pairs", "test")  # of a single one there is no distance
    slot_plan = SlotPlan(
        shares=dataset.share(plan.workers),
        statistics=manifest.statistics,
        validation_count=manifest.count("pairs", "val"),
        test_count=tested if kind == "retrainings" and tested >= 2 else 0,
        features=plan.features,
        features_precision=plan.features_precision,
        inception_weights=plan.inception_weights,
        lpips_weights=plan.lpips_weights,
        protocol=plan.protocol,
        metric=plan.metric,
        threads=layout.threads_per_worker,
    )
    slot = tune.with_parameters(
        Slot,
        plan=slot_plan,
        workers=plan.workers,
        layout=layout,
        storage=plan.output / "tune" / "slots",
        trial_settings=_trial_settings(plan, kind),
        aim=plan.aim,
        average_last=plan.average_last,
    )
    # The slot's own process only waits; its workers hold the resources. It waits on the head, whose
    # loss is the loss of the cluster anyway: any other machine may then go at any time, and takes
    # only workers with it, which Ray Train starts again elsewhere.
    return tune.with_resources(slot, {HEAD: 0.001})


def _trial_settings(plan: SearchPlan, kind: Kind) -> dict[str, Any]:
    return {
        "folder": plan.output / kind,
        "images": plan.images,
        "evaluate_every": plan.evaluate_every,
        "seed": plan.seed,
        "precision": plan.precision,
    }


def _tuner(plan: SearchPlan, trainable: Any, slots: int, resume: bool) -> tune.Tuner:
    PruningOptunaSearch.slots = slots
    if resume and (begun := _restored(plan.output / "tune" / NAME, trainable)):
        return begun
    # A scheduler compares by one measure: trials of a front all run to their end.
    scheduler = (
        FIFOScheduler()
        if plan.aim.has_two_objectives
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
            search_alg=searcher(
                plan.architectures, plan.seed, has_two_objectives=plan.aim.has_two_objectives
            ),
            scheduler=scheduler,
            num_samples=plan.trials,
            reuse_actors=True,
        ),
        run_config=_run_config(plan, NAME, "trials"),
    )


def _retraining_tuner(
    plan: SearchPlan, chosen: Sequence[TrialRecord], trainable: Any, slots: int
) -> tune.Tuner:
    RetrainingQueue.slots = slots
    if begun := _restored(plan.output / "tune" / RETRAININGS, trainable):
        return begun
    settings = [
        {
            "architecture": trial.architecture,
            trial.architecture: trial.parameters,
            "configuration": trial.id,
            "seed": plan.seed + further,
        }
        for further in range(1, plan.seeds + 1)
        for trial in chosen
    ]
    return tune.Tuner(
        trainable,
        param_space={FINALIST: tune.grid_search(settings)},
        tune_config=tune.TuneConfig(search_alg=RetrainingQueue(), reuse_actors=True),
        run_config=_run_config(plan, RETRAININGS, "retrainings"),
    )


def _restored(place: Location, trainable: Any) -> tune.Tuner | None:
    """What Ray Tune was at work on when it was stopped; None where it had not begun."""
    filesystem = place.filesystem
    if not tune.Tuner.can_restore(place.path, storage_filesystem=filesystem):
        return None
    return tune.Tuner.restore(
        place.path, trainable, resume_errored=True, storage_filesystem=filesystem
    )


def _run_config(plan: SearchPlan, name: str, kind: Kind) -> tune.RunConfig:
    storage = plan.output / "tune"
    return tune.RunConfig(
        name=name,
        storage_path=storage.path,
        storage_filesystem=storage.filesystem,
        callbacks=[SearchCallback(plan, kind)],
        failure_config=tune.FailureConfig(max_failures=SLOT_LOSSES_PER_TRIAL),
        verbose=0,
    )


def _quieten() -> None:
    """Our own progress is what people follow; the engines' notes stay in their log files."""
    for noisy in ("ray.tune", "ray.train", "ray.data", "optuna"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=Warning, module="optuna")
