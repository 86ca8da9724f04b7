"""Budgets that leave few steps: a search says so before it starts."""

import logging

from thermal_search import architectures
from thermal_search.architectures.translator import Config
from thermal_search.errors import SearchError
from thermal_search.tuning.budgets import Calibration
from thermal_search.tuning.first_settings import FLAG as FIRST
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.slots.messages import TrialConfig

MIN_GENERATOR_STEPS = 5_000
"""A trial with fewer generator steps is short: the papers take tens of thousands and more."""

log = logging.getLogger(__name__)


def warn_if_short(plan: SearchPlan, size: int, calibration: Calibration | None = None) -> None:
    """Logs a warning if the budget leaves few generator steps, on images of `size` pixels, to the
    settings that the search tries first: the published points as far as nothing is fixed, and
    those of --first."""
    budgets = plan.budgets(size, calibration)

    def few_steps(point: TrialConfig) -> str | None:
        """The architecture and the generator steps of a point that has few; None of another."""
        point = plan.fix_budget(point, budgets)
        assert point.budget
        try:
            config = architectures.ARCHITECTURES[point.architecture].Config(
                size=size, **point.parameters
            )
        except (TypeError, ValueError) as error:  # of a search space of one's own
            raise SearchError(
                f"{point.architecture} cannot be built with a setting that is to be tried first: "
                f"{error}"
            ) from None
        steps = generator_steps(config, point.budget.images, plan.workers)
        return f"{point.architecture} ({steps:,})" if steps < MIN_GENERATOR_STEPS else None

    space = plan.search_space()
    kinds = {
        "published points": [space.published(name) for name in plan.architectures],
        f"{FIRST} settings": [setting.config for setting in plan.first_settings],
    }
    short: list[str] = []
    for kind, points in kinds.items():
        if few := [text for text in map(few_steps, points) if text]:
            short.append(f"the {kind} of {', '.join(few)}")
    if short:
        log.warning(
            "%s leaves fewer than %s generator steps to %s: "
            "pass more, or expect smaller batches to be better.",
            f"--images {plan.images}" if plan.images else "Equal compute for every trial",
            f"{MIN_GENERATOR_STEPS:,}",
            " and ".join(short),
        )


def generator_steps(config: Config, images: int, workers: int) -> int:
    """The generator's updates in a trial of `images` images shown; at most about
    MIN_GENERATOR_STEPS are counted."""
    shown = steps = 0
    while shown < images and steps < MIN_GENERATOR_STEPS:
        shown += config.batch_size_at(shown / images) * workers
        steps += config.generator_turns
    return steps
