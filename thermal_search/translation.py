"""`thermal-search translate`: a folder of RGB images to a folder of thermal images."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.progress import track
from torch import Generator, Tensor

from thermal_search import generator
from thermal_search.architectures.translator import Translator
from thermal_search.atomic_file import replacing
from thermal_search.errors import DatasetError, SettingsError
from thermal_search.image_files import SUFFIXES, Unusable, find_images, read_image
from thermal_search.images import to_network_range, to_pixels
from thermal_search.preparation.resizing import resize_square
from thermal_search.storage import Location

BATCH = 16
MAX_SEED = 2**32 - 1

OWN_TEXT = ("Software", "thermal-search translate")
"""The text in every PNG that a translation writes: only such files are replaced."""

KELVIN_PER_COUNT, CELSIUS_AT_ZERO = 0.01, -273.15
"""The scale of 16-bit output: count 0 is absolute zero."""


@dataclass
class Translation:
    """What became of the images of a folder."""

    written: list[Path] = field(default_factory=list[Path])
    """The thermal images."""

    left_out: list[tuple[Path, str]] = field(default_factory=list[tuple[Path, str]])
    """RGB images that cannot be read, each with the reason."""


def translate_folder(
    model: Location | Path,
    source: Path,
    output: Path,
    *,
    square: bool = False,
    celsius: bool = False,
    seed: int = 0,
) -> Translation:
    """Writes the thermal image of every RGB image in `source` to `output`, as an 8-bit PNG of the
    same stem.

    With `celsius`, as a 16-bit PNG of temperatures: 0.01 kelvin a count, from absolute zero. The
    generator must have been trained on 16-bit thermal images.

    Images have the size of their RGB image, or the generator's own with `square`. The same seed
    draws the same latents. Unreadable images are left out and listed in the result.
    """
    if not 0 <= seed <= MAX_SEED:
        raise SettingsError(f"--seed must be from 0 to {MAX_SEED}, but is {seed:.20g}.")
    translator = generator.load(model)
    temperatures = generator.load_config(model).temperatures
    if celsius and temperatures is None:
        raise DatasetError(
            f"{model} was trained on 8-bit thermal images, which hold no temperatures: leave "
            "--celsius out, or train on a dataset prepared with --thermal 16bit."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    translator.to(device)
    if not source.is_dir():
        raise DatasetError(f"{source} must be a folder of RGB images, but is not a folder.")
    paths, ignored = find_images(source)
    if not paths:
        suffixes = ", ".join(sorted(SUFFIXES))
        found = f" ({ignored[0][0].name}: {ignored[0][1]})" if ignored else ""
        raise DatasetError(f"{source} must hold RGB images ({suffixes}), but holds none{found}.")
    _refuse_equal_stems(paths)
    _refuse_foreign_files(source, output, [f"{path.stem}.png" for path in paths])
    output.mkdir(parents=True, exist_ok=True)
    result = Translation(left_out=ignored)
    batches = range(0, len(paths), BATCH)
    for start in track(batches, description="Translating", transient=True):
        chunk = list(_read(paths[start : start + BATCH], translator.config.size, result))
        if not chunk:
            continue
        generated = _generate(translator, [rgb for _, _, rgb in chunk], device, seed + start)
        for (path, size, _), thermal in zip(chunk, generated, strict=True):
            target = output / f"{path.stem}.png"
            resized_to = None if square else size
            if celsius and temperatures:
                _write_celsius(temperatures.celsius(thermal[0]), resized_to, target)
            else:
                _write_grey(to_pixels(thermal[0]), resized_to, target)
            result.written.append(target)
    if not result.written:
        raise DatasetError(
            f"{source} must hold readable images, but none of its {len(paths)} can be read: "
            "repair or replace them."
        )
    return result


def _refuse_equal_stems(paths: Sequence[Path]) -> None:
    by_stem: dict[str, Path] = {}
    for path in paths:
        if path.stem in by_stem:
            raise DatasetError(
                f"{by_stem[path.stem].name} and {path.name} would both become {path.stem}.png: "
                "rename one of them."
            )
        by_stem[path.stem] = path


def _refuse_foreign_files(source: Path, output: Path, names: Sequence[str]) -> None:
    """DatasetError if the RGB images or anybody else's files would be replaced."""
    if output.exists() and output.samefile(source):
        raise DatasetError(f"{output} must not be the folder of the RGB images: choose another.")
    for name in names:
        if os.path.lexists(output / name) and not _is_own(output / name):
            raise DatasetError(
                f"{output / name} exists and was not written by translate: choose another folder, "
                "or move the file elsewhere."
            )


def _is_own(path: Path) -> bool:
    """Whether a file is a PNG that an earlier translation wrote."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.info.get(OWN_TEXT[0]) == OWN_TEXT[1]
    except Exception:  # any, from a file of somebody else
        return False


def _read(
    paths: Sequence[Path], size: int, result: Translation
) -> Iterator[tuple[Path, tuple[int, int], Tensor]]:
    """Each readable image with its own size (width, height) and its pixels, resized to the
    generator's size: [3, size, size]. The others are added to `result.left_out`."""
    for path in paths:
        try:
            rgb = read_image(path, "RGB")
        except Unusable as error:
            result.left_out.append((path, str(error)))
            continue
        small = resize_square(rgb, size, "bicubic")  # process.py's default
        yield path, (rgb.shape[1], rgb.shape[0]), torch.from_numpy(small).permute(2, 0, 1)


@torch.inference_mode()
def _generate(
    translator: Translator, images: Sequence[Tensor], device: torch.device, seed: int
) -> Tensor:
    rgb = to_network_range(torch.stack(list(images)).to(device))
    torch.manual_seed(seed)
    z = translator.draw_latent(len(rgb), Generator().manual_seed(seed))
    return translator.translate(rgb, None if z is None else z.to(device)).cpu()


def _write_grey(pixels: Tensor, size: tuple[int, int] | None, path: Path) -> None:
    image = Image.fromarray(pixels.numpy())
    _write(image.resize(size, Image.Resampling.BICUBIC) if size else image, path)


def _write_celsius(celsius: Tensor, size: tuple[int, int] | None, path: Path) -> None:
    """Writes counts of 0.01 K, as FLIR's cameras do in high gain, with the scale as PNG text."""
    image = Image.fromarray(celsius.float().numpy())
    if size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    counts = ((np.asarray(image) - CELSIUS_AT_ZERO) / KELVIN_PER_COUNT).round().clip(0, 65535)
    scale = PngInfo()
    scale.add_text("kelvin_per_count", str(KELVIN_PER_COUNT))
    scale.add_text("celsius_at_zero", str(CELSIUS_AT_ZERO))
    _write(Image.fromarray(counts.astype(np.uint16)), path, scale)


def _write(image: Image.Image, path: Path, text: PngInfo | None = None) -> None:
    """Writes a PNG so that a reader sees all of it or none."""
    text = text or PngInfo()
    text.add_text(*OWN_TEXT)
    with replacing(path) as file:
        image.save(file, format="PNG", pnginfo=text)
