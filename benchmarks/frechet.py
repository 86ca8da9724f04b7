"""The Frechet distance from features, against pytorch-fid and torchmetrics.

    python benchmarks/frechet.py [--sizes 500/500,5000/5000] [--dead 0,0.75] [--rounds 3]

Every method starts from 2048 float32 features of the generated images and from a prepared
reference: mean and covariance for the peers, the factor for ours. Methods alternate, in a new
random order each round; times are CPU-seconds and wall-clock seconds. The error is against the
float64 nuclear norm by a singular value decomposition of the features themselves. `--dead` is the
fraction of the 2048 features that are 0 for every image, as a network's dead units are: all
covariances are then singular, however many images there are.
"""

import argparse
import os
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable
from datetime import date


def main() -> None:
    args = parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    describe(args.threads)
    for size in args.sizes.split(","):
        n, reference = (int(count) for count in size.split("/"))
        for dead in args.dead.split(","):
            measure(n, reference, float(dead), args.rounds)


def measure(n: int, m: int, dead: float, rounds: int) -> None:
    import numpy as np
    import torch
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torchmetrics.image.fid import _compute_fid

    from thermal_search.metrics import FrechetReference, Statistics

    generated, real = features(n, 1, dead), features(m, 2, dead)
    real_mean, real_covariance = real.mean(0), np.cov(real, rowvar=False)
    theirs = torch.from_numpy(real_mean), torch.from_numpy(real_covariance)
    started = time.process_time()
    reference = FrechetReference(Statistics.of(torch.from_numpy(real.astype(np.float32))))
    preparation = time.process_time() - started

    def pytorch_fid() -> float:
        mean, covariance = generated.mean(0), np.cov(generated, rowvar=False)
        return float(calculate_frechet_distance(mean, covariance, real_mean, real_covariance))

    def torchmetrics() -> float:
        rows = torch.from_numpy(generated)
        mean = rows.mean(0)
        covariance = (rows.T @ rows - n * torch.outer(mean, mean)) / (n - 1)
        return float(_compute_fid(mean, covariance, *theirs))

    def ours() -> float:
        return reference.distance(Statistics.of(torch.from_numpy(generated.astype(np.float32))))

    truth = nuclear(generated, real)
    methods: list[Callable[[], float]] = [pytorch_fid, torchmetrics, ours]
    times: dict[str, list[tuple[float, float]]] = {method.__name__: [] for method in methods}
    distances: dict[str, float] = {}
    for _ in range(rounds):
        for method in random.sample(methods, len(methods)):
            cpu, wall = time.process_time(), time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                distances[method.__name__] = method()
            times[method.__name__].append((time.process_time() - cpu, time.perf_counter() - wall))
    print(
        f"\n{n} generated, {m} real, {dead:.0%} dead (distance {truth:.6f}; "
        f"our reference took {preparation:.2f} CPU-s)"
    )
    print(
        f"{'method':14}{'CPU-s min / median / max':>28}{'wall median':>13}"
        f"{'to ours':>10}{'error':>11}"
    )
    fastest = [cpu for cpu, _ in times["ours"]]
    for name, measured in times.items():
        cpus = sorted(cpu for cpu, _ in measured)
        ratio = statistics.median(
            cpu / ours_cpu for (cpu, _), ours_cpu in zip(measured, fastest, strict=True)
        )
        wall = statistics.median(wall for _, wall in measured)
        spread = f"{cpus[0]:.3f} / {statistics.median(cpus):.3f} / {cpus[-1]:.3f}"
        error = abs(distances[name] - truth)
        print(f"{name:14}{spread:>28}{wall:>13.3f}{ratio:>9.1f}x{error:>11.1e}", flush=True)


def features(count: int, seed: int, dead: float):
    """`count` rows of features like Inception's: not negative, with a power-law spectrum.

    In float64, but exactly representable in float32.
    """
    import numpy as np

    shared = np.random.default_rng(0)
    mixing = shared.normal(size=(2048, 2048)) / np.sqrt(2048)
    scales = np.arange(1, 2049) ** -0.5
    individual = np.random.default_rng(seed).normal(size=(count, 2048)) * scales
    mixed = individual @ mixing * 3 + 0.3 + 0.05 * seed
    mixed[:, shared.permutation(2048)[: round(dead * 2048)]] = 0
    return np.maximum(mixed, 0).astype(np.float32).astype(np.float64)


def nuclear(a, b) -> float:
    """The Frechet distance of two sets of features, by their nuclear norm."""
    import numpy as np

    centered_a = (a - a.mean(0)) / np.sqrt(len(a) - 1)
    centered_b = (b - b.mean(0)) / np.sqrt(len(b) - 1)
    if min(len(a), len(b)) > 2048:  # an orthogonal factor does not change the singular values
        centered_a, centered_b = (np.linalg.qr(x, mode="r") for x in (centered_a, centered_b))
    norm = np.linalg.svd(centered_a @ centered_b.T, compute_uv=False).sum()
    traces = np.square(centered_a).sum() + np.square(centered_b).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + traces - 2 * norm)


def describe(threads: int) -> None:
    from importlib.metadata import version

    names = ("torch", "numpy", "scipy", "pytorch-fid", "torchmetrics")
    processor = platform.processor() or platform.machine()
    cpuinfo = "/proc/cpuinfo"
    if os.path.exists(cpuinfo):
        with open(cpuinfo) as file:
            models = [line.split(":")[1].strip() for line in file if "model name" in line]
        processor = f"{len(models)} x {models[0]}" if models else processor
    print(f"{processor}, {threads} thread(s), load {os.getloadavg()[0]:.1f}, {date.today()}")
    print(f"Python {platform.python_version()}, " + ", ".join(f"{n} {version(n)}" for n in names))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="200/500,500/500,1000/1000,5000/1000,5000/5000")
    parser.add_argument("--dead", default="0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
