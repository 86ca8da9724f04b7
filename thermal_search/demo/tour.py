"""The demo: every command, small, on images that it draws itself."""

import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from thermal_search.data.manifest import Manifest
from thermal_search.demo.scenes import draw_recording
from thermal_search.errors import SearchError
from thermal_search.evaluation.baselines import MEAN_THERMAL
from thermal_search.evaluation.comparison import compare, display_name
from thermal_search.export import export
from thermal_search.preparation.prepare import prepare
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.report.page import write_after_search
from thermal_search.storage import Location
from thermal_search.translation.command import translate
from thermal_search.tuning.ranking_text import describe
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.search import search
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings

SIZE = 64
"""Height and width of an image, in pixels: enough to recognize cars and people."""

RECORDINGS, FRAMES, STILLS, DRAWN_HEIGHT = 200, 2, 8, 104
# Streets and weather that differ teach more than further frames of the same drive.

ARCHITECTURES = ("pix2pix", "cgan")
FIXED = (
    # A CPU is slow with wide networks, and with one image at a time.
    "pix2pix.generator_width=32",
    "pix2pix.discriminator_width=32",
    "pix2pix.batch_size=8",
    "pix2pix.norm=instance",
    "pix2pix.discriminator_norm=instance",
    # A CPU shows few images: larger steps than the published ones.
    "pix2pix.generator_lr=6e-4",
    "pix2pix.dropout=0.0",
    "cgan.width=32",
    "cgan.batch_size=16",
    "cgan.l1=True",
    "cgan.l1_weight=100",
)
TRIALS = 4
IMAGES = 6000
EVALUATE_EVERY = 2000
FEATURES = "efficientnet-lite0"
GRID_COLUMNS = 4
ENLARGEMENT = 4

GOOD_L1 = 0.5
"""Fraction of the mean image's L1 that is called good."""


def tour(output: Path) -> None:
    """Draws a recording and runs every command on it, each printed as a user would type it."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SearchError(f"{output} must be empty: choose another folder with --output.")
    started = time.monotonic()
    recording, dataset = output / "recording", output / "dataset"
    searched, generated = output / "search", output / "thermal"
    rgb = recording / "images_rgb_val" / "data"

    print(f"Drawing road scenes by day and by night, RGB and thermal, in {recording}", flush=True)
    draw_recording(
        recording, recordings=RECORDINGS, frames=FRAMES, stills=STILLS, height=DRAWN_HEIGHT
    )
    _print_command(f"python process.py {recording} {dataset} --size {SIZE}")
    manifest = prepare(recording, dataset, PreparationSettings(size=SIZE))
    _print_command(
        f"thermal-search search --data {dataset} --output {searched} "
        f"--architectures {','.join(ARCHITECTURES)} --trials {TRIALS} --images {IMAGES} "
        f"--evaluate-every {EVALUATE_EVERY} --features {FEATURES} --fix {','.join(FIXED)}"
    )
    record = _search(dataset, searched)
    print(_ranking(record), flush=True)
    write_after_search(record)
    _print_command(f"thermal-search export {searched}")
    model = export(searched)
    _print_command(f"thermal-search translate {model} {rgb} {generated}")
    translated = translate(model, rgb, generated)
    grid = _draw_grid(rgb, [Path(file) for file in translated.written], output / "translated.png")
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    print(f"\nDone in {minutes}:{seconds:02}. Look at:")
    for path in (_enlarged_evaluation(record, output / "best.png"), *_images(manifest, grid)):
        print(f"  {path}")
    for line in assess(record):
        print(line)
    print("Then compare the trials, and continue with your own recording:")
    print(f"  thermal-search ui {searched}")
    print("  python process.py SOURCE DATA")
    print("  thermal-search search --data DATA --output SEARCH")


def _search(dataset: Path, output: Path) -> SearchRecord:
    settings = SearchSettings(
        data=Location.of(dataset),
        output=Location.of(output),
        architectures=ARCHITECTURES,
        trials=TRIALS,
        images=IMAGES,
        evaluate_every=EVALUATE_EVERY,
        features=FEATURES,
        fix=FIXED,
    )
    return search(plan_from_settings(settings))


def _ranking(record: SearchRecord) -> str:
    return describe(record).split("\n\n")[0]


def assess(record: SearchRecord) -> list[str]:
    """What is good of the best trial's images, and what is not."""
    best = record.best
    assert best
    metrics, baselines = best.history[-1].metrics, record.baselines
    l1, mean = metrics["l1"], baselines[MEAN_THERMAL]["l1"]
    error = (
        f"On average a pixel is {l1:.1f} of 255 gray levels off; the mean thermal image, which "
        f"looks at no RGB image, is off by {mean:.1f}"
    )
    good: list[str] = []
    bad: list[str] = []
    if l1 <= GOOD_L1 * mean:
        good.append(f"{error}, at least twice as much.")
    else:
        bad.append(f"{error}, less than twice as much: how warm things are is learned roughly.")
    for comparison in compare(metrics, baselines, record.metric):
        name = display_name(comparison.baseline)
        if comparison.better:
            good.append(f"It beats {name} in {', '.join(comparison.better)}.")
        if comparison.not_better:
            bad.append(f"It does not beat {name} in {', '.join(comparison.not_better)}.")
    bad.append(
        f"Edges are soft and small things are missing: {SIZE} pixels a side and {best.images:,} "
        "images shown are few. A GPU shows a trial hundreds of thousands, at 256 pixels."
    )
    title = f"The best generator, {best.architecture} {best.id}, on recordings it never saw:"
    return [title, *(f"  Good: {text}" for text in good), *(f"  Not good: {text}" for text in bad)]


def _images(manifest: Manifest, grid: Path) -> Sequence[Path | Location]:
    """The dataset's preview, and the translated images."""
    return [manifest.folder / "preview.png", grid]


def _enlarged_evaluation(record: SearchRecord, path: Path) -> Path:
    """The best trial's last evaluation, enlarged: RGB, real and generated thermal images."""
    best = record.best
    assert best
    folder = record.output / "trials" / best.id
    evaluations = [p for p in folder.list() if p.name.endswith(".png")]
    with evaluations[-1].open_input() as file, Image.open(file) as image:
        size = image.width * ENLARGEMENT, image.height * ENLARGEMENT
        image.resize(size, Image.Resampling.NEAREST).save(path)
    return path


def _draw_grid(rgb: Path, generated: Sequence[Path], path: Path) -> Path:
    """Each RGB image above the thermal image that was generated from it."""
    chosen = generated[:GRID_COLUMNS]
    pairs = [(next(rgb.glob(f"{thermal.stem}.*")), thermal) for thermal in chosen]
    with Image.open(pairs[0][0]) as first:
        width, height = first.size
    canvas = Image.new("RGB", (len(pairs) * width, 2 * height))
    for column, pair in enumerate(pairs):
        for row, image in enumerate(pair):
            with Image.open(image) as opened:
                canvas.paste(opened.convert("RGB"), (column * width, row * height))
    canvas.save(path)
    return path


def _print_command(command: str) -> None:
    print(f"\n$ {command}", flush=True)
