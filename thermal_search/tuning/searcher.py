"""Which trials Ray Tune runs next: those that Optuna proposes, then the finalists' retrainings."""

from collections.abc import Sequence
from typing import Any, ClassVar

from optuna.samplers import TPESampler
from ray.tune.experiment import Trial
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from thermal_search.tuning.space import (
    OBJECTIVE,
    SECOND_OBJECTIVE,
    ConditionalSpace,
    Fixed,
    published_point,
)


class PruningOptunaSearch(OptunaSearch):
    """Reports a trial that was stopped early to Optuna as pruned, not as completed with its value:
    TPE ranks it after all completed trials, by how far it came."""

    slots: ClassVar[int] = 1
    """Trials that may run at once: the slots of this run. Not part of the saved state, unlike Ray
    Tune's own limit, because a search may resume on other machines."""

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if len(self._ot_trials.keys() - self._completed_trials) >= self.slots:
            return None  # Ray Tune asks again
        return super().suggest(trial_id)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if result and result["status"] == "running":
            # Ray Tune does not report the evaluation at which it stops a trial.
            self.on_trial_result(trial_id, result)
            result = None
        super().on_trial_complete(trial_id, result, error)


class RetrainingQueue(BasicVariantGenerator):
    """Every finalist with every further seed, no more at once than there are slots."""

    slots: ClassVar[int] = 1
    """As PruningOptunaSearch's."""

    def next_trial(self) -> Trial | None:
        self.max_concurrent = self.slots
        return super().next_trial()


def build_searcher(
    architectures: Sequence[str],
    seed: int,
    *,
    has_two_objectives: bool = False,
    fixed: Fixed | None = None,
) -> PruningOptunaSearch:
    """TPE over the architectures, after the published point of each. With two objectives it is
    Optuna's multi-objective TPE, which learns from completed trials only."""
    return PruningOptunaSearch(
        space=ConditionalSpace(architectures, fixed),
        metric=[OBJECTIVE, SECOND_OBJECTIVE] if has_two_objectives else OBJECTIVE,
        mode=["min", "min"] if has_two_objectives else "min",
        points_to_evaluate=[published_point(name, fixed) for name in architectures],
        # Several trials run at once: `constant_liar` keeps the sampler from proposing the same
        # point twice. The seed belongs to the sampler; OptunaSearch ignores its own next to one.
        sampler=TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed),
    )
