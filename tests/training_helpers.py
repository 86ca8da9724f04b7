"""Tiny trials, their data and their evaluator, for tests of training and evaluation."""

import numpy as np
import torch
from tiny_settings import SIZE, TINY

from thermal_search.architectures import build
from thermal_search.data.frames import EvaluationPairs, Frames, WorkerFrames
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.evaluation.evaluator import Evaluator
from thermal_search.metrics import Extractor, Statistics
from thermal_search.pair_alignment import PairAlignment
from thermal_search.storage import Location
from thermal_search.training.trial import Trial, TrialPlan

CPU = torch.device("cpu")
METRIC, KID = "fd_efficientnet_lite0", "kid_efficientnet_lite0"
"""The keys of `evaluator_of`'s distances."""


class Pooled(torch.nn.Module):
    """A feature extractor small enough for tests: pixels averaged to 4 x 4, one channel."""

    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images[:, :1], 4).flatten(1)


def random_frames(count, channels, seed):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, SIZE, SIZE, channels), np.uint8).transpose(0, 3, 1, 2)
    return Frames([pixels[:3], pixels[3:]], size=SIZE, channels=channels)


def data_of(rank=0, workers=1, validation_shards=((0, 16), (16, 40))):
    """A worker's shard of 24 training and 40 validation pairs.

    `validation_shards`: of two workers, each a multiple of 16 at its start.
    """

    def copied(frames, start, stop):
        channels, size, _ = frames.shape
        pixels = frames.take(range(start, stop)).numpy()
        return Frames([pixels], size=size, channels=channels)

    training = random_frames(24, 3, 1), random_frames(24, 1, 2)
    validation = random_frames(40, 3, 3), random_frames(40, 1, 4)
    train_shard = (0, 24) if workers == 1 else (12 * rank, 12 * rank + 12)
    shard = (0, 40) if workers == 1 else validation_shards[rank]
    train_pairs = tuple(copied(frames, *train_shard) for frames in training)
    evaluated = tuple(copied(frames, *shard) for frames in validation)
    no_test = EvaluationPairs(random_frames(0, 3, 0), random_frames(0, 1, 0), 0)
    validation_pairs = EvaluationPairs(*evaluated, shard[0])
    alignment = PairAlignment(method="none", layout="random")
    return WorkerFrames(SIZE, train_pairs, train_pairs, validation_pairs, no_test, alignment)


def evaluator_of(data, group):
    torch.manual_seed(0)
    classifier = torch.nn.Linear(16, 5)
    extractor = Extractor("efficientnet-lite0", 16, Pooled(), lambda x: x / 255, classifier)
    thermal = data_of().validation.thermal
    statistics = Statistics.of(extractor(thermal.take(range(40))))
    return Evaluator(data.validation, extractor, statistics, group, CPU)


def trial_of(plan, group=None, rank=0, workers=1):
    group = group or WorkerGroup()
    data = data_of(rank, workers)
    return Trial(plan, data, evaluator_of(data, group), group, CPU)


def plan_of(folder, architecture="pix2pix", **changes):
    Location.of(folder).make_folder()  # as the record of a search does
    parameters = TINY[architecture] | changes.pop("parameters", {})
    settings = {"images": 24, "evaluate_every": 8, "precision": "fp32", "seed": 3} | changes
    return TrialPlan(
        id="t", architecture=architecture, parameters=parameters, folder=folder, **settings
    )


def untrained_translator():
    torch.manual_seed(0)
    return build("pix2pix", SIZE, TINY["pix2pix"])
