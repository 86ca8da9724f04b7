"""The image of a front: every trial by its two measures."""

from matplotlib.figure import Figure

from thermal_search.storage import Location
from thermal_search.tuning.record import SearchRecord

FILE = "front.png"


def draw_pareto_front(record: SearchRecord) -> Location | None:
    """Writes O/front.png, whole; None where nothing has been evaluated."""
    ranking = record.ranking()
    if not ranking:
        return None
    worth = {trial.id: record.worth(trial) for trial in ranking}
    best = [worth[id] for id in record.front()]
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for architecture in sorted({trial.architecture for trial in ranking}):
        points = [worth[trial.id] for trial in ranking if trial.architecture == architecture]
        axes.scatter(*zip(*points, strict=True), label=architecture, s=24)
    # A step: between two trials of the front there is none that is better than both corners.
    axes.step(*zip(*best, strict=True), where="post", color="black", linewidth=1, label="front")
    for id in record.front():
        x, y = worth[id]
        axes.annotate(id[-5:], (x, y), xytext=(4, 4), textcoords="offset points", size=8)
    across, up = record.objective.axes
    axes.set(xlabel=f"{across} (lower is better)", ylabel=f"{up} (lower is better)")
    axes.legend()
    place = record.output / FILE
    with place.open_output() as file:
        figure.savefig(file, dpi=120, format="png")
    return place
