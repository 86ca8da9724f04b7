"""What a search buys on real pairs: the published settings alone, random search and the search.

    python process.py ROADSCENE road --size 64
    python benchmarks/published_random_searched.py road OUTPUT --compute 125 --seeds 0 1 2

The published setting of every architecture is trained with equal compute, one after the other.
Random search at full length, without the published settings, and the search with its defaults then
have the same hours for shorter trials: `--longer` says how many times shorter. The best generator
of each by the validation split is evaluated once on the test split. Trials run one at a time; hours
are of the clock, so leave the machine alone meanwhile, or give the benchmark a core of its own
(`taskset`). The same command resumes.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import search_spaces
import thermal_search as ts

PUBLISHED = "published settings"
POLICIES: dict[str, dict[str, Any]] = {
    PUBLISHED: {"scheduler": "none"},
    "random search": {"scheduler": "none", "sampler": "random", "no_published": True},
    "search": {},
}
"""The first one decides the hours of the others."""

METRICS = ("l1", "psnr", "ssim")


def run(args: argparse.Namespace, policy: str, seed: int, hours: float | None) -> dict[str, Any]:
    """A search to its end, and what its best generator is on the test split."""
    output: Path = args.output / f"{policy.replace(' ', '-')}-{seed}"
    began = time.monotonic()
    limits: dict[str, Any] = {"hours": hours, "compute": args.compute}
    if hours is None:
        limits = {"trials": len(args.architectures), "compute": args.compute * args.longer}
    result = ts.search(
        data=args.dataset, output=output, architectures=args.architectures, features=args.features,
        slots=1, finalists=0, seed=seed, resume=(output / "search.json").exists(),
        **limits, **POLICIES[policy],
    )  # fmt: skip
    trained = sum(trial.seconds for trial in result.record.trials.values())
    # Without the time between two runs of the benchmark, if this one resumes.
    hours = hours or max(time.monotonic() - began, trained) / 3600
    best = result.best
    report = ts.evaluate(result.export(), args.dataset, split="test", features=args.features)
    distance = next(name for name in report.metrics if name.startswith(("fid", "fd_")))
    keys = (distance, *METRICS)
    return {
        "policy": policy,
        "seed": seed,
        "trials": len(result.ranking),
        "hours": hours,
        "seconds": trained,
        "best": f"{best.architecture} {best.id}",
        "validation": next(iter(best.objective.values())),
        "test": {key: report.metrics[key] for key in keys},
        "baselines": {
            name: {key: values[key] for key in keys if key in values}
            for name, values in report.baselines.items()
        },
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    keys = [*rows[0]["test"]]
    lines = ["| | " + " | ".join([*keys, "trials", "best"]) + " |", "|---" * (len(keys) + 3) + "|"]
    for policy in POLICIES:
        found = [row for row in rows if row["policy"] == policy]
        if not found:
            continue
        cells = [_mean_and_range([row["test"][key] for row in found]) for key in keys]
        trials = _mean_and_range([row["trials"] for row in found])
        best = ", ".join(row["best"] for row in found)
        lines.append("| " + " | ".join([policy, *cells, trials, best]) + " |")
    for name, values in rows[0]["baselines"].items():
        cells = [f"{values[key]:.4g}" if key in values else "" for key in keys]
        lines.append("| " + " | ".join([name.replace("_", " "), *cells, "", ""]) + " |")
    return "\n".join(lines)


def _mean_and_range(values: Sequence[float]) -> str:
    if math.isclose(min(values), max(values)):
        return f"{values[0]:.4g}"
    return f"{statistics.mean(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def main() -> None:
    args = parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    saved = args.output / "rows.json"
    rows: list[dict[str, Any]] = json.loads(saved.read_text()) if saved.exists() else []
    for seed in args.seeds:
        hours = None
        for policy in POLICIES:
            row = next((r for r in rows if r["policy"] == policy and r["seed"] == seed), None)
            if not row:
                row = run(args, policy, seed, hours)
                rows.append(row)
                saved.write_text(json.dumps(rows, indent=2) + "\n")
            hours = row["hours"]
    print(table(rows))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--architectures", nargs="+", default=search_spaces.names())
    parser.add_argument(
        "--compute", type=int, default=125, help="of a trial: images of pix2pix as published"
    )
    parser.add_argument(
        "--longer", type=int, default=8, help="compute of a published setting in such trials"
    )
    parser.add_argument("--features", default="efficientnet-lite0")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
