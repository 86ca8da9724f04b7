"""Budgets that leave few steps: a search says so before it starts."""

import logging

from thermal_search import architectures
from thermal_search.architectures.translator import Config
from thermal_search.tuning.budgets import Calibration
from thermal_search.tuning.plan import SearchPlan

MIN_GENERATOR_STEPS = 5_000
"""A trial with fewer generator steps is short: the papers take tens of thousands and more."""

log = logging.getLogger(__name__)


def warn_if_short(plan: SearchPlan, size: int, calibration: Calibration | None = None) -> None:
    """Logs a warning if the budget leaves few generator steps on images of `size` pixels."""
    short: list[str] = []
    space, budgets = plan.search_space(), plan.budgets(size, calibration)
    for name in plan.architectures:
        point = plan.fix_budget(space.published(name), budgets)
        assert point.budget
        config = architectures.ARCHITECTURES[name].Config(size=size, **point.parameters)
        steps = generator_steps(config, point.budget.images, plan.workers)
        if steps < MIN_GENERATOR_STEPS:
            short.append(f"{name} ({steps:,})")
    if short:
        log.warning(
            "%s leaves fewer than %s generator steps to the published points of %s: "
            "pass more, or expect smaller batches to be better.",
            f"--images {plan.images}" if plan.images else "Equal compute for every trial",
            f"{MIN_GENERATOR_STEPS:,}",
            ", ".join(short),
        )


def generator_steps(config: Config, images: int, workers: int) -> int:
    """The generator's updates in a trial of `images` images shown; at most about
    MIN_GENERATOR_STEPS are counted."""
    shown = steps = 0
    while shown < images and steps < MIN_GENERATOR_STEPS:
        shown += config.batch_size_at(shown / images) * workers
        steps += config.generator_turns
    return steps
