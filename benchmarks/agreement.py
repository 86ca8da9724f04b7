"""How well edge agreement separates true pairs from wrong ones, aligned and misaligned.

    python benchmarks/agreement.py ROADSCENE

Each RGB image is scored with its own thermal image, and with the thermal images of the next, the
second and the seventeenth file, at 256 pixels, like in process.py. Shifted: thermal shows the scene
shifted by that many of 256 pixels. Scaled: RGB shows that fraction of the view of thermal; above 1,
thermal shows the inverse fraction of the view of RGB. The threshold that keeps most true pairs and
passes fewest wrong ones is chosen on every other pair, and reported on the rest.
"""

import sys
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from thermal_search.preparation.edge_agreement import edge_agreement
from thermal_search.preparation.verification import MIN_AGREEMENT

SIZE = 256
WHOLE = (0.0, 0.0, 1.0, 1.0)


def main() -> None:
    cv2.setNumThreads(1)
    folder = Path(sys.argv[1])
    stems = sorted(path.name for path in (folder / "visible").iterdir())
    images = [
        (Image.open(folder / "visible" / n), Image.open(folder / "infrared" / n)) for n in stems
    ]
    print("| Pairs | True | Wrong | AUC | Threshold | kept | passed | At 0.15: kept | passed |")
    print("|---|---|---|---|---|---|---|---|---|")
    milliseconds = 0.0
    for name, rgb_box, thermal_box in misalignments():
        rgb = [
            np.asarray(_cropped(image.convert("RGB"), rgb_box)).transpose(2, 0, 1)
            for image, _ in images
        ]
        rgb = [np.ascontiguousarray(planes) for planes in rgb]
        thermal = [np.asarray(_cropped(image.convert("L"), thermal_box)) for _, image in images]
        start = time.process_time()
        true = np.array([edge_agreement(a, b) for a, b in zip(rgb, thermal, strict=True)])
        milliseconds = milliseconds or 1000 * (time.process_time() - start) / len(true)
        wrong = np.array(
            [
                [edge_agreement(a, thermal[(n + step) % len(rgb)]) for step in (1, 2, 17)]
                for n, a in enumerate(rgb)
            ]
        )
        auc = np.mean(true[:, None] > wrong.ravel()[None])
        best = best_threshold(true[::2], wrong[::2].ravel())
        columns = [f"{np.median(true):.3f}", f"{np.median(wrong):.3f}", f"{auc:.4f}", f"{best:.3f}"]
        for threshold in (best, MIN_AGREEMENT):
            columns.append(f"{np.mean(true[1::2] >= threshold):.1%}")
            columns.append(f"{np.mean(wrong[1::2] >= threshold):.1%}")
        print(f"| {name} | {' | '.join(columns)} |", flush=True)
    print(f"{len(stems)} true pairs; {milliseconds:.2f} ms of CPU per pair")


def misalignments():
    yield "as they are", WHOLE, WHOLE
    for pixels in (2, 4, 8, 16, 32):
        shift = pixels / SIZE
        yield f"shifted by {pixels} px", (0, 0, 1 - shift, 1 - shift), (shift, shift, 1, 1)
    for scale in (0.7, 0.8, 0.9):
        yield f"scaled by {scale}", _central(scale), WHOLE
    for scale in (1.1, 1.2, 1.3):
        yield f"scaled by {scale}", WHOLE, _central(1 / scale)


def best_threshold(true: np.ndarray, wrong: np.ndarray) -> float:
    candidates = np.sort(np.concatenate([true, wrong]))
    margins = [np.mean(true >= t) - np.mean(wrong >= t) for t in candidates]
    return float(candidates[int(np.argmax(margins))])


def _central(fraction: float) -> tuple[float, float, float, float]:
    rim = (1 - fraction) / 2
    return rim, rim, 1 - rim, 1 - rim


def _cropped(image: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    width, height = image.size
    left, top, right, bottom = box
    pixels = (left * width, top * height, right * width, bottom * height)
    return image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=pixels)


if __name__ == "__main__":
    main()
