"""What the parameters of one architecture did to the objective, by Optuna's analysis of a study.

Parameters are conditional on their architecture, so each architecture is analyzed by itself.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.study import Study, StudyDirection
from optuna.trial import TrialState, create_trial

from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.summary import TrialRecord

MIN_TRIALS = 10
"""Fewer trials say nothing about a parameter's importance."""

COMPARED_FRACTION = 0.5
"""Least fraction of the trials that are compared: of the few that early stopping leaves, all have
good values of what matters, so that it would seem not to matter."""

GOOD_TRIALS = 5
"""PED-ANOVA compares the best trials with all: Optuna advises that these are at least so many."""

GOOD_FRACTION, MAX_GOOD_FRACTION = 0.1, 0.5


@dataclass(frozen=True)
class Parameter:
    """A parameter that the search varies."""

    name: str
    choices: Sequence[Any]
    """The values of a categorical parameter; else empty."""

    low: float
    high: float
    """The range of a number; 0 for a categorical parameter."""

    is_log: bool
    values: Mapping[str, Any]
    """By trial; a trial in which the parameter does not apply has none."""

    importance: float | None
    """Its share of the importance of all parameters; None if there are too few trials."""


@dataclass(frozen=True)
class Analysis:
    """The parameters of one architecture, the most important first if that is known."""

    parameters: Sequence[Parameter]
    fixed: Mapping[str, Any]
    """Parameters with a single value, as --fix sets them."""

    compared_trials: int
    """Trials that the importances follow from."""

    compared_at: int
    """The number of the evaluation (from 1) at which these trials are compared; 0 if there are too
    few."""

    left_out: int
    """Trials whose parameters are not in today's search space."""


def analyze(record: SearchRecord, architecture: str) -> Analysis:
    """The analysis of all evaluated trials of an architecture.

    Importances compare trials after equal parts of their budgets, as a trial that was stopped early
    has a higher objective for that reason alone: at the latest evaluation that half of the
    trials, and `MIN_TRIALS` of them, have reached. With two objectives they are those of the first.
    """
    space = record.plan.search_space()
    points: dict[str, tuple[dict[str, Any], dict[str, BaseDistribution]]] = {}
    trials: list[TrialRecord] = []
    left_out = 0
    for trial in record.trials.values():
        if trial.architecture != architecture or not trial.history:
            continue
        point = space.flatten(TrialConfig(architecture, trial.parameters))
        if point is None:
            left_out += 1
            continue
        points[trial.id] = (
            _of_architecture(point[0], architecture),
            _of_architecture(point[1], architecture),
        )
        trials.append(trial)
    compared, evaluations = _comparable(trials)
    study = _study(record, compared, evaluations, points)
    importances = _importances(study) if evaluations else {}
    distributions = {} if architecture not in space.spaces else space.spaces[architecture].space
    parameters: list[Parameter] = []
    fixed: dict[str, Any] = {}
    for name, distribution in distributions.items():
        values = {id: point[0][name] for id, point in points.items() if name in point[0]}
        if not values:
            continue
        if distribution.single():
            fixed[name] = next(iter(values.values()))
        else:
            parameters.append(_parameter(name, distribution, values, importances.get(name)))
    parameters.sort(key=lambda parameter: -(parameter.importance or 0.0))
    compared_trials = len(compared) if evaluations else len(trials)
    return Analysis(parameters, fixed, compared_trials, evaluations, left_out)


def _of_architecture(mapping: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    prefix = f"{architecture}/"
    return {
        name.removeprefix(prefix): value
        for name, value in mapping.items()
        if name.startswith(prefix)
    }


def _comparable(trials: Sequence[TrialRecord]) -> tuple[list[TrialRecord], int]:
    """The trials that have reached the latest evaluation that enough trials have, and its number;
    no trials and 0 if there is no such evaluation."""
    counts = sorted((len(trial.history) for trial in trials), reverse=True)
    if len(counts) < MIN_TRIALS:
        return [], 0
    evaluations = counts[max(MIN_TRIALS, ceil(COMPARED_FRACTION * len(counts))) - 1]
    return [trial for trial in trials if len(trial.history) >= evaluations], evaluations


def _study(
    record: SearchRecord,
    trials: Sequence[TrialRecord],
    evaluations: int,
    points: Mapping[str, tuple[dict[str, Any], dict[str, BaseDistribution]]],
) -> Study:
    """The trials as a study of Optuna, each with its objective after so many evaluations."""
    axes = record.objective.axes
    study = optuna.create_study(directions=[StudyDirection.MINIMIZE] * len(axes))
    for trial in trials:
        parameters, distributions = points[trial.id]
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                values=record.objective_after(trial, evaluations),
                params=parameters,
                distributions=distributions,
                user_attrs={"id": trial.id},
            )
        )
    return study


def _importances(study: Study) -> dict[str, float]:
    """By parameter; empty if no parameter varies, or none matters."""
    # Here: it imports sklearn, which takes two seconds.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    trials = study.get_trials(deepcopy=False)
    fraction = min(max(GOOD_FRACTION, GOOD_TRIALS / len(trials)), MAX_GOOD_FRACTION)
    # Only what varies in these trials can be seen to matter.
    tried: dict[str, set[Any]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            tried.setdefault(name, set()).add(value)
    varying = {name for name, values in tried.items() if len(values) > 1}
    if not varying:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # That it finds what makes an objective low, as is wanted here.
        warnings.filterwarnings("ignore", message="PedAnovaImportanceEvaluator computes")
        # That a parameter which depends on others was drawn only once: the figures of few trials
        # are rough in any case.
        warnings.filterwarnings("ignore", message="Some regimes for parameter")
        importances = get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=fraction),
            target=lambda trial: trial.values[0],
        )
    importances = {name: value for name, value in importances.items() if name in varying}
    # Optuna gives all the same share if the best trials do not differ from the others in anything.
    if len(importances) > 1 and max(importances.values()) - min(importances.values()) < 1e-9:
        return {}
    return importances


def _parameter(
    name: str, distribution: BaseDistribution, values: Mapping[str, Any], importance: float | None
) -> Parameter:
    if isinstance(distribution, CategoricalDistribution):
        return Parameter(name, distribution.choices, 0.0, 0.0, False, values, importance)
    assert isinstance(
        distribution, (optuna.distributions.FloatDistribution, optuna.distributions.IntDistribution)
    )
    low, high = float(distribution.low), float(distribution.high)
    return Parameter(name, (), low, high, distribution.log, values, importance)
