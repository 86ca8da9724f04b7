"""Every architecture, trained briefly on real pairs: does it learn?

    python process.py ROADSCENE road --size 64
    python benchmarks/all_architectures.py road OUTPUT

For each: the Frechet distance of the untrained and of the trained generator to the real validation
images, the mean absolute error of the generated images (0 .. 255), images shown, seconds (of CPU
time, which other load does not change, or of the clock on a GPU), and a row of images. Networks are
narrower than published (SETTINGS), so that all of them train on two cores within an hour: the
results rank nothing. `--published` trains them as published, on a GPU. Beside them: the inverted
grey RGB image, a baseline that a translator with a pixel loss must beat. Results are saved in
OUTPUT/rows.json; the same command resumes a run.
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
    "pix2pix": {"generator_width": 32, "discriminator_width": 32, "batch_size": 4},
    "cyclegan": {
        "generator_width": 24,
        "discriminator_width": 32,
        "blocks": 3,
        "batch_size": 4,
    },
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
    "unit": {"generator_width": 16, "discriminator_width": 32, "scales": 2, "batch_size": 4},
}
for name in ("cgan", "dcgan", "gan", "improved_gan", "wgan", "wgan_gp"):
    # In a short run, their weights change more from step to step than on the whole.
    SETTINGS[name]["ema_half_life_images"] = 1000
PUBLISHED_EMA_HALF_LIFE = 10_000
"""Images: of the averaged generator that is evaluated with --published."""

COLUMNS = 6


def main() -> None:
    args = parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.output.mkdir(parents=True, exist_ok=True)
    saved = args.output / "rows.json"
    rows = json.loads(saved.read_text()) if saved.exists() else {}
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    # Kept in a variable: the frames in the object store live as long as it.
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
            saved.write_text(json.dumps(rows, indent=2) + "\n")
            print(name, rows[name], flush=True)
    rows = dict(sorted(rows.items()))
    draw(rows, rgb, thermal, args.output)
    print(table(rows))


def train(name: str, data: WorkerFrames, evaluator: Evaluator, device: torch.device, args) -> dict:
    folder = args.output / name
    # An interrupted run may have left a state, perhaps of other settings.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = (
        {"ema_half_life_images": PUBLISHED_EMA_HALF_LIFE} if args.published else SETTINGS[name]
    )
    plan = TrialPlan(
        id=name,
        architecture=name,
        parameters=settings | args.settings,
        folder=folder,
        images=10**9,
        evaluate_every=10**9,
        seed=args.seed,
    )
    # A first, short measurement of the speed gives the number of images that fit into the time.
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
        metrics = f"{evaluation.metrics[evaluator.metric]:.0f}, L1 {evaluation.metrics['l1']:.1f}"
        print(f"{name}: {evaluation.images:,} of {images:,} images: {metrics}", flush=True)
    seconds = clock() - started
    with trial.averaged_weights():
        generated = generate(trial.translator, data, device)
    torch.save(generated, folder / "generated.pt")
    return {
        "parameters": sum(p.numel() for p in trial.translator.generator.parameters()),
        "untrained": untrained.metrics[evaluator.metric],
        "distance": evaluations[-1].metrics[evaluator.metric],
        "l1": evaluations[-1].metrics["l1"],
        "images": evaluations[-1].images,
        "seconds": seconds,
    }


def fitting_images(trial: Trial, seconds: float) -> int:
    """How many images train in `seconds`; times steps at full resolution, with growth finished."""
    trial.plan = TrialPlan(**{**vars(trial.plan), "images": 1})
    clock = clock_of(trial.device)
    if trial.device.type == "cuda":
        for _ in range(5 * WARMUP_STEPS):  # until all CUDA graphs are captured
            trial.step()
    started, steps = clock(), 0
    while steps < 3 or clock() - started < seconds / 20:
        trial.step()
        steps += 1
        if trial.device.type == "cuda":
            torch.cuda.synchronize()
    per_image = (clock() - started) / (steps * trial.translator.config.batch_size_at(1.0))
    return max(int(seconds / per_image) // 100, 1) * 100


def clock_of(device: torch.device) -> Callable[[], float]:
    """CPU time, which other load does not change; for a GPU the clock."""
    return time.process_time if device.type == "cpu" else time.perf_counter


@torch.inference_mode()
def generate(translator: Translator, data: WorkerFrames, device: torch.device) -> torch.Tensor:
    """The thermal images of the validation split, exactly as the evaluator generates them."""
    rgb = data.validation.rgb
    translator.eval()
    generated = []
    for start in range(0, len(rgb), EVALUATION_BATCH):
        torch.manual_seed(EVALUATION_SEED + start)
        frames = rgb.take(range(start, min(start + EVALUATION_BATCH, len(rgb)))).to(device)
        random = torch.Generator().manual_seed(EVALUATION_SEED + start)
        z = translator.draw_latent(len(frames), random)
        thermal = translator.translate(to_network_range(frames), z if z is None else z.to(device))
        generated.append(to_pixels(thermal).cpu())
    return torch.cat(generated)


def features_of(extractor, images: torch.Tensor) -> Statistics:
    return Statistics.of(torch.cat([extractor(batch) for batch in images.split(16)]))


def draw(rows: dict, rgb: torch.Tensor, thermal: torch.Tensor, output: Path) -> None:
    """Writes generated.png: RGB, real thermal, then one row for each architecture of the table."""
    columns = torch.linspace(0, len(rgb) - 1, COLUMNS).long()
    strips = [rgb[columns], thermal[columns]]
    for name in rows:
        if name in ARCHITECTURES:
            strips.append(torch.load(output / name / "generated.pt", weights_only=True)[columns])
    image = torch.cat(
        [torch.cat(list(strip.expand(-1, 3, -1, -1)), dim=2) for strip in strips], dim=1
    )
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(output / "generated.png")


def table(rows: dict) -> str:
    lines = [
        "| Architecture | Generator | Untrained | Trained | L1 | Images | Seconds |",
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
        "--seconds", type=float, default=160, help="for each, about: CPU time, or on a GPU"
    )
    parser.add_argument(
        "--published", action="store_true", help="the published settings; needs a GPU"
    )
    parser.add_argument(
        "--settings",
        type=json.loads,
        default={},
        help='for all architectures, as in --settings \'{"rgb_fusion": "late"}\'',
    )
    parser.add_argument("--images", type=int, help="for each, instead of --seconds")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
