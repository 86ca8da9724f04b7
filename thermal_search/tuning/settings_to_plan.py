"""From the settings of a new search to its plan, and from a plan to that of its next run."""

import logging
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import search_spaces
from thermal_search.errors import SearchError, SettingsError
from thermal_search.metrics import is_file, metric_name
from thermal_search.tuning.budgets import EVALUATIONS_PER_TRIAL
from thermal_search.tuning.first_settings import read_first
from thermal_search.tuning.objective import PARETO
from thermal_search.tuning.own_code import OwnCode, read_own_code, require_code
from thermal_search.tuning.plan import NAMED_FILES, SearchPlan
from thermal_search.tuning.settings import ALL, MAX_TRIALS, SearchSettings

DEFAULT_TRIALS = 60
MAX_AVERAGED = 3
"""Default number of evaluations in a trial's objective value, if it has three times as many."""

DEFAULT_FINALISTS = 3
TRIALS_FOR_FINALISTS = 20
"""A smaller search retrains no finalists by default: that would take longer than the search."""

CHANGEABLE = {
    "slots",
    "workers",
    "gpus_per_worker",
    "trials_per_gpu",
    "placement",
    "inception_weights",
    "lpips_weights",
    "start_from",
    "data",
    "output",
    "finalists",
    "seeds",
    "hours",
}
"""What may differ when a search resumes: paths, how many machines there are, and what happens when
its trials have ended."""

GROWING = {"trials", "architectures"}
"""What may become more when a search resumes."""

log = logging.getLogger(__name__)


def plan_from_settings(settings: SearchSettings, *, resume: bool = False) -> SearchPlan:
    """The plan of a new search, with every default decided; with `resume` the plan in the output
    folder, with the settings that may change."""
    if resume:
        return resume_plan(SearchPlan.load(settings.output), settings)
    if settings.data is None:
        raise SettingsError("A search needs --data, a folder written by process.py.")
    _require_one_budget(settings)
    images = settings.images or EVALUATIONS_PER_TRIAL  # of equal compute, every trial has its own
    every = settings.evaluate_every or max(images // EVALUATIONS_PER_TRIAL, 1)
    evaluations = images // every
    code = read_own_code(settings.space, settings.architecture_file)
    has_two_objectives = settings.objective.strip().startswith(PARETO)
    trials = settings.trials or (MAX_TRIALS if settings.hours else DEFAULT_TRIALS)
    is_small = trials < TRIALS_FOR_FINALISTS
    defaults = {
        "trials": trials,
        "evaluate_every": every,
        "average_last": min(max(evaluations // 3, 1), MAX_AVERAGED),
        "finalists": 0 if has_two_objectives or is_small else DEFAULT_FINALISTS,
        "scheduler": "none" if has_two_objectives else "asha",
    }
    names = SearchSettings.model_fields.keys() - NAMED_FILES
    decided = {name: _value(settings, name, code) for name in names}
    decided |= {name: value for name, value in defaults.items() if decided[name] is None}
    plan = SearchPlan(**decided, id=uuid.uuid4().hex, dataset_digest="", protocol={})
    plan = _with_code(plan, code, had=())
    if settings.first:
        plan.require_known_architectures()
        first = read_first(settings.first, plan.search_space().spaces)
        plan = plan.replace(first_settings=first)
    return plan


def resume_plan(before: SearchPlan, settings: SearchSettings) -> SearchPlan:
    """A plan with the settings that were passed; SearchError if one changes the search."""
    code = read_own_code(settings.space, settings.architecture_file, before.own_spaces)
    passed = {
        name: _value(settings, name, code) for name in settings.model_fields_set - NAMED_FILES
    }
    passed = {name: value for name, value in passed.items() if value is not None}
    for name, now in passed.items():
        was = getattr(before, name)
        if name in GROWING and _includes(now, was):
            continue
        if name == "features" and _is_same_encoder(was, now):
            continue
        if name not in CHANGEABLE and was != now:
            flag = name.replace("_", "-")
            raise SearchError(
                f"--resume needs the settings that the search began with, but --{flag} was "
                f"{_text(was)} and is now {_text(now)}"
                + (", which is less" if name in GROWING else "")
                + ": leave it out, or start a new search in another --output folder."
            )
    passed = _replaced_by(passed, before) | passed
    plan = _with_code(before.replace(**passed), code, had=before.architectures)
    if plan.workers != before.workers:
        log.warning(
            "--workers was %d and is now %d, which changes a trial's numbers: each step trains "
            "on one batch per worker, so that trials compare best with those of as many workers.",
            before.workers,
            plan.workers,
        )
    plan.require_known_architectures()
    if settings.first:
        first = read_first(settings.first, plan.search_space().spaces)
        if first != before.first_settings:
            raise SearchError(
                f"--first {settings.first} has other settings than the search began with: leave it "
                "out, or start a new search in another --output folder."
            )
    return plan


def _replaced_by(passed: Mapping[str, Any], before: SearchPlan) -> dict[str, None]:
    """What the search had of resources that those which were passed exclude."""
    trials = passed.get("trials_per_gpu")
    if trials == "auto":
        return {"gpus_per_worker": None, "slots": None}
    if trials:
        return {"gpus_per_worker": None}
    if "gpus_per_worker" in passed or ("slots" in passed and before.trials_per_gpu == "auto"):
        return {"trials_per_gpu": None}
    return {}


def _with_code(plan: SearchPlan, code: OwnCode, had: Sequence[str]) -> SearchPlan:
    """A plan with the code of files, which must be what it was for architectures that the
    search had."""
    require_code({n: d for n, d in plan.own_architectures.items() if n in code.architectures})
    for name, space in code.spaces.items():
        before = plan.own_spaces.get(name)
        if name in had and (before is None or before.digest != space.digest):
            was = f"SHA-256 {before.digest[:12]}..." if before else "that of the package"
            raise SearchError(
                f"The search space of {name} is not the one that the search began with "
                f"({was}): leave out --space, or start a new search in another --output folder."
            )
    own = {name: digest for name, digest in code.architectures.items() if name not in had}
    spaces = {name: space for name, space in code.spaces.items() if name not in had}
    searched = set(plan.architectures)
    if unused := sorted((own.keys() | spaces.keys()) - searched):
        raise SettingsError(
            f"{unused[0]} has a file, but is not searched: add it to --architectures."
        )
    return plan.replace(
        own_architectures={**plan.own_architectures, **own},
        own_spaces={**plan.own_spaces, **spaces},
    )


def _require_one_budget(settings: SearchSettings) -> None:
    if settings.images and settings.compute:
        raise SettingsError(
            f"--compute must not come with --images, but is {settings.compute}: trials have either "
            "equal compute or equal images."
        )
    if settings.evaluate_every and not settings.images:
        raise SettingsError(
            f"--evaluate-every must come with --images, but is {settings.evaluate_every}: with "
            f"equal compute every trial has {EVALUATIONS_PER_TRIAL} evaluations."
        )


def _value(settings: SearchSettings, name: str, code: OwnCode) -> Any:
    """A setting as a plan holds it."""
    value = getattr(settings, name)
    if name == "architectures" and value == ALL:
        return (*search_spaces.names(), *code.architectures)
    if name == "features" and is_file(value):
        return str(Path(value).absolute())
    return value


def _text(value: Any) -> str:
    """A setting as people write it."""
    if value is None:
        return "not given"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _is_same_encoder(before: str, now: str) -> bool:
    """Whether features are an encoder's file that may have moved. The protocol knows its content,
    and the keys of all metrics have its name."""
    return is_file(before) and is_file(now) and metric_name(before) == metric_name(now)


def _includes(now: Any, before: Any) -> bool:
    """Whether a setting that may grow has grown, or is as it was."""
    return now >= before if isinstance(now, int) else set(now) >= set(before)
