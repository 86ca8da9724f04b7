"""Turn a recording of RGB and thermal pictures into a dataset to search on.

    python process.py SOURCE OUTPUT [--size 256]

SOURCE is a FLIR dataset as unpacked (ADAS v2, v1, v1.3, Europe, aligned), another public set
(KAIST, LLVIP, M3FD, MSRS, RoadScene), pix2pix's or CycleGAN's folders, or two folders of equal
names (rgb/ and thermal/): docs/layouts.md shows each. OUTPUT becomes Parquet shards of raw pixels
with a manifest and a preview. A stopped run goes on where it was.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from thermal_search.dataset.layouts import LAYOUTS
from thermal_search.dataset.manifest import Manifest
from thermal_search.dataset.preparation import prepare
from thermal_search.dataset.resizing import FILTERS
from thermal_search.dataset.splits import parse_shares
from thermal_search.errors import ThermalSearchError

NAMED_FILES = 5


def main() -> None:
    args = parse_args()
    try:
        manifest = prepare(
            args.source,
            args.output,
            size=args.size,
            layout=args.layout,
            filter=args.filter,
            splits=parse_shares(args.splits),
            seed=args.seed,
            every=args.every,
            fast=args.fast,
            max_bad=args.max_bad,
            workers=args.workers,
            address=args.address,
        )
    except ThermalSearchError as error:
        sys.exit(f"process.py: {error}")
    except KeyboardInterrupt:
        sys.exit("process.py: interrupted; the same command goes on where it was.")
    print(describe(manifest))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="the recording's folder")
    parser.add_argument("output", type=Path, help="the dataset's folder, which must not exist yet")
    parser.add_argument("--size", type=int, default=256, help="pixels; default: %(default)s")
    parser.add_argument("--layout", choices=["auto", *LAYOUTS], default="auto")
    parser.add_argument(
        "--splits",
        default="70,15,15",
        metavar="TRAIN,VAL,TEST",
        help="shares of the recordings that their authors did not split; default: %(default)s",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the splits; default: %(default)s")
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="K",
        help="take every K-th frame of a recording: neighbours are nearly the same",
    )
    parser.add_argument("--filter", choices=list(FILTERS), default="bicubic")
    parser.add_argument(
        "--max-bad", type=float, default=0.05, help="share of unusable files; default: %(default)s"
    )
    parser.add_argument("--workers", type=int, help="processes; default: one a core")
    parser.add_argument(
        "--address", help="use all cores of this Ray cluster, whose machines share the disk"
    )
    parser.add_argument(
        "--fast", action="store_true", help="scale large JPEGs while decoding: near, not equal"
    )
    return parser.parse_args()


def describe(manifest: Manifest) -> str:
    """What is in the dataset, what is not, and what comes next."""
    lines = [f"{manifest.folder}: {manifest.size} x {manifest.size} pixels, {manifest.layout}"]
    for kind, splits in manifest.counts().items():
        if any(splits.values()):
            told = ", ".join(f"{count} {name}" for name, count in splits.items())
            lines.append(f"  {kind:8} {told}")
    if manifest.left_out:
        lines.append(f"  left out {len(manifest.left_out)}:")
        for reason, count in Counter(item["reason"] for item in manifest.left_out).most_common():
            files = [item["file"] for item in manifest.left_out if item["reason"] == reason]
            named = ", ".join(files[:NAMED_FILES]) + (", ..." if count > NAMED_FILES else "")
            lines.append(f"    {count} {reason}: {named}")
    lines += [f"  note: {note}" for note in manifest.notes]
    lines.append(f"Look at {manifest.folder / 'preview.png'}, then search:")
    lines.append(f"  thermal-search search --data {manifest.folder} --output SEARCH")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
