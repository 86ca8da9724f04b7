"""How well edge agreement tells true pairs from wrong ones.

    python benchmarks/agreement.py ROADSCENE

Each RGB picture against its own thermal one, and against those of the next, the second and the
seventeenth file; at 256 pixels, as process.py scores them.
"""

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from thermal_search.dataset.agreement import edge_agreement
from thermal_search.dataset.verification import AGREES


def main() -> None:
    folder = Path(sys.argv[1])
    stems = sorted(path.name for path in (folder / "visible").iterdir())
    rgb = [_read(folder / "visible" / name, "RGB") for name in stems]
    thermal = [_read(folder / "infrared" / name, "L") for name in stems]
    start = time.process_time()
    true = np.array([edge_agreement(a, b) for a, b in zip(rgb, thermal, strict=True)])
    seconds = (time.process_time() - start) / len(true)
    others = [(n, (n + step) % len(rgb)) for n in range(len(rgb)) for step in (1, 2, 17)]
    wrong = np.array([edge_agreement(rgb[a], thermal[b]) for a, b in others])
    print(f"{len(true)} true, {len(wrong)} wrong pairs; {1000 * seconds:.1f} ms of CPU a pair")
    print(f"area under the ROC curve: {np.mean(true[:, None] > wrong[None]):.4f}")
    for threshold in (0.12, 0.14, AGREES, 0.16, 0.18):
        kept, passed = np.mean(true >= threshold), np.mean(wrong >= threshold)
        print(f"  {threshold:.2f}: keeps {kept:.1%} of the true, passes {passed:.1%} of the wrong")
    print(f"medians: true {np.median(true):.3f}, wrong {np.median(wrong):.3f}")


def _read(path: Path, mode: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert(mode).resize((256, 256), Image.Resampling.BICUBIC))


if __name__ == "__main__":
    main()
