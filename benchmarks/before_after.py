"""Two versions of the code beside each other, by what `all_architectures.py` found with each.

    python benchmarks/before_after.py IMAGE --before OUTPUT OUTPUT ... --after OUTPUT OUTPUT ...

Each OUTPUT is one seed's; the same dataset, seeds and seconds in the same order. Prints distance
and L1 of every seed before and after. IMAGE shows the first seed's: RGB, real thermal, then two
rows for each architecture, before and after.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

COLUMNS = 6

Rows = dict[str, dict[str, Any]]


def table(before: Sequence[Rows], after: Sequence[Rows]) -> str:
    lines = [
        "| Architecture | Untrained | Before | After | Images before | after |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(before[0]):
        old, new = ([rows[name] for rows in version if name in rows] for version in (before, after))
        cells = [_results(old), _results(new)]
        untrained = [f"{row['untrained']:.0f}" for row in new if "untrained" in row]
        images = [_images(version) for version in (old, new)]
        lines.append(f"| {name} | " + " | ".join([", ".join(untrained), *cells, *images]) + " |")
    return "\n".join(lines)


def _results(rows: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{row['distance']:.0f} / {row['l1']:.1f}" for row in rows)


def _images(rows: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{row['images']:,}" for row in rows if "images" in row)


def draw(image: Path, before: Path, after: Path, names: Sequence[str]) -> None:
    """The first two rows of `after`'s sheet (RGB and real), then two rows for each architecture."""
    with Image.open(after / "generated.png") as sheet:
        size = sheet.width // COLUMNS
        rows = [sheet.crop((0, 0, sheet.width, 2 * size)).convert("RGB")]
    for name in names:
        for output in (before, after):
            generated: torch.Tensor = torch.load(output / name / "generated.pt", weights_only=True)
            columns = torch.linspace(0, len(generated) - 1, COLUMNS).long()
            strip = torch.cat(list(generated[columns, 0]), dim=1)
            rows.append(Image.fromarray(strip.numpy()).convert("RGB"))
    canvas = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)))
    top = 0
    for row in rows:
        canvas.paste(row, (0, top))
        top += row.height
    canvas.save(image)


def main() -> None:
    args = parse_args()
    before, after = (
        [json.loads((output / "rows.json").read_text()) for output in outputs]
        for outputs in (args.before, args.after)
    )
    print(table(before, after))
    names = [name for name in sorted(before[0]) if (args.before[0] / name).is_dir()]
    draw(args.image, args.before[0], args.after[0], names)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", type=Path, help="a PNG file to write")
    parser.add_argument("--before", type=Path, nargs="+", required=True, metavar="OUTPUT")
    parser.add_argument("--after", type=Path, nargs="+", required=True, metavar="OUTPUT")
    return parser.parse_args()


if __name__ == "__main__":
    main()
