"""From the flags of a command to the plan of a search."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import search_spaces
from thermal_search.errors import SearchError
from thermal_search.tuning.objective import PARETO
from thermal_search.tuning.plan import SearchPlan

DEFAULT_TRIALS = 60
DEFAULT_IMAGES = 200_000
EVALUATIONS_PER_TRIAL = 10
AVERAGED = 3
"""Evaluations a trial's worth is averaged over, where it has three times as many."""

DEFAULT_FINALISTS = 3
TRIALS_FOR_FINALISTS = 20
"""A smaller search retrains nothing unless it is asked to: it would take longer than the search."""


def plan_from_flags(flags: Mapping[str, Any], *, resume: bool) -> SearchPlan:
    """The plan asked for; with `resume` the one in the output folder, with what may be changed."""
    known = {field.name for field in fields(SearchPlan)}
    asked = {name: flags[name] for name in known & flags.keys() if flags[name] is not None}
    if resume:
        return SearchPlan.load(asked["output"]).resumed(asked)
    if "data" not in asked:
        raise SearchError("A search needs --data, a folder written by process.py.")
    images = asked.get("images", DEFAULT_IMAGES)
    every = asked.get("evaluate_every", max(images // EVALUATIONS_PER_TRIAL, 1))
    trials = asked.get("trials", DEFAULT_TRIALS)
    has_two_objectives = asked.get("objective", "").strip().startswith(PARETO)
    defaults: dict[str, Any] = {
        "architectures": tuple(search_spaces.names()),
        "trials": trials,
        "images": images,
        "evaluate_every": every,
        "average_last": min(max(images // max(every, 1) // 3, 1), AVERAGED),
        "finalists": 0
        if has_two_objectives or trials < TRIALS_FOR_FINALISTS
        else DEFAULT_FINALISTS,
    }
    return SearchPlan(**defaults | asked)
