"""The demo: every command, small, on images that it draws itself."""

import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from thermal_search.data.manifest import Manifest
from thermal_search.demo.scenes import draw_recording
from thermal_search.errors import SearchError
from thermal_search.export import export
from thermal_search.preparation.prepare import prepare
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.storage import Location
from thermal_search.translation import translate_folder
from thermal_search.tuning.plan import plan_from_settings
from thermal_search.tuning.ranking_text import describe
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.search import search
from thermal_search.tuning.settings import SearchSettings

SIZE = 32
"""Height and width of an image, in pixels."""

ARCHITECTURES = ("pix2pix", "cyclegan", "wgan")
TRIALS = 7
IMAGES = 192
EVALUATE_EVERY = 64
FEATURES = "efficientnet-lite0"
GRID_COLUMNS = 4


def tour(output: Path) -> None:
    """Draws a recording and runs every command on it, each printed as a user would type it."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SearchError(f"{output} must be empty: choose another folder with --output.")
    started = time.monotonic()
    recording, dataset = output / "recording", output / "dataset"
    searched, generated = output / "search", output / "thermal"
    rgb = recording / "images_rgb_val" / "data"

    print(f"Drawing road scenes by day and by night, RGB and thermal, in {recording}", flush=True)
    draw_recording(recording)
    _print_command(f"python process.py {recording} {dataset} --size {SIZE}")
    manifest = prepare(recording, dataset, PreparationSettings(size=SIZE))
    _print_command(
        f"thermal-search search --data {dataset} --output {searched} "
        f"--architectures {','.join(ARCHITECTURES)} --trials {TRIALS} --images {IMAGES} "
        f"--evaluate-every {EVALUATE_EVERY} --features {FEATURES}"
    )
    record = _search(dataset, searched)
    print(_ranking(record), flush=True)
    _print_command(f"thermal-search export {searched}")
    model = export(searched)
    _print_command(f"thermal-search translate {model} {rgb} {generated}")
    translated = translate_folder(model, rgb, generated)
    grid = _draw_grid(rgb, translated.written, output / "translated.png")
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    print(
        f"\nDone in {minutes}:{seconds:02}, on {manifest.size} x {manifest.size} pixels and a few"
    )
    print("hundred images a trial: enough to see how it works, too little for good thermal images.")
    print("Look at:")
    for path in _images(manifest, record, grid):
        print(f"  {path}")
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
    )
    return search(plan_from_settings(settings))


def _ranking(record: SearchRecord) -> str:
    return describe(record).split("\n\n")[0]


def _images(manifest: Manifest, record: SearchRecord, grid: Path) -> Sequence[Path | Location]:
    """The dataset's preview, the best trial's last evaluation, and the translated images."""
    best = record.best
    assert best
    evaluations = [
        p for p in (record.output / "trials" / best.id).list() if p.name.endswith(".png")
    ]
    return [manifest.folder / "preview.png", evaluations[-1], grid]


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
