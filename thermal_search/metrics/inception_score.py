"""The Inception Score (Salimans et al. 2016, arXiv 1606.03498, section 4), streamed."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


class ClassStatistics:
    """A classifier's predictions for generated images, as sums that merge over batches and workers.

    The classes are ImageNet's, so the score says little about thermal images. It serves to compare
    with the literature, and is never an objective.
    """

    def __init__(self, classes: int) -> None:
        self.count = torch.zeros((), dtype=torch.float64)
        self.probabilities = torch.zeros(classes, dtype=torch.float64)
        self.negative_entropy = torch.zeros((), dtype=torch.float64)

    def add(self, logits: Float[Tensor, "batch classes"]) -> None:
        log_probabilities = logits.double().log_softmax(1).cpu()
        probabilities = log_probabilities.exp()
        self.count += len(logits)
        self.probabilities += probabilities.sum(0)
        self.negative_entropy += (probabilities * log_probabilities).sum()

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Adds up the sums, which are on the CPU, over the workers of `group`: a gloo group."""
        if not dist.is_initialized() or dist.get_world_size(group) == 1:
            return
        for tensor in (self.count, self.probabilities, self.negative_entropy):
            dist.all_reduce(tensor, group=group)

    @property
    def score(self) -> float:
        """exp of the mean KL divergence of an image's classes from all images' classes: from 1, if
        all predictions are alike, to the number of classes. Over all images at once, no splits."""
        mean = self.probabilities / self.count
        entropy = torch.special.entr(mean).sum()
        return float((self.negative_entropy / self.count + entropy).exp())
