"""Runs a search: Optuna proposes, Ray Tune schedules, slots train, SearchRecord stores."""

import logging
import tempfile
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from rich.console import Console

from thermal_search.architectures import from_file
from thermal_search.atomic_file import remove_unfinished
from thermal_search.data.manifest import Manifest
from thermal_search.data.ray_dataset import LoadedDataset, load
from thermal_search.errors import SearchError
from thermal_search.storage import Location
from thermal_search.tracking.store import require_store
from thermal_search.training.trial_plan import TrialPlan
from thermal_search.tuning import nodes
from thermal_search.tuning.beginning import holds_search, require_new, write_plan
from thermal_search.tuning.callback import SearchCallback
from thermal_search.tuning.learned import learn
from thermal_search.tuning.nodes import NodeWait
from thermal_search.tuning.ownership import own, require_free
from thermal_search.tuning.pace import Pace, calibration_of
from thermal_search.tuning.placement import place_alone
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.protocol import protocol_of, require_same_protocol
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.record_files import TRIAL_FILES, Phase
from thermal_search.tuning.schedulers import build_scheduler
from thermal_search.tuning.shared_study import open_storage
from thermal_search.tuning.sharing import share_gpus
from thermal_search.tuning.short_budgets import warn_if_short
from thermal_search.tuning.slots.config import SlotConfig, SlotPlacement, SlotPlan
from thermal_search.tuning.slots.mps_keeper import SharedGpus, shared_gpus
from thermal_search.tuning.slots.slot import Slot, release_workers
from thermal_search.tuning.starting_point import (
    describe_start,
    recorded_start,
    require_same_start,
    starting_point,
)
from thermal_search.tuning.stopping import SearchStopper, resume_command
from thermal_search.tuning.time_left import TrialTimes
from thermal_search.tuning.trial_source import (
    TrialSource,
    proposed_trials,
    retrainings,
    stop_other_retrainings,
)

RAY_FOLDER = "ray"
"""The folder in the output for Ray Train's files, which every machine must reach. Never read
again."""

SLOT_LOSSES_PER_TRIAL = 10
"""Times a trial may lose its whole slot (not only a worker) and start again in another. A slot is
lost with the machine that its own process runs on, which is no fault of the trial."""

SLOT_RESOURCES = {"CPU": 0.001}
"""Of a slot's own processes, which only wait: any node that has CPUs. In a cluster whose head has
none, they cost the head no memory."""


def search(
    plan: SearchPlan,
    *,
    address: str = "local",
    resume: bool = False,
    storage: str | None = None,
    wait: NodeWait = NodeWait(),  # noqa: B008 - immutable
    architecture_files: Sequence[Path] = (),
) -> SearchRecord:
    """Runs a search to its end, or the rest of one, and returns its record.

    Args:
        storage: where Optuna keeps the study that others may open, as a URL; by default a journal
            in the output folder.
        architecture_files: those that were named, for the command that continues the search.

    Raises SearchError, DatasetError or WeightsUnavailable before anything starts.
    """
    started = time.monotonic()
    manifest = plan.check()
    _check_output(plan, manifest, resume)
    require_store(plan.output)
    optuna_storage = open_storage(plan.output, storage) if storage else None
    # Before any machine is requested: a missing weights file is an error now.
    protocol = protocol_of(plan, manifest)
    start = starting_point(plan)
    if resume:
        require_same_protocol(protocol, plan.protocol)
        require_same_start(plan, start)
    else:
        plan = plan.started_on(manifest.digest, protocol, start.digest if start else "")
        if not plan.needs_calibration:
            warn_if_short(plan, manifest.size)
    learned = None if resume else learn(plan)
    if learned:
        plan = plan.replace(learned_digest=learned.digest)
    was_connected = ray.is_initialized()
    nodes.join(address)
    command = resume_command(
        plan.output, address=address, storage=storage, architecture_files=architecture_files
    )
    stopper = SearchStopper(command, can_resume=resume)
    try:
        silence_libraries()
        say = Console(highlight=False, soft_wrap=True).print
        with stopper.on_signals(), shared_gpus(say) as gpus:
            shared = share_gpus(plan, manifest.size, nodes.wait_for(plan, wait, say), gpus, say)
            if shared.why:
                say(shared.why)
            placement = shared.placement
            calibration = calibration_of(
                plan,
                manifest.size,
                placement,
                resume,
                say,
                measured=shared.measured[0] if shared.measured else None,
                mps=gpus.keeper,
            )
            if calibration and not resume:
                plan = plan.replace(is_calibrated=True)
                warn_if_short(plan, manifest.size, calibration)
            # Only now: what is refused until here leaves the folder as it was.
            plan.output.make_folder()
            if start:
                print(describe_start(plan, start, manifest.size), flush=True)
            with stopper.on_storage_faults(), own(plan.output, stopper.report_fault):
                try:
                    write_plan(plan, resume=resume, learned=learned, calibration=calibration)
                finally:
                    stopper.can_resume = holds_search(plan.output)
                _remove_unfinished(plan.output)
                # Of an earlier run, or of the search that this one is a copy of: its placement
                # groups are not ours.
                (plan.output / RAY_FOLDER).delete()
                study = optuna_storage or open_storage(plan.output, None)
                pace = Pace.of(plan, manifest.size, placement.slots, calibration, started)
                record = _search(pace, manifest, placement, stopper, study, gpus)
                (plan.output / RAY_FOLDER).delete()
                return record
        stopper.raise_reason()
        raise AssertionError("a search that does not return was stopped for a reason")
    finally:
        if not was_connected:
            ray.shutdown()


def _search(
    pace: Pace,
    manifest: Manifest,
    placement: SlotPlacement,
    stopper: SearchStopper,
    storage: BaseStorage | None,
    gpus: SharedGpus,
) -> SearchRecord:
    """Runs what the record lacks: trials, then the finalists with further seeds, which are
    evaluated on the test split."""
    record = pace.record
    if pace.clock:
        pace.clock.begin("trials")
    if record.has_every_trial:
        # MLflow may have been unreachable when the last one ended.
        SearchCallback(record, "trials", stopper, storage).resend()
    else:
        _load_and_run("trials", pace, manifest, placement, stopper, gpus, storage)
    if record.finalists():
        stop_other_retrainings(record)
        if pace.clock:
            pace.clock.begin("retrainings")
        if record.final_ranking:
            SearchCallback(record, "retrainings", stopper).resend()
        else:
            _load_and_run("retrainings", pace, manifest, placement, stopper, gpus)
    return record


def _remove_unfinished(output: Location) -> None:
    """Removes what a killed search has left unfinished. A bucket has no such files."""
    if local := output.local:
        remove_unfinished(local.iterdir())
        for phase in TRIAL_FILES:
            remove_unfinished((local / phase).rglob(".unfinished-*"))


def _check_output(plan: SearchPlan, manifest: Manifest, resume: bool) -> None:
    require_free(plan.output)
    if resume:
        if plan.dataset_digest != manifest.digest:
            raise SearchError(
                f"{plan.data} is not the dataset this search began with, so its trials would not "
                "compare: pass the same --data, or start a new search."
            )
    else:
        require_new(plan.output)


def _load_and_run(
    phase: Phase,
    pace: Pace,
    manifest: Manifest,
    placement: SlotPlacement,
    stopper: SearchStopper,
    gpus: SharedGpus,
    storage: BaseStorage | None = None,
) -> None:
    """Trains what is left of a phase, on the dataset; at the end with a whole GPU for each what did
    not fit its share of one."""
    # Held until the phase ends: its blocks live as long as the process that loaded them. While
    # trials are compared, nothing reads the test split.
    dataset = load(manifest, with_test=phase == "retrainings")
    record = pace.record

    def train(placement: SlotPlacement) -> None:
        trainable = slot_trainable(record.plan, manifest, dataset, placement, phase, gpus.keeper)
        run_phase(phase, record, trainable, placement.slots, stopper, storage, pace)
        if stopper.is_out_of_time:
            release_workers()

    train(placement)
    trials = record.trials if phase == "trials" else record.retrainings
    if count := sum(trial.needs_whole_gpu for trial in trials.values()):
        print(f"{count} trial(s) did not fit a shared GPU and train again alone.", flush=True)
        train(place_alone(record.plan, count, nodes.present()))
    del dataset


def run_phase(
    phase: Phase,
    record: SearchRecord,
    trainable: Any,
    slots: int,
    stopper: SearchStopper,
    storage: BaseStorage | None = None,
    pace: Pace | None = None,
) -> None:
    """Runs what is left of a phase through slots.

    Args:
        trainable: what Ray Tune starts in each slot, as `slot_trainable` makes it.
        pace: budgets and time of a search with equal compute or with --hours.

    Raises SearchInterrupted or SearchStopped if the search was stopped.
    """
    is_search = phase == "trials"
    scheduler = build_scheduler(record) if is_search else FIFOScheduler()
    stop_reasons = getattr(scheduler, "stop_reasons", {})
    exploits = getattr(scheduler, "exploits", {})
    pace = pace or Pace(record, None, TrialTimes(record), None)
    clock = pace.clock
    trials = (
        proposed_trials(record, pace.budgets, clock) if is_search else retrainings(record, clock)
    )
    stopper.is_time_over = partial(clock.is_over, phase) if clock else None
    stopper.is_out_of_time = False
    callback = SearchCallback(
        record,
        phase,
        stopper,
        storage,
        stop_reasons,
        exploits,
        time=clock,
        estimate=partial(pace.left, slots, phase),
    )
    # Ray Tune's files are of this process alone: what a search resumes from is its record.
    with tempfile.TemporaryDirectory(prefix="thermal-search-") as scratch:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=TrialSource(record.plan, trials, slots, stopper),
                scheduler=scheduler,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=phase,
                storage_path=scratch,
                # A trial's own folder holds its state. Ray Tune would write to `scratch`, which the
                # slots of other nodes do not see: it would take them for lost.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=SLOT_LOSSES_PER_TRIAL),
                stop=stopper,
                verbose=0,
            ),
        )
        with stopper.while_trials_run(), nodes.watch_this_node(stopper.report_fault):
            tuner.fit()


def slot_trainable(
    plan: SearchPlan,
    manifest: Manifest,
    dataset: LoadedDataset,
    placement: SlotPlacement,
    phase: Phase = "trials",
    mps: Any = None,
) -> Any:
    """The trainable of this plan's slots, as Ray Tune takes it.

    Args:
        mps: the actor that knows how workers share a GPU; None if they share none.
    """
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
        gpu_share=placement.gpu_share,
        own_architectures=tuple(from_file.registered[name] for name in plan.own_architectures),
    )
    slot = SlotConfig(
        plan=ray.put(slot_plan),
        workers=plan.workers,
        placement=placement,
        storage=plan.output / RAY_FOLDER,
        mps=mps,
        trial_template=TrialPlan(
            id="",
            architecture="",
            parameters={},
            folder=plan.output / phase,
            images=0,
            evaluate_every=0,
            seed=plan.seed,
            precision=plan.precision,
            start_from=recorded_start(plan),
        ),
    )
    # Not by the slots, of which one may start when the output folder is gone.
    slot.storage.make_subfolder()
    slot.placement_groups.make_subfolder()
    return tune.with_resources(tune.with_parameters(Slot, slot=slot), SLOT_RESOURCES)


def silence_libraries() -> None:
    """The search shows its own progress; the libraries' messages stay in their log files."""
    for name in ("ray.tune", "ray.train", "ray.data", "optuna"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It logs every error that it raises, with its traceback. A level would not last: MLflow sets up
    # its loggers again.
    logging.getLogger("mlflow.store.db.utils").addFilter(lambda record: False)
    warnings.filterwarnings("ignore", category=Warning, module="optuna")
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
