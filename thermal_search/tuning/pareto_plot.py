"""The plot of a Pareto front: every trial by its two objectives."""

from thermal_search.storage import Location
from thermal_search.tuning.record import SearchRecord

FILE = "pareto_front.png"


def draw_pareto_front(record: SearchRecord) -> Location | None:
    """Writes OUTPUT/pareto_front.png; None if nothing has been evaluated."""
    from matplotlib.figure import Figure

    ranking = record.ranking()
    if not ranking:
        return None
    values = {trial.id: record.objective_values(trial) for trial in ranking}
    pareto_front = record.pareto_front()
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for architecture in sorted({trial.architecture for trial in ranking}):
        points = [values[trial.id] for trial in ranking if trial.architecture == architecture]
        axes.scatter(*zip(*points, strict=True), label=architecture, s=24)
    # A step line: no trial lies below and left of it.
    corners = [values[id] for id in pareto_front]
    axes.step(*zip(*corners, strict=True), where="post", color="black", lw=1, label="Pareto front")
    for id in pareto_front:
        x, y = values[id]
        axes.annotate(id, (x, y), xytext=(4, 4), textcoords="offset points", size=8)
    across, up = record.objective.axes
    axes.set(xlabel=f"{across} (lower is better)", ylabel=f"{up} (lower is better)")
    axes.legend()
    path = record.output / FILE
    with path.open_output(make_folder=False) as file:
        figure.savefig(file, dpi=120, format="png")
    return path
