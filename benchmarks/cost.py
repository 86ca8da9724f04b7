"""The training cost of one image for each architecture, in operations, relative to pix2pix.

    python benchmarks/cost.py --size 256

Counts the multiplications and additions of one whole step at the published setting: every turn of
every player with its backward passes, growth finished. The counts are exact and the same on every
machine; training_step.py measures time.
"""

import argparse

from thermal_search.architectures import ARCHITECTURES
from thermal_search.training.operations import cost_of

BATCH = 2
OVERRIDES: dict[str, dict[str, object]] = {
    # Computed once for a batch of 256, the orthogonal penalty costs almost nothing an image.
    "biggan": {"microbatch_size": BATCH, "orthogonal_regularization": False},
    # One reference batch serves all images of a batch: 1 for 2 here, 32 for 100 as published.
    "improved_gan": {"reference_batch_size": 1},
    "wgan": {"warmup_n_critic": 0},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    size = parser.parse_args().size
    costs: dict[str, float] = {}
    for name in sorted(ARCHITECTURES):
        costs[name] = operations(name, size)
        print(f"{name}: {costs[name] / 1e12:.2f} T operations per image", flush=True)
    print("\n| Architecture | T operations per image | pix2pix = 1 |\n|---|---|---|")
    for name, cost in sorted(costs.items(), key=lambda item: item[1]):
        print(f"| {name} | {cost / 1e12:.2f} | {cost / costs['pix2pix']:.1f} |")


def operations(name: str, size: int) -> float:
    """Of one training step, per image."""
    setting = {"batch_size": BATCH} | OVERRIDES.get(name, {})
    return cost_of(name, size, setting).at_full_size


if __name__ == "__main__":
    main()
