"""What MLflow shows of a trial: the keys of its metrics, its tags, and the view of its search."""

from thermal_search.tracking.runs import GRID, SEARCH_TAG
from thermal_search.tracking.view import SearchView
from thermal_search.training.trial_plan import TrialBudget, TrialEvaluation
from thermal_search.tuning.objective import Objective, Sum
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.population import explorable
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.rungs import Rungs
from thermal_search.tuning.summary import RetrainingRecord, TrialRecord


def objective_keys(objective: Objective, average_last: int) -> list[str]:
    """The key of each axis. A metric that is minimized itself has its own key, so that no number
    has two names; a mean or a sum says of what."""
    return [_key(axis, average_last) for axis in objective.axes]


def objective_sentence(objective: Objective, average_last: int) -> str:
    """What the objective is, in words."""
    axes = " and ".join(str(axis) for axis in objective.axes)
    if average_last == 1:
        return f"{axes} of the last evaluation, minimized"
    return f"mean of {axes} over the last {average_last} evaluations, minimized"


def _key(axis: Sum, average_last: int) -> str:
    (weight, metric), *others = axis.terms
    if average_last == 1 and not others and weight == 1:
        return metric
    # MLflow's keys have no + and no *.
    text = str(axis).replace("*", "_").replace("+", "_plus_").replace("-", "_minus_")
    return f"objective_{text.strip('_')}"


def logged_metrics(record: SearchRecord, trial: TrialRecord, count: int) -> dict[str, float]:
    """The metrics of evaluation `count` (from 1), and the trial's objective at that time. With pbt
    also the parameters that change in flight, as the trial had them until then."""
    keys = objective_keys(record.objective, record.plan.average_last)
    values = record.objective_after(trial, count)
    evaluation = trial.history[count - 1]
    changing = _changing_parameters(record, trial, evaluation.images)
    return evaluation.metrics | dict(zip(keys, values, strict=False)) | changing


def _changing_parameters(record: SearchRecord, trial: TrialRecord, images: int) -> dict[str, float]:
    if record.plan.scheduler != "pbt":
        return {}
    parameters = trial.parameters_at(images)
    if isinstance(trial, RetrainingRecord):
        passed = [item.parameters for item in trial.retrained if item.images < images]
        parameters = passed[-1] if passed else parameters
    space = record.plan.search_space((trial.architecture,)).spaces[trial.architecture]
    return {f"pbt/{n}": float(parameters[n]) for n in explorable(space) if n in parameters}


def logged_training(evaluation: TrialEvaluation) -> dict[str, float]:
    """How an evaluation's training went: losses by player, speed, and the workers' machines."""
    losses = {f"loss/{name}": value for name, value in evaluation.losses.items()}
    system = {f"system/{name}": value for name, value in evaluation.system.items()}
    speed = {"seconds": evaluation.seconds, "images_per_second": evaluation.images_per_second}
    return speed | losses | system


def grid_step(budget: TrialBudget, images: int) -> int:
    """The step of an evaluation's image grid: the one that was due, so that trials whose batch
    sizes differ show their images at the same steps."""
    if images >= budget.images:
        return budget.images
    return images - images % budget.evaluate_every


def start_tags(trial: TrialRecord) -> dict[str, str]:
    """Tags of a trial's run from its start."""
    if isinstance(trial, RetrainingRecord):
        return {"phase": "retraining", "finalist": trial.finalist, "seed": str(trial.seed)}
    return {"phase": "trial"}


def lineage_tags(trial: TrialRecord) -> dict[str, str]:
    """Tags of the run of a trial that has continued from others, as it does so: from which at last,
    all that have trained its weights, each decision, and what it trains with since."""
    if not trial.exploits:
        return {}
    changed = {name for exploit in trial.exploits for name in exploit.changed}
    return {
        "pbt_parent": trial.exploits[-1].donor,
        "pbt_lineage": " > ".join(trial.lineage),
        "pbt_history": "\n".join(exploit.reason for exploit in trial.exploits),
        **{f"pbt.{n}": str(trial.parameters.get(n, "does not apply")) for n in sorted(changed)},
    }


def end_tags(record: SearchRecord, trial: TrialRecord) -> dict[str, str]:
    """Tags of a trial's run when it has ended: how far it came."""
    tags = {"stopped_at": str(trial.images), **lineage_tags(trial)}
    if record.plan.scheduler == "asha" and not isinstance(trial, RetrainingRecord):
        tags["rung"] = str(last_rung(trial.budget, record.plan.reduction, trial.images))
    return tags


def last_rung(budget: TrialBudget, reduction: float, images: int) -> int:
    """The images of the last rung of ASHA that a trial has reached, of which the end of its budget
    is one; 0 before the first."""
    shares = [*Rungs.of(budget, reduction).shares, 1.0]
    reached = [int(share * budget.images + 1e-6) for share in shares]
    return max((rung for rung in reached if rung <= images), default=0)


def search_view(plan: SearchPlan) -> SearchView:
    """The view of a search in the MLflow UI."""
    objective = plan.parsed_objective
    keys = objective_keys(objective, plan.average_last)
    metrics = list(dict.fromkeys([*keys, plan.metric, *sorted(objective.keys), "l1", "psnr"]))
    return SearchView(
        search_id=plan.id,
        condition=f"tags.`{SEARCH_TAG}` = '{plan.id}'",
        order_by=keys[0],
        metrics=metrics,
        images=GRID,
    )
