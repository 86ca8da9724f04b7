"""`--start-from`: the exported generator that the trials of its architecture begin from."""

from thermal_search import architectures, generator
from thermal_search.errors import SearchError, SettingsError
from thermal_search.training.starting_weights import take_over
from thermal_search.training.trial_plan import StartingPoint
from thermal_search.tuning.plan import SearchPlan


def starting_point(plan: SearchPlan) -> StartingPoint | None:
    """What the plan's trials start from; None if it names no generator.

    Raises SearchError if the generator cannot be read, or is not the one that the search began
    with; SettingsError if the search does not train its architecture.
    """
    if plan.start_from is None:
        return None
    config = generator.load_config(plan.start_from)
    if config.architecture not in plan.architectures:
        raise SettingsError(
            f"--start-from {plan.start_from} is a generator of {config.architecture}, which is not "
            f"among --architectures {','.join(plan.architectures)}: add it, or leave --start-from "
            "out."
        )
    digest = generator.load_weights(plan.start_from).digest
    return StartingPoint(plan.start_from, config.architecture, digest)


def recorded_start(plan: SearchPlan) -> StartingPoint | None:
    """The same, with the digest that the search began with: a worker refuses any other weights."""
    if plan.start_from is None:
        return None
    architecture = generator.load_config(plan.start_from).architecture
    return StartingPoint(plan.start_from, architecture, plan.start_digest)


def require_same_start(plan: SearchPlan, start: StartingPoint | None) -> None:
    """SearchError if a search would resume with trials that start elsewhere than its first ones."""
    digest = start.digest if start else ""
    if digest == plan.start_digest:
        return
    if not plan.start_digest:
        raise SearchError(
            f"This search began without --start-from, but would now start from {plan.start_from}: "
            "leave it out, or start a new search."
        )
    raise SearchError(
        f"{plan.start_from} has other weights than when the search began, so its trials would not "
        "compare: restore them, or start a new search."
    )


def describe_start(plan: SearchPlan, start: StartingPoint, size: int) -> str:
    """How much of the generator the published point of its architecture takes over."""
    parameters = plan.search_space().published(start.architecture).parameters
    translator = architectures.build(start.architecture, size, parameters)
    taken = take_over(translator.generator, generator.load_weights(start.model).tensors)
    text = (
        f"Trials of {start.architecture} start from {start.model}: at the published point "
        f"{taken.taken_over} tensors are taken over, {taken.left_out} left out."
    )
    if not taken.left_out:
        return text
    theirs = generator.load_config(start.model).parameters
    others = [
        f"{start.architecture}.{name}={value}"
        for name, value in theirs.items()
        if name in parameters and parameters[name] != value
    ]
    if not others:
        return text
    return (
        f"{text} For its shapes pass --fix with those of these that decide them: {','.join(others)}"
    )
