"""How a search ended, in words."""

from thermal_search.tuning.record import SearchRecord


def describe(record: SearchRecord) -> str:
    """The ranking, best first, and the commands that come next."""
    metric, output = record.metric, record.output
    lines = [f"{'':2} {metric:>12}  {'architecture':14} {'trial':8} {'images':>9}  status"]
    for place, trial in enumerate(record.ranking(), start=1):
        lines.append(
            f"{place:2} {trial.best_score(metric):12.2f}  {trial.architecture:14} "
            f"{trial.id[-5:]:8} {trial.images:9,}  {trial.status}"
        )
    for trial in record.trials.values():
        if not trial.history:
            lines.append(f" - {trial.architecture} {trial.id[-5:]} {trial.status}: {trial.reason}")
    if any(trial.status == "running" for trial in record.trials.values()):
        lines.append(f"Not over: thermal-search search --output {output} --resume goes on.")
    if record.best is None:
        lines.append("No trial reached an evaluation; the reasons are above.")
    else:
        lines += [
            "",
            f"thermal-search ui {output}       # compare the trials",
            f"thermal-search export {output}   # the best generator",
        ]
    return "\n".join(lines)
