"""A folder of RGB images -> a folder of thermal ones, with an exported generator."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from rich.progress import track
from torch import Generator, Tensor

from thermal_search import export
from thermal_search.architectures.translator import Translator
from thermal_search.errors import DatasetError
from thermal_search.images import to_network_range, to_pixels
from thermal_search.storage import Location

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
BATCH = 16

KELVIN_PER_COUNT, CELSIUS_AT_ZERO = 0.01, -273.15
"""Of the temperatures we write."""


@dataclass
class Translated:
    written: list[Path] = field(default_factory=list[Path])
    left_out: list[tuple[Path, str]] = field(default_factory=list[tuple[Path, str]])


def translate_folder(
    model: Location | Path,
    source: Path,
    output: Path,
    *,
    square: bool = False,
    celsius: bool = False,
    seed: int = 0,
) -> Translated:
    """Paints the thermal image of every RGB image in `source`, as 8-bit PNG of equal stem.

    With `celsius`, as 16-bit PNG of temperatures: 0.01 kelvin a count, from absolute zero on. The
    generator must be of a 16-bit dataset.

    Images have the size of their RGB frame, or the generator's own with `square`. The same seed
    draws the same latents. Unreadable images are left out and named.
    """
    translator = export.load(model)
    temperatures = export.load_temperatures(model)
    if celsius and temperatures is None:
        raise DatasetError(
            f"{model} was trained on 8-bit thermal images, which are no temperatures: leave "
            "--celsius out, or train on a dataset prepared with --thermal 16bit."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    translator.to(device)
    if not source.is_dir():
        raise DatasetError(f"{source} must be a folder of RGB images, but is not a folder.")
    paths = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        known = ", ".join(sorted(SUFFIXES))
        raise DatasetError(f"{source} holds no images ({known}).")
    _refuse_equal_stems(paths)
    output.mkdir(parents=True, exist_ok=True)
    done = Translated()
    batches = range(0, len(paths), BATCH)
    for start in track(batches, description="Translating", transient=True):
        chunk = list(_read(paths[start : start + BATCH], translator.config.size, done))
        if not chunk:
            continue
        painted = _generate(translator, [pixels for _, _, pixels in chunk], device, seed + start)
        for (path, size, _), thermal in zip(chunk, painted, strict=True):
            target = output / f"{path.stem}.png"
            wanted = None if square else size
            if celsius and temperatures:
                done.written.append(
                    _write_celsius(temperatures.celsius(thermal[0]), wanted, target)
                )
            else:
                done.written.append(_write_grey(to_pixels(thermal[0]), wanted, target))
    if not done.written:
        raise DatasetError(f"{source}: none of its {len(paths)} images can be read.")
    return done


def _refuse_equal_stems(paths: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        if path.stem in seen:
            raise DatasetError(
                f"{seen[path.stem].name} and {path.name} would both become {path.stem}.png: "
                "rename one of them."
            )
        seen[path.stem] = path


def _read(
    paths: Sequence[Path], size: int, done: Translated
) -> Iterator[tuple[Path, tuple[int, int], Tensor]]:
    for path in paths:
        try:
            with Image.open(path) as image:
                rgb = image.convert("RGB")
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            done.left_out.append((path, str(error)))
            continue
        # The same resize as process.py's default.
        small = rgb.resize((size, size), Image.Resampling.BICUBIC)
        yield path, rgb.size, torch.from_numpy(np.array(small)).permute(2, 0, 1)


@torch.inference_mode()
def _generate(
    translator: Translator, pictures: Sequence[Tensor], device: torch.device, seed: int
) -> Tensor:
    rgb = to_network_range(torch.stack(list(pictures)).to(device))
    torch.manual_seed(seed)
    z = translator.draw_latent(len(rgb), Generator().manual_seed(seed))
    return translator.translate(rgb, None if z is None else z.to(device)).cpu()


def _write_grey(pixels: Tensor, size: tuple[int, int] | None, path: Path) -> Path:
    image = Image.fromarray(pixels.numpy())
    return _write(image.resize(size, Image.Resampling.BICUBIC) if size else image, path)


def _write_celsius(celsius: Tensor, size: tuple[int, int] | None, path: Path) -> Path:
    """Counts of 0.01 K, as FLIR's cameras write them in their high gain; the file says so too."""
    image = Image.fromarray(celsius.float().numpy())
    if size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    counts = ((np.asarray(image) - CELSIUS_AT_ZERO) / KELVIN_PER_COUNT).round().clip(0, 65535)
    told = PngInfo()
    told.add_text("kelvin_per_count", str(KELVIN_PER_COUNT))
    told.add_text("celsius_at_zero", str(CELSIUS_AT_ZERO))
    return _write(Image.fromarray(counts.astype(np.uint16)), path, told)


def _write(image: Image.Image, path: Path, told: PngInfo | None = None) -> Path:
    partial = path.with_name(f"{path.name}.partial")
    image.save(partial, format="PNG", pnginfo=told)
    partial.replace(path)
    return path
