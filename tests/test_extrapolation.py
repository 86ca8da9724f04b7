"""The Frechet distance at infinitely many images."""

import numpy as np
import torch

from thermal_search.metrics import FrechetReference, Statistics, extrapolate_to_infinity


def gaussian(count, seed, shift=0.0, scale=1.0):
    random = np.random.default_rng(seed)
    return Statistics.of(torch.from_numpy(random.normal(shift, scale, (count, 8))))


def test_extrapolated_distance_is_nearer_to_that_of_the_distributions():
    reference = FrechetReference(gaussian(20_000, 0))
    samples = [gaussian(100, seed, 0.5, 1.2) for seed in range(1, 101)]
    truth = 8 * (0.5**2 + 0.2**2)
    measured = np.mean([reference.distance(sample) for sample in samples])
    extrapolated = np.mean([extrapolate_to_infinity(reference, sample) for sample in samples])

    assert abs(extrapolated - truth) < (measured - truth) / 3


def test_too_few_images_are_not_extrapolated():
    reference = FrechetReference(gaussian(100, 0))

    assert extrapolate_to_infinity(reference, gaussian(19, 1)) is None
    assert extrapolate_to_infinity(reference, gaussian(20, 1)) is not None
