"""Turn a recording of RGB and thermal images into a dataset to search on.

    python process.py SOURCE OUTPUT [--size 256]
    python process.py --check OUTPUT

SOURCE is a FLIR dataset as unpacked (ADAS v2, v1, v1.3, Europe, aligned), another public set
(KAIST, LLVIP, M3FD, MSRS, RoadScene), pix2pix's or CycleGAN's folders, or two folders of equal
names (rgb/ and thermal/): docs/layouts.md shows each. OUTPUT becomes Parquet shards of raw pixels
with a manifest and a preview. A stopped run goes on where it was.
"""

import argparse
import sys
from collections import Counter
from functools import partial
from pathlib import Path

from thermal_search.data.manifest import Manifest, read_manifest, verify
from thermal_search.errors import ThermalSearchError
from thermal_search.preparation.alignment.geometry import FLIR_V2_DEGREES
from thermal_search.preparation.alignment.modes import ALIGN_MODES
from thermal_search.preparation.layouts import LAYOUTS
from thermal_search.preparation.prepare import prepare
from thermal_search.preparation.radiometry import Scale
from thermal_search.preparation.resizing import FILTERS
from thermal_search.preparation.splits import parse_shares
from thermal_search.preparation.staging import stage
from thermal_search.storage import Location

NAMED_FILES = 5
NAMED_RECORDINGS = 10


def main() -> None:
    args = parse_args()
    try:
        if args.check:
            manifest = read_manifest(args.check)
            verify(manifest)
            print(f"{describe(manifest, str(args.check))}\nEvery shard is as it was written.")
            return
        work = partial(
            prepare,
            size=args.size,
            align=args.align,
            fields_of_view=args.fields_of_view,
            preview=args.preview,
            thermal=args.thermal,
            scale=Scale(
                args.celsius and tuple(args.celsius), args.kelvin_per_count, args.celsius_at_zero
            ),
            layout=args.layout,
            filter=args.filter,
            splits=parse_shares(args.splits),
            seed=args.seed,
            every=args.every,
            official_only=args.official_only,
            fast=args.fast,
            max_bad=args.max_bad,
            workers=args.workers,
            address=args.address,
        )
        manifest = stage(args.source, args.output, args.scratch, work)
    except ThermalSearchError as error:
        sys.exit(f"process.py: {error}")
    except KeyboardInterrupt:
        sys.exit("process.py: interrupted; the same command goes on where it was.")
    print(describe(manifest, str(args.output)))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=place, nargs="?", help="the recording's folder, or s3://bucket/folder"
    )
    parser.add_argument(
        "output", type=place, nargs="?", help="the dataset's folder, which must not exist yet"
    )
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
        help="take every K-th frame of a recording: neighbors are nearly the same",
    )
    parser.add_argument(
        "--official-only",
        action="store_true",
        help="recover no pairs (FLIR ADAS v2's stills): frames that nobody paired stay alone",
    )
    parser.add_argument(
        "--align",
        default="none",
        help=f"{ALIGN_MODES}; default: %(default)s, where they are aligned",
    )
    parser.add_argument(
        "--fields-of-view",
        type=_two_numbers,
        default=FLIR_V2_DEGREES,
        metavar="T,RGB",
        help="horizontal, in degrees, for --align center; default: FLIR ADAS v2's 45,52.8",
    )
    parser.add_argument(
        "--preview", action="store_true", help="measure the alignment and draw OUTPUT/alignment.png"
    )
    parser.add_argument(
        "--thermal",
        choices=["8bit", "16bit"],
        default="8bit",
        help="grey levels, or the radiometric images' counts; default: %(default)s",
    )
    parser.add_argument(
        "--celsius",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="the range a 16-bit dataset spans; default: 99.8 %% of the training pixels",
    )
    parser.add_argument(
        "--kelvin-per-count",
        type=float,
        default=0.04,
        help="of 16-bit counts; default: %(default)s",
    )
    parser.add_argument(
        "--celsius-at-zero", type=float, default=-273.15, help="of count 0; default: %(default)s"
    )
    parser.add_argument("--filter", choices=list(FILTERS), default="bicubic")
    parser.add_argument(
        "--max-bad", type=float, default=0.05, help="share of unusable files; default: %(default)s"
    )
    parser.add_argument(
        "--scratch", type=Path, help="a disk's folder for what comes from or goes to a bucket"
    )
    parser.add_argument("--workers", type=int, help="processes; default: one a core")
    parser.add_argument(
        "--address", help="use all cores of this Ray cluster, whose machines share the disk"
    )
    parser.add_argument(
        "--fast", action="store_true", help="scale large JPEGs while decoding: near, not equal"
    )
    parser.add_argument(
        "--check", type=place, metavar="DATASET", help="compare a dataset with its manifest instead"
    )
    args = parser.parse_args()
    if not args.check and not (args.source and args.output):
        parser.error("SOURCE and OUTPUT are needed, or --check DATASET.")
    return args


def place(text: str) -> Location:
    try:
        return Location.of(text)
    except ThermalSearchError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _two_numbers(text: str) -> tuple[float, float]:
    first, second = text.split(",")
    return float(first), float(second)


def describe(manifest: Manifest, folder: str) -> str:
    """What is in the dataset, what is not, and what comes next."""
    lines = [f"{folder}: {manifest.size} x {manifest.size} pixels, {manifest.layout}"]
    for kind, splits in manifest.counts().items():
        if any(splits.values()):
            told = ", ".join(f"{count} {name}" for name, count in splits.items())
            lines.append(f"  {kind:8} {told}")
    if temperatures := manifest.temperatures:
        lines.append(
            f"  thermal  from {temperatures.low:g} to {temperatures.high:g} degrees Celsius"
        )
    lines += describe_alignment(manifest)
    if manifest.left_out:
        lines.append(f"  left out {len(manifest.left_out)}:")
        for reason, count in Counter(item["reason"] for item in manifest.left_out).most_common():
            files = [item["file"] for item in manifest.left_out if item["reason"] == reason]
            named = ", ".join(files[:NAMED_FILES]) + (", ..." if count > NAMED_FILES else "")
            lines.append(f"    {count} {reason}: {named}")
    if dropped := manifest.dropped_pairs:
        lines.append(
            f"  parted {len(dropped)} recovered pairs, whose frames stay without a partner:"
        )
        for reason, count in Counter(item["reason"] for item in dropped).most_common():
            lines.append(f"    {count} {reason}")
    lines += [f"  note: {note}" for note in manifest.notes]
    lines.append(f"Look at {folder}/preview.png, then search:")
    lines.append(f"  thermal-search search --data {folder} --output SEARCH")
    return "\n".join(lines)


def describe_alignment(manifest: Manifest) -> list[str]:
    """How far thermal lies beside RGB, by recording, the worst first."""
    found = dict(manifest.alignment["recordings"])
    measured = {n: r for n, r in found.items() if r["remaining_error_px"] is not None}
    lines: list[str] = []
    if measured:
        lines.append("  thermal beside RGB, in pixels (and single frames around that):")
    worst = sorted(measured.items(), key=lambda item: -item[1]["remaining_error_px"])
    for name, told in worst[:NAMED_RECORDINGS]:
        lines.append(f"    {told['remaining_error_px']:6.2f} ({told['spread_px']:.2f}) {name}")
    if len(worst) > NAMED_RECORDINGS:
        lines.append(f"    ... and {len(worst) - NAMED_RECORDINGS} more, in manifest.json")
    if unmeasured := len(found) - len(measured):
        lines.append(f"    not measured, for want of common edges: {unmeasured} recordings")
    return lines


if __name__ == "__main__":
    main()
