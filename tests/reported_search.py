"""Records of searches as realistic as a report needs them, without training."""

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from summaries import record_of
from torchvision.utils import make_grid, save_image

from thermal_search.storage import Location
from thermal_search.training.trial_plan import TrialEvaluation, grid_name
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.slots.messages import TrialConfig, TrialReport
from thermal_search.tuning.space import ConditionalSpace
from thermal_search.tuning.summary import Status

BASELINES = {
    "real_halves": {"fid": 14.2, "kid": 0.001, "images": 250},
    "inverted_grey": {"fid": 88.0, "kid": 0.071, "l1": 58.3, "psnr": 10.4, "images": 500},
    "train": {"fid": 31.0, "kid": 0.012, "images": 500},
    "mean_thermal": {"fid": 271.0, "kid": 0.31, "l1": 24.9, "psnr": 17.9, "images": 500},
    "ridge": {"fid": 212.0, "kid": 0.24, "l1": 16.1, "psnr": 20.7, "images": 500},
}  # fmt: skip
SPEEDS = {"wgan_gp": 1.5, "cyclegan": 3.0}
"""Images per second of slow architectures; the others have 30."""


def searched(
    output: Path, architectures: tuple[str, ...], trials: int, *, seed: int = 0, **settings: Any
) -> SearchRecord:
    """A search that has ended: published points, then random ones, stopped as ASHA would."""
    images = 200_000
    plan: dict[str, Any] = {
        "trials": trials, "images": images, "evaluate_every": 20_000, "average_last": 3,
        "finalists": 0,
    }  # fmt: skip
    record = record_of(output, architectures=architectures, **plan | settings)
    space = ConditionalSpace(architectures, record.plan.fixed_parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    draw = random.Random(seed)
    record._save = lambda trial: None  # a file for each evaluation would take longer than a report
    for number in range(trials):
        published = number < len(architectures)
        config = space.published(architectures[number]) if published else space.suggest(study.ask())
        _train(record, number, config, draw)
    del record._save
    for trial in record.trials.values():
        record._save(trial)
    return record


def quality(config: TrialConfig, draw: random.Random) -> float:
    """Lower is better: the learning rate matters most, then the batch size."""
    p = config.parameters
    rates = [v for k, v in p.items() if k.endswith("lr") and isinstance(v, float)]
    rate = rates[0] if rates else 3e-4
    size = p.get("batch_size", 4)
    name = sum(map(ord, config.architecture)) % 7
    return 1 + 0.12 * name + abs(np.log10(rate / 3e-4)) + 0.05 * np.log2(size) + draw.gauss(0, 0.08)


def _train(record: SearchRecord, number: int, config: TrialConfig, draw: random.Random) -> None:
    plan = record.plan
    trial = record.add(number, config)
    level = quality(config, draw)
    if draw.random() < 0.03:
        record.end(trial.id, "failed", "out of memory: tried to allocate 2.3 GiB")
        return
    speed = SPEEDS.get(config.architecture, 30.0) * draw.uniform(0.8, 1.2)
    evaluations = plan.images // plan.evaluate_every
    rungs = {1: 2.1, 3: 1.8, 9: 1.5}
    for count in range(1, evaluations + 1):
        fid = 40 * level * (1 + 4 * count**-1.1) * draw.uniform(0.95, 1.05)
        metrics = {
            "fid": fid, "kid": fid / 900, "l1": 6 + fid / 8, "psnr": 26 - fid / 25,
            "ssim": 0.8 - fid / 800,
        }  # fmt: skip
        shown = count * plan.evaluate_every
        report(record, trial.id, shown, metrics, shown / speed)
        if count > 1 and draw.random() < 0.006:
            record.end(trial.id, "diverged", f"generator/gan is nan after {shown:,} images")
            return
        if not record.objective.has_two_objectives and number >= 3 and level > rungs.get(count, 9):
            reason = (
                f"at {shown:,} images it was not among the best of the {config.architecture} trials"
            )
            record.end(trial.id, "stopped", reason)
            return
    record.end(trial.id, "completed", "")


def report(
    record: SearchRecord, id: str, images: int, metrics: dict[str, float], seconds: float,
    **fields: Any,
) -> None:  # fmt: skip
    """One evaluation, as a slot reports it."""
    evaluation = TrialEvaluation(
        images=images, metrics=metrics, losses={}, seconds=seconds, images_per_second=1.0, grid=None
    )
    status = "running"
    record.add_evaluation(
        id, TrialReport(status=status, evaluation=evaluation, baselines=BASELINES, **fields)
    )


def retrain(record: SearchRecord, *, status: Status = "completed") -> None:
    """Trains the finalists again, and evaluates them on the test split."""
    for place, finalist in enumerate(record.finalists()):
        for seed in record.retraining_seeds():
            trial = record.add_retraining(finalist, seed)
            for evaluation in finalist.history:
                metrics = {
                    k: v * (1 + 0.02 * seed + 0.01 * place) for k, v in evaluation.metrics.items()
                }
                is_last = evaluation.images == finalist.images
                tested = {k: v * 1.1 for k, v in metrics.items()} if is_last else {}
                report(
                    record, trial.id, evaluation.images, metrics, evaluation.seconds or 0,
                    test_metrics=tested, test_baselines=BASELINES if is_last else {},
                )  # fmt: skip
            record.end(trial.id, status, "" if status == "completed" else "out of memory")


def write_grids(record: SearchRecord, scenes: torch.Tensor, thermal: torch.Tensor) -> None:
    """The image grid of every trial's last evaluation: what it generated is the real image, the
    more blurred the higher its distance.

    Args:
        scenes: uint8 [4, 3, size, size].
        thermal: the same with one channel.
    """
    for phase, trials in (("trials", record.trials), ("retrainings", record.retrainings)):
        for trial in trials.values():
            if trial.history:
                blur = max(1, round(trial.history[-1].metrics["fid"] / 25))
                folder = record.output / phase / trial.id
                write_grid(folder / grid_name(trial.images), scenes, thermal, blur)
                if phase == "retrainings":
                    write_grid(folder / "test.png", scenes.flip(0), thermal.flip(0), blur)


def write_grid(path: Location, scenes: torch.Tensor, thermal: torch.Tensor, blur: int = 1) -> None:
    """A grid as evaluations write it."""
    real = thermal.float()
    size = real.shape[-1]
    small = torch.nn.functional.adaptive_avg_pool2d(real, max(size // blur, 1))
    generated = torch.nn.functional.interpolate(small, (size, size), mode="bilinear")
    columns = (scenes.float(), real.expand(-1, 3, -1, -1), generated.expand(-1, 3, -1, -1))
    images = torch.stack(columns, dim=1).flatten(0, 1) / 255
    with path.open_output() as file:
        save_image(make_grid(images, nrow=3, padding=2, pad_value=1.0), file, format="png")
