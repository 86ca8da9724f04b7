"""`thermal-search translate` with one worker against a plain loop in PyTorch.

    python benchmarks/translate.py --architecture pix2pix --size 256 --images 64 --rounds 5

Both translate the same JPEGs with the same generator, in batches of as many images, and write PNGs
of the images' size. The plain loop is what one would write oneself: Pillow reads and resizes, the
network generates, Pillow resizes and writes, one after the other. Rounds alternate, so that other
load on the machine affects both; the result is the median of the rounds' ratios.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from thermal_search import generator
from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.generator import GeneratorConfig
from thermal_search.pair_alignment import PairAlignment
from thermal_search.storage import Location
from thermal_search.translation.command import translate
from thermal_search.translation.settings import TranslationSettings
from thermal_search.translation.worker import BATCH


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(
        f"torch {torch.__version__}, {hardware}, {torch.get_num_threads()} threads; "
        f"{args.architecture} at {args.size} px; {args.images} JPEGs of "
        f"{args.width} x {args.height}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save_model(folder / "model", args.architecture, args.size)
        draw_photos(folder / "photos", args)
        ratios: list[float] = []
        for number in range(args.rounds + 1):
            ours = seconds(lambda n=number: translate_ours(model, folder, n))
            plain = seconds(lambda n=number: translate_plainly(model, folder, n, device))
            rates = f"{args.images / ours:.1f} images/s, plain loop {args.images / plain:.1f}"
            if number:  # the first round warms up
                ratios.append(plain / ours)
                print(f"round {number}: {rates}, ratio {ratios[-1]:.2f}")
        compare_pixels(folder)
    print(
        f"{statistics.median(ratios):.2f} times as fast as the plain loop "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", choices=sorted(ARCHITECTURES), default="pix2pix")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0: its default")
    return parser.parse_args()


def save_model(folder: Path, architecture: str, size: int) -> Path:
    """An untrained generator of the paper's size. Dropout is off, so that both sides agree."""
    parameters = {"test_dropout": False} if architecture == "pix2pix" else {}
    torch.manual_seed(0)
    config = GeneratorConfig(
        architecture=architecture,
        parameters=parameters,
        size=size,
        temperatures=None,
        alignment=PairAlignment(method="none", layout="flir-v2"),
        images=0,
        metrics={},
        protocol={},
        trial="untrained",
        objective={},
        test_metrics={},
    )
    weights = build(architecture, size, parameters).generator.state_dict()
    generator.save(Location.of(folder), config, weights)
    return folder


def draw_photos(folder: Path, args: argparse.Namespace) -> None:
    """Smooth random images, whose JPEGs are as large as photographs'."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(args.images):
        coarse = random.integers(0, 256, (args.height // 16, args.width // 16, 3), np.uint8)
        image = Image.fromarray(coarse).resize((args.width, args.height), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:05}.jpg", quality=90)


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def translate_ours(model: Path, folder: Path, number: int) -> None:
    # Other output each time: nothing is kept from the round before.
    translate(model, folder / "photos", folder / f"ours-{number}", TranslationSettings(workers=1))


@torch.inference_mode()
def translate_plainly(model: Path, folder: Path, number: int, device: torch.device) -> None:
    output = folder / f"plain-{number}"
    output.mkdir()
    translator = generator.load(model).to(device)
    size = translator.config.size
    paths = sorted((folder / "photos").iterdir())
    for start in range(0, len(paths), BATCH):
        chunk, images, sizes = paths[start : start + BATCH], [], []
        for path in chunk:
            image = Image.open(path).convert("RGB")
            sizes.append(image.size)
            images.append(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)))
        rgb = torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        z = translator.draw_latent(1, torch.Generator().manual_seed(0))
        z = None if z is None else z.expand(len(rgb), -1)
        thermal = translator.translate(rgb, z)
        pixels = ((thermal[:, 0] + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
        for path, shape, generated in zip(chunk, sizes, pixels, strict=True):
            image = Image.fromarray(generated).resize(shape, Image.Resampling.BICUBIC)
            image.save(output / f"{path.stem}.png")


def compare_pixels(folder: Path) -> None:
    """Fails if the two have not written the same images."""
    for path in sorted((folder / "ours-0").iterdir()):
        files = path, folder / "plain-0" / path.name
        ours, plain = (np.asarray(Image.open(file), int) for file in files)
        difference = np.abs(ours - plain).mean()
        assert difference < 2, f"{path.name} differs by {difference:.1f} gray levels"


if __name__ == "__main__":
    main()
