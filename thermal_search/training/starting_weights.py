"""A trial that begins from an exported generator instead of random weights."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from thermal_search import generator
from thermal_search.errors import SearchError
from thermal_search.training.trial_plan import StartingPoint

EXTRA_STATE = "_extra_state"
"""The end of the names of a module's state that is no parameter or buffer, as torch has it."""


@dataclass(frozen=True)
class TakenOver:
    """How much of a network comes from an exported generator."""

    taken_over: int
    """Tensors that have the exported generator's values."""

    left_out: int
    """Tensors of the network that begin as without it: none of that name and shape was exported."""


def start_from(network: nn.Module, start: StartingPoint) -> TakenOver:
    """Gives a generator the weights of an exported one, where names and shapes agree.

    Raises SearchError if the exported weights are not those that the search began with.
    """
    weights = generator.load_weights(start.model)
    if weights.digest != start.digest:
        raise SearchError(
            f"{start.model} has other weights than when the search began: restore them, or start a "
            "new search."
        )
    return take_over(network, weights.tensors)


def take_over(network: nn.Module, weights: Mapping[str, Tensor]) -> TakenOver:
    """Copies the tensors of equal names and shapes into a network.

    How far a progressive network has grown is copied only between networks of equal tensors:
    another size has other stages.
    """
    own = network.state_dict()
    extra = {name for name in own if name.endswith(EXTRA_STATE)}
    agreeing = {
        name: weights[name]
        for name, value in own.items()
        if name not in extra and name in weights and weights[name].shape == value.shape
    }
    result = TakenOver(len(agreeing), len(own) - len(extra) - len(agreeing))
    if own.keys() == weights.keys() and not result.left_out:
        agreeing |= {name: weights[name] for name in extra}
    network.load_state_dict(own | agreeing)
    return result
