"""`search --dry-run`: what a search will train, how long it takes, and what does not fit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import ray

from thermal_search.storage import Location
from thermal_search.tuning import nodes
from thermal_search.tuning.budgets import Budgets, Calibration
from thermal_search.tuning.calibrate import calibrate
from thermal_search.tuning.expected_stops import expected_shares
from thermal_search.tuning.nodes import NodeWait
from thermal_search.tuning.pace import compute_of, trial_seconds
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.schedulers import SCHEDULERS
from thermal_search.tuning.sharing import share_gpus
from thermal_search.tuning.slots.config import SlotPlacement
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.slots.mps_keeper import shared_gpus
from thermal_search.tuning.summary import TrialRecord
from thermal_search.tuning.time_left import TrialTimes, retraining_seconds, share_of, time_left

EVALUATIONS = (
    "Evaluations come on top: their time depends on the features and the validation pairs."
)


def dry_run(plan: SearchPlan, *, address: str, wait: NodeWait) -> str:
    """Says what the search would do on the machines, after measuring them for at most two minutes,
    with --trials-per-gpu auto for at most four.

    Raises what `search` raises before anything starts. Writes nothing.
    """
    manifest = plan.check()
    was_connected = ray.is_initialized()
    nodes.join(address)
    try:
        placement = nodes.wait_for(plan, wait, print)
        with shared_gpus(print) as gpus:
            shared = share_gpus(plan, manifest.size, placement, gpus, print)
            placement = shared.placement
            calibration, device_bytes = shared.measured or calibrate(
                plan, manifest.size, placement, gpus.keeper
            )
    finally:
        if not was_connected:
            ray.shutdown()
    calibration = calibration.model_copy(
        update={"compute": compute_of(plan, placement.slots, calibration)}
    )
    return forecast(plan, placement, calibration, device_bytes, shared.why)


def forecast(
    plan: SearchPlan,
    placement: SlotPlacement,
    calibration: Calibration,
    device_bytes: int,
    sharing: str = "",
) -> str:
    """What a dry run prints.

    Args:
        device_bytes: the memory of one slot's device.
        sharing: a sentence on how many trials share a GPU, and why.
    """
    uses = calibration if plan.needs_calibration else None
    budgets = plan.budgets(calibration.size, uses)
    space = plan.search_space()
    points = {name: plan.fix_budget(space.published(name), budgets) for name in plan.architectures}
    seconds = trial_seconds(plan, points, calibration)
    rows = [
        _row(name, point, calibration, seconds[name], device_bytes)
        for name, point in points.items()
    ]
    header = ("architecture", "s/image", "memory", "images a trial", "hours a trial", "")
    lines = [
        f"{placement.slots} slot(s) of {plan.workers} worker(s) on {calibration.device}",
        *([sharing] if sharing else []),
        "",
        *_table([header, *rows]),
        "",
        *_first_trials(plan),
        *_totals(plan, points, seconds, placement.slots, budgets),
        EVALUATIONS,
    ]
    misfits = [row[0] for row in rows if row[-1].startswith("does not fit")]
    if misfits:
        lines.append(
            f"Does not fit the memory of a slot at the published point: {', '.join(misfits)}. Fix "
            f"a smaller batch, as in --fix {misfits[0]}.batch_size=N, or leave it out"
            + (", or share each GPU among fewer trials." if placement.gpu_share < 1 else ".")
        )
    return "\n".join(lines)


def _first_trials(plan: SearchPlan) -> list[str]:
    first = [f"{len(plan.first_settings)} settings of --first"] if plan.first_settings else []
    first += [f"the best settings of {plan.learn_from}"] if plan.learn_from else []
    if not plan.no_published:
        first.append(f"the published points of {', '.join(plan.architectures)}")
    return [f"First trials: {', then '.join(first)}."] if first else []


def _row(
    name: str,
    point: TrialConfig,
    calibration: Calibration,
    seconds: float,
    device_bytes: int,
) -> tuple[str, ...]:
    budget = point.budget
    assert budget
    images, hours = f"{budget.images:,}", f"{seconds / 3600:.2g}"
    speed = calibration.speeds.get(name)
    if not speed:
        failure = calibration.failures.get(name, "not measured")
        note = "does not fit: " if failure.startswith("out of memory") else "estimated: "
        return name, f"{seconds / budget.images:.2g}", "?", images, hours, note + failure
    note = "" if speed.memory_bytes <= device_bytes else "does not fit: " + _gib(device_bytes)
    memory = _gib(speed.memory_bytes)
    return name, f"{speed.seconds_per_image:.2g}", memory, images, hours, note


def _totals(
    plan: SearchPlan,
    points: Mapping[str, TrialConfig],
    seconds: Mapping[str, float],
    slots: int,
    budgets: Budgets | None,
) -> list[str]:
    """How long the whole search takes, without and with early stopping."""
    if plan.hours and plan.is_open_ended:
        return [f"As many trials as fit {plan.hours:g} hours, the final retrainings included."]
    hours = expected_seconds(plan, seconds, slots) / 3600
    shares = _expected_shares(plan, points, budgets)
    shorter = expected_seconds(plan, seconds, slots, shares) / 3600 if shares else None
    number = f"{plan.trials} trials and {plan.finalists * plan.seeds} retrainings"
    text = f"{number}: about {hours:.3g} hours"
    if plan.scheduler in SCHEDULERS:
        text += " if no trial is stopped early"
    if plan.scheduler == "median":
        text += "; how many median stops depends on the learning curves"
    elif shorter is not None and shorter < hours:
        text += (
            f", and about {shorter:.3g} hours if {plan.scheduler} stops as many as of trials in "
            "random order"
        )
    text += "."
    if plan.hours and (hours if shorter is None else shorter) > plan.hours:
        text += f" --hours {plan.hours:g} may end the search before all of these trials."
    return [text]


def _expected_shares(
    plan: SearchPlan, points: Mapping[str, TrialConfig], budgets: Budgets | None
) -> dict[str, float] | None:
    """The mean fraction of a full trial's work that a trial trains, by architecture."""
    of_points = {name: point.budget for name, point in points.items() if point.budget}

    def done(name: str, share: float) -> float:
        trial = TrialRecord(
            id=name,
            number=0,
            architecture=name,
            parameters=dict(points[name].parameters),
            budget=of_points[name],
        )
        shown = trial.model_copy(update={"images": round(share * trial.budget.images)})
        return budgets.done(shown) if budgets else share_of(shown)

    return expected_shares(plan.scheduler, of_points, plan.trials, plan.reduction, done)


def expected_seconds(
    plan: SearchPlan,
    seconds: Mapping[str, float],
    slots: int,
    shares: Mapping[str, float] | None = None,
) -> float:
    """Seconds of a search that has not begun.

    Args:
        seconds: of full trials, by architecture.
        shares: which fraction of them trials take on average; None if they train to their end.
    """
    trials = {name: seconds[name] * (shares or {}).get(name, 1.0) for name in seconds}
    with TemporaryDirectory(prefix="thermal-search-") as scratch:
        record = SearchRecord(plan.replace(output=Location.of(Path(scratch))))
        total = time_left(record, slots, "trials", TrialTimes(record, before=trials))
        assert total is not None
        # A retraining is never stopped early.
        longer = retraining_seconds(record, slots, seconds)
        return total + longer - retraining_seconds(record, slots, trials)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True)]
            + [row[-1]]
        ).rstrip()
        for row in rows
    ]


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
