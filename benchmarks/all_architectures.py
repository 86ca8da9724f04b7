"""Every architecture, trained briefly on real pairs: does it learn?

    python process.py ROADSCENE road --size 64
    python benchmarks/all_architectures.py road thirteen

For each: the Frechet distance of its untrained and of its trained generator to the real validation
frames, the mean absolute error of what it paints (0 .. 255), images shown, seconds (of a CPU, which
tell the same on a busy machine, or on a GPU), and a strip of images. Networks are narrower than
published (SETTINGS) so that all of them train on two cores within the hour; nothing here ranks
them. With a GPU `--published` trains them as published. Beside
them: the grey RGB image, inverted, which a translator with a pixel loss must beat.
OUTPUT/rows.json is kept; a run goes on where it was.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import ray
import torch
from PIL import Image
from torchvision.transforms.v2.functional import rgb_to_grayscale

from thermal_search.architectures import ARCHITECTURES
from thermal_search.architectures.translator import Translator
from thermal_search.data.frames import EVALUATION_BATCH, WorkerFrames
from thermal_search.data.manifest import read_manifest
from thermal_search.data.ray_dataset import load, open_worker_shard
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.evaluation.evaluator import EVALUATION_SEED, Evaluator
from thermal_search.images import to_network_range, to_pixels
from thermal_search.metrics import FrechetReference, Statistics, build_extractor
from thermal_search.training.cuda_graphs import WARMUP_STEPS
from thermal_search.training.trial import Trial, TrialPlan

SETTINGS: dict[str, dict[str, object]] = {
    "gan": {"generator_width": 32, "discriminator_width": 16, "batch_size": 16},
    "cgan": {"width": 32, "batch_size": 16},
    "dcgan": {"width": 32, "batch_size": 16},
    "improved_gan": {"width": 32, "batch_size": 16, "reference_batch_size": 16},
    "wgan": {
        "width": 32,
        "batch_size": 16,
        "warmup_n_critic": 25,
        "generator_lr": 2e-4,
        "critic_lr": 2e-4,
    },
    "wgan_gp": {"width": 16, "batch_size": 16},
    "pix2pix": {"generator_width": 32, "discriminator_width": 32, "batch_size": 2},
    "cyclegan": {"generator_width": 24, "discriminator_width": 32, "blocks": 3},
    "progressive_gan": {
        "channel_base": 1024,
        "channel_max": 64,
        "latent_size": 64,
        "batch_size": 8,
        "start_resolution": 16,
        "growth_fraction": 0.4,
        "ema_half_life_images": 200,
    },
    "biggan": {
        "width": 8,
        "batch_size": 16,
        "generator_lr": 2e-4,
        "ema_half_life_images": 1000,
    },
    "stylegan": {
        "channel_base": 1024,
        "latent_size": 64,
        "w_size": 64,
        "mapping_layers": 4,
        "batch_size": 8,
        "start_resolution": 16,
        "growth_fraction": 0.4,
        "ema_half_life_images": 200,
    },
    "thermalgan": {"width": 32, "batch_size": 4},
    "unit": {"generator_width": 16, "discriminator_width": 32, "scales": 2},
}
for name in ("cgan", "dcgan", "gan", "improved_gan", "wgan", "wgan_gp"):
    # Their last weights swing more in a short run than it teaches.
    SETTINGS[name]["ema_half_life_images"] = 1000
PUBLISHED_AVERAGE = 10_000
"""Half-life, in images, of the average that is judged with --published."""

SHOWN = 6


def main() -> None:
    args = parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.output.mkdir(parents=True, exist_ok=True)
    kept = args.output / "rows.json"
    rows = json.loads(kept.read_text()) if kept.exists() else {}
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    # Held, for its frames live only as long as what loaded them.
    loaded = load(read_manifest(args.dataset))
    data = open_worker_shard(loaded.split_among(1)[0])
    extractor = build_extractor("efficientnet-lite0", device=device)
    pairs = data.validation
    rgb, thermal = (frames.take(range(len(frames))) for frames in (pairs.rgb, pairs.thermal))
    real = features_of(extractor, thermal)
    evaluator = Evaluator(pairs, extractor, real, WorkerGroup(), device)
    grey = 255 - rgb_to_grayscale(rgb)
    rows["inverted grey"] = {
        "distance": FrechetReference(real).distance(features_of(extractor, grey)),
        "l1": (grey.float() - thermal).abs().mean().item(),
    }
    for name in args.architectures or sorted(ARCHITECTURES):
        if name not in rows:
            rows[name] = train(name, data, evaluator, device, args)
            kept.write_text(json.dumps(rows, indent=2) + "\n")
            print(name, rows[name], flush=True)
    rows = dict(sorted(rows.items()))
    draw(rows, rgb, thermal, args.output)
    print(table(rows))


def train(name: str, data: WorkerFrames, evaluator: Evaluator, device: torch.device, args) -> dict:
    folder = args.output / name
    # Of a run that was stopped, perhaps with other settings.
    shutil.rmtree(folder, ignore_errors=True)
    own = {"ema_half_life_images": PUBLISHED_AVERAGE} if args.published else SETTINGS[name]
    plan = TrialPlan(
        id=name,
        architecture=name,
        parameters=own | args.settings,
        folder=folder,
        images=10**9,
        evaluate_every=10**9,
    )
    # As many images as fit into the time, by a first look at the speed.
    trial = Trial(plan, data, evaluator, WorkerGroup(), device)
    untrained = evaluator.evaluate(trial.translator, folder / "untrained.png")
    images = args.images or fitting_images(trial, args.seconds)
    plan = TrialPlan(**{**vars(plan), "images": images, "evaluate_every": max(images // 4, 1)})
    trial = Trial(plan, data, evaluator, WorkerGroup(), device)
    clock = clock_of(device)
    started = clock()
    evaluations = []
    for evaluation in trial.evaluations():
        evaluations.append(evaluation)
        found = f"{evaluation.metrics[evaluator.metric]:.0f}, L1 {evaluation.metrics['l1']:.1f}"
        print(f"{name}: {evaluation.images:,} of {images:,} images: {found}", flush=True)
    seconds = clock() - started
    with trial.averaged_weights():
        painted = paint(trial.translator, data, device)
    torch.save(painted, folder / "painted.pt")
    return {
        "parameters": sum(p.numel() for p in trial.translator.generator.parameters()),
        "untrained": untrained.metrics[evaluator.metric],
        "distance": evaluations[-1].metrics[evaluator.metric],
        "l1": evaluations[-1].metrics["l1"],
        "images": evaluations[-1].images,
        "seconds": seconds,
    }


def fitting_images(trial: Trial, seconds: float) -> int:
    """StepRunner at full size, so that a growing network's last stage is what is timed."""
    trial.plan = TrialPlan(**{**vars(trial.plan), "images": 1})
    clock = clock_of(trial.device)
    if trial.device.type == "cuda":
        for _ in range(5 * WARMUP_STEPS):  # until what can be is recorded
            trial.step()
    started, steps = clock(), 0
    while steps < 3 or clock() - started < seconds / 20:
        trial.step()
        steps += 1
        if trial.device.type == "cuda":
            torch.cuda.synchronize()
    per_image = (clock() - started) / (steps * trial.translator.config.batch_size)
    return max(int(seconds / per_image) // 100, 1) * 100


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds of a CPU tell the same on a busy machine; a GPU's work takes none."""
    return time.process_time if device.type == "cpu" else time.perf_counter


@torch.inference_mode()
def paint(translator: Translator, data: WorkerFrames, device: torch.device) -> torch.Tensor:
    """The validation frames as the evaluator sees them."""
    rgb = data.validation.rgb
    translator.eval()
    painted = []
    for start in range(0, len(rgb), EVALUATION_BATCH):
        torch.manual_seed(EVALUATION_SEED + start)
        frames = rgb.take(range(start, min(start + EVALUATION_BATCH, len(rgb)))).to(device)
        random = torch.Generator().manual_seed(EVALUATION_SEED + start)
        z = translator.draw_latent(len(frames), random)
        thermal = translator.translate(to_network_range(frames), z if z is None else z.to(device))
        painted.append(to_pixels(thermal).cpu())
    return torch.cat(painted)


def features_of(extractor, images: torch.Tensor) -> Statistics:
    return Statistics.of(torch.cat([extractor(batch) for batch in images.split(16)]))


def draw(rows: dict, rgb: torch.Tensor, thermal: torch.Tensor, output: Path) -> None:
    """One row of images an architecture, in the table's order, under RGB and the real thermal."""
    shown = torch.linspace(0, len(rgb) - 1, SHOWN).long()
    strips = [rgb[shown], thermal[shown]]
    for name in rows:
        if name in ARCHITECTURES:
            strips.append(torch.load(output / name / "painted.pt", weights_only=True)[shown])
    image = torch.cat(
        [torch.cat(list(strip.expand(-1, 3, -1, -1)), dim=2) for strip in strips], dim=1
    )
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(output / "painted.png")


def table(rows: dict) -> str:
    lines = [
        "| System | Generator | Untrained | Trained | L1 | Images | Seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if name not in ARCHITECTURES:
            lines.append(f"| {name} | | | {row['distance']:.0f} | {row['l1']:.1f} | | |")
            continue
        lines.append(
            f"| {name} | {row['parameters'] / 1e6:.1f} M | {row['untrained']:.0f} "
            f"| {row['distance']:.0f} | {row['l1']:.1f} | {row['images']:,} "
            f"| {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="a folder written by process.py")
    parser.add_argument("output", type=Path)
    parser.add_argument("--architectures", nargs="+", choices=sorted(ARCHITECTURES))
    parser.add_argument(
        "--seconds", type=float, default=160, help="of a CPU or on a GPU, about, for each"
    )
    parser.add_argument(
        "--published", action="store_true", help="the published settings: a GPU's work"
    )
    parser.add_argument(
        "--settings",
        type=json.loads,
        default={},
        help='for all that are trained, as in --settings \'{"rgb_fusion": "late"}\'',
    )
    parser.add_argument("--images", type=int, help="the same for all instead")
    return parser.parse_args()


if __name__ == "__main__":
    main()
