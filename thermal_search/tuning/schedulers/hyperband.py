"""Asynchronous Hyperband within each architecture: ASHA with several brackets.

ASHA stops most trials at its first rung, and so prefers settings that start fast. Hyperband hedges:
it runs brackets side by side whose first rungs lie further and further back. Ray Tune's synchronous
Hyperband pauses the trials of a rung until the last one has come; a slot cannot pause a trial, and
would stand idle. Its asynchronous form (Li et al. 2018, https://arxiv.org/abs/1810.05934, section
3.3) pauses none.
"""

import hashlib
import itertools
import math

from thermal_search.tuning.rungs import Rungs
from thermal_search.tuning.schedulers.asha import ASHARule, asha_settings
from thermal_search.tuning.schedulers.per_architecture import PerArchitectureScheduler, StoppingRule

MAX_BRACKETS = 3


class PerArchitectureHyperband(PerArchitectureScheduler):
    """One asynchronous Hyperband per architecture."""

    def create_rule(self, rungs: Rungs) -> StoppingRule:
        settings = asha_settings(rungs)
        ratio = rungs.last / rungs.first
        count = int(math.log(ratio) / math.log(rungs.reduction)) + 1
        brackets = max(min(count, MAX_BRACKETS), 1)
        return HyperbandRule(brackets=brackets, seed=self.record.plan.seed, **settings)


class HyperbandRule(ASHARule):
    """ASHA with brackets that get as many trials as Hyperband gives them.

    Ray Tune draws a trial's bracket with a generator that no search could resume.
    """

    def bracket_of(self, id: str) -> int:
        reductions = [*range(len(self._brackets) - 1, -1, -1)]
        # So many trials that every bracket takes about the same number of images in all.
        weights = [self._reduction_factor**count / (count + 1) for count in reductions]
        digest = hashlib.sha256(f"{self.seed} {id}".encode()).digest()
        drawn = int.from_bytes(digest[:6], "big") / 2**48 * sum(weights)
        return sum(drawn >= bound for bound in itertools.accumulate(weights[:-1]))
