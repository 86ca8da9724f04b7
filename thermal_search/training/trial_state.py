"""A trial's state at an evaluation: what is saved of it, and how a trial continues from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from thermal_search import checkpoint
from thermal_search.storage import Location
from thermal_search.training.hardware import ComputePrecision
from thermal_search.training.trial_plan import TrialEvaluation, TrialPlan

if TYPE_CHECKING:
    from thermal_search.training.trial import Trial

SHARED_FILE = "shared.pt"
"""The part of a state that all workers have in common (see `checkpoint`)."""


@dataclass
class Progress:
    """How far a trial has come."""

    precision: ComputePrecision
    """Chosen once: a trial that resumes keeps it."""

    images: int = 0
    seconds: float = 0.0
    history: list[TrialEvaluation] = field(default_factory=list[TrialEvaluation])


def save_state(trial: "Trial") -> None:
    """Saves a trial's state, and its generator to be exported. For all workers to call."""
    plan, group, progress = trial.plan, trial.group, trial.progress
    folder = checkpoint.pending(plan.folder, progress.images)
    folder.make_subfolder()
    network = trial.translator.state_dict()
    parameters = {name for name, _ in trial.translator.named_parameters()}
    buffers = {name: value for name, value in network.items() if name not in parameters}
    checkpoint.save(
        {
            "translator": buffers,
            "batches": trial.batches.state_dict(),
            "random": _random_state(),
        },
        folder / _worker_file(group.rank),
    )
    if group.is_rank_zero:
        shared: checkpoint.State = {
            "trial": _identity(plan, progress.images),
            "translator": network,
            "optimizers": {
                name: player_optimizer.optimizer.state_dict()
                for name, player_optimizer in trial.optimizers.items()
            },
            "average": trial.average.network.state_dict() if trial.average else None,
            "progress": asdict(progress),
        }
        checkpoint.save(shared, folder / SHARED_FILE)
        _save_generator(trial)
    group.barrier()
    if group.is_rank_zero:
        workers = [_worker_file(rank) for rank in range(group.size)]
        shown = [evaluation.images for evaluation in progress.history]
        checkpoint.commit(folder, [SHARED_FILE, *workers], plan.kept_images(shown))
    group.barrier()


def _save_generator(trial: "Trial") -> None:
    description = checkpoint.GeneratorDescription(
        architecture=trial.plan.architecture,
        parameters=dict(trial.parameters),
        size=trial.translator.config.size,
        temperatures=trial.temperatures,
        alignment=trial.alignment,
        images=trial.progress.images,
        metrics=trial.progress.history[-1].metrics,
        protocol=trial.evaluator.full_protocol,
    )
    generator = trial.average.network if trial.average else trial.translator.generator
    checkpoint.save_generator(description, generator.state_dict(), trial.plan.folder)


def restore_state(trial: "Trial") -> None:
    """Gives a trial that was just built its newest state, or else that which it continues from.

    If there is neither, it begins from its first image: its parameters by images are those that a
    state would have been trained with.
    """
    plan = trial.plan
    states = trial.group.broadcast_object(lambda: _states(plan))
    if (own := states[0]) and _restore(trial, own):
        return
    if (other := states[1]) and plan.origin and _restore(trial, other):
        trial.progress.seconds = plan.origin.seconds


def _states(plan: TrialPlan) -> tuple[Location | None, Location | None]:
    """The trial's own newest state, and that which it continues from."""
    origin = plan.origin
    other = (
        checkpoint.state_after(plan.folder.parent / origin.trial, origin.images) if origin else None
    )
    return checkpoint.latest(plan.folder), other


def _identity(plan: TrialPlan, images: int) -> dict[str, Any]:
    """What a state after so many images must agree in with the trial that continues from it: so
    what it was trained with until then, whichever trial has saved it."""
    start = plan.applicable_start
    passed = [change for change in plan.changes if change.images < images]
    return {
        "architecture": plan.architecture,
        "parameters": dict(plan.parameters),
        "seed": plan.seed,
        "images": plan.images,
        **({"start": start.digest} if start else {}),
        **({"changes": [[c.images, dict(c.parameters)] for c in passed]} if passed else {}),
    }


def _restore(trial: "Trial", folder: Location) -> bool:
    """False if the state is of another trial, whose record was lost, or of what this one trained
    before it continued from another's state."""
    shared = checkpoint.load(folder / SHARED_FILE, trial.device)
    if shared["trial"] != _identity(trial.plan, shared["progress"]["images"]):
        return False
    network = shared["translator"]
    own_file = _worker_file(trial.group.rank)
    # With more workers than before, a new one starts with rank 0's buffers and fresh draws.
    has_state = own_file in checkpoint.files_of(folder)
    own = checkpoint.load(folder / own_file) if has_state else None
    if own:
        network |= own["translator"]
    trial.translator.load_state_dict(network)
    for name, player_optimizer in trial.optimizers.items():
        player_optimizer.restore(shared["optimizers"][name])
    if trial.average:
        trial.average.network.load_state_dict(shared["average"])
    trial.progress = Progress(**shared["progress"])
    trial.progress.history = [TrialEvaluation(**fields) for fields in shared["progress"]["history"]]
    if own:
        trial.batches.load_state_dict(own["batches"])
        _restore_random_state(own["random"])
    return True


def _worker_file(rank: int) -> str:
    return f"worker-{rank}.pt"


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _restore_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
