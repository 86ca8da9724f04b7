"""Reads inputs that claim much, each in a process of its own, and prints what each one took.

    python tests/limited_readers.py FOLDER      inputs are made in FOLDER

One JSON object per line: the case's name, what it was refused with (empty if it was read), its
seconds of processor time and its growth of memory in MB.
"""

import contextlib
import io
import json
import os
import resource
import signal
import struct
import sys
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import torch
from generator_helpers import save_untrained

from thermal_search import checkpoint, generator
from thermal_search.data.manifest import checksum, read_manifest
from thermal_search.data.parquet import read_pairs
from thermal_search.errors import ThermalSearchError
from thermal_search.image_files import Mode, Unusable, read_image
from thermal_search.metrics import Statistics
from thermal_search.preparation.alignment.geometry import read_homographies
from thermal_search.preparation.layouts.source import Source
from thermal_search.preparation.resizing import resize_square
from thermal_search.storage import Location
from thermal_search.tuning.record import SearchRecord

SIDE, LARGE_SIDE = 7000, 9400
"""About the most pixels that are read: 49 million, and 88 million of JPEGs."""

KILL_AFTER_S = 120
"""Of wall-clock time: a case that hangs."""


class Case(NamedTuple):
    name: str
    make: Callable[[Path], None]
    """Writes the input to a folder."""

    read: Callable[[Path], object]


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(count: int) -> bytes:
    """So many zeros, compressed: of the same block again and again."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    rest = deflate.compress(bytes(count % 2**20)) + deflate.flush()
    # Adler-32 of zeros: its first half stays 1, its second counts the bytes.
    checksum = struct.pack(">I", (count % 65521) << 16 | 1)
    return b"\x78\x01" + block * (count // 2**20) + rest + checksum


def png(side: int, bits: int, color: int, *, pixels: int | None = None, more: bytes = b"") -> bytes:
    """A PNG of zeros; with `pixels` it holds other bytes than its header claims."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    palette = chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(99)) if color == 3 else b""
    header = struct.pack(">IIBBBBB", side, side, bits, color, 0, 0, 0)
    data = zeros(side * (1 + side * channels * bits // 8) if pixels is None else pixels)
    parts = chunk(b"IHDR", header) + more + palette + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def large_jpeg() -> bytes:
    _, content = cv2.imencode(".jpg", np.zeros((LARGE_SIDE, LARGE_SIDE, 3), np.uint8))
    return content.tobytes()


def tiff_of_pages(count: int) -> bytes:
    """Pages of one gray pixel, which is the file's byte 8."""
    tags = (
        (256, 1),
        (257, 1),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 1),
        (279, 1),
    )
    page = struct.pack("<H", len(tags))
    page += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    page += bytes(4)
    pages = np.tile(np.frombuffer(page, np.uint8), (count, 1))
    following = 10 + len(page) * np.arange(1, count + 1, dtype="<u4")
    following[-1] = 0
    pages[:, -4:] = following[:, None].view(np.uint8)
    return b"II*\0" + struct.pack("<IH", 10, 0) + pages.tobytes()


def tiff_of_claims() -> bytes:
    """Tags that claim four billion values each."""
    tags = b"".join(struct.pack("<HHII", tag, 4, 2**32 - 1, 8) for tag in (256, 257, 273, 279))
    return b"II*\0" + struct.pack("<IH", 8, 4) + tags + bytes(4)


def images() -> Iterator[Case]:
    contents: dict[str, Callable[[], bytes]] = {
        "transparent.png": lambda: png(SIDE, 8, 6),
        "palette.png": lambda: png(SIDE, 8, 3),
        "large.jpg": large_jpeg,
        "large.png": lambda: png(LARGE_SIDE, 8, 2),
        "bomb.png": lambda: png(20_000, 1, 0),
        "claims.png": lambda: png(2**31 - 1, 8, 2, pixels=100),
        "profile.png": lambda: png(32, 8, 2, more=chunk(b"iCCP", b"x\0\0" + zeros(2**30))),
        "text.png": lambda: png(32, 8, 2, more=chunk(b"zTXt", b"x\0\0" + zeros(2**30))),
        "claims.ppm": lambda: f"P6 {SIDE} {SIDE} 255\n".encode(),
        "claims.pgm": lambda: b"P2 99999999 99999999 65535\n0",
        "claims.bmp": lambda: b"BM" + struct.pack(
            "<IIIIiiHHIIiiII", 99, 0, 54, 40, 2**31 - 1, -(2**31), 1, 24, 0, 0, 0, 0, 0, 0
        ),
        "claims.jpg": lambda: bytes.fromhex("ffd8ffc2001108ffffffff03012200021101031101ffd9"),
        "claims.webp": lambda: b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X"
        + struct.pack("<IB", 10, 16) + bytes(3) + b"\xff" * 6 + bytes(8),
        "pages.tif": lambda: tiff_of_pages(300_000),
        "claims.tif": tiff_of_claims,
    }  # fmt: skip
    modes: dict[str, Mode] = dict.fromkeys(contents, "RGB")
    contents["rgb16.png"], modes["rgb16.png"] = lambda: png(SIDE, 16, 2), "counts"
    for name, content in contents.items():
        yield Case(
            f"{name} as an image",
            lambda folder, name=name, content=content: write(folder / name, content()),
            lambda folder, name=name: resize_square(
                read_image(folder / name, modes[name]), 256, "bicubic"
            ),
        )
    for name, make in SPECIAL_FILES.items():
        yield Case(
            f"{name} as an image",
            lambda folder, make=make: make(folder / "a.png"),
            lambda folder: read_image(folder / "a.png", "RGB"),
        )


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(content)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**33)


SPECIAL_FILES: dict[str, Callable[[Path], None]] = {
    "pipe": lambda path: os.mkfifo(path),
    "folder": lambda path: path.mkdir(),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "8 GiB": sparse,
    "loop": lambda path: path.symlink_to(path),
    "100,000 brackets": lambda path: write(path, b"[" * 100_000),
}


def lists(path: Path, mib: int) -> None:
    """An object with a version and so many MiB of empty lists."""
    path.write_bytes(b'{"version":1,"a":[' + b"[]," * ((mib * 2**20 - 99) // 3) + b"0]}")


def documents() -> Iterator[Case]:
    readers: dict[str, Callable[[Path], object]] = {
        "manifest.json": read_manifest,
        "config.json": generator.load_config,
        "search.json": SearchRecord.load,
        "generator.pt": lambda folder: checkpoint.load_generator(
            Location.of(folder / "generator.pt")
        ),
        "statistics.npz": lambda folder: Statistics.load(folder / "statistics.npz"),
        "homographies.json": lambda folder: read_homographies(folder / "homographies.json"),
        "map.json": lambda folder: Source(folder, follow_links=False).read_json(
            folder / "map.json"
        ),
    }
    for name, read in readers.items():
        for kind, make in SPECIAL_FILES.items():
            yield Case(f"{kind} as {name}", lambda f, make=make, name=name: make(f / name), read)
    for name, mib in (("manifest.json", 32), ("map.json", 16)):
        read = readers[name]
        yield Case(f"lists as {name}", lambda f, name=name, mib=mib: lists(f / name, mib), read)
        yield Case(f"more as {name}", lambda f, name=name, mib=mib: lists(f / name, mib + 1), read)


def model_with(changes: dict[str, object], architecture: str = "pix2pix") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        save_untrained(folder, architecture)
        content = json.loads((folder / "config.json").read_text())
        content["parameters"] |= changes
        (folder / "config.json").write_text(json.dumps(content))

    return make


def compressed_records(folder: Path) -> None:
    """A generator.pt whose one tensor is more than 1 GB of zeros, compressed."""
    saved = io.BytesIO()
    torch.save({"generator": {"w": torch.zeros(4)}}, saved)
    with (
        zipfile.ZipFile(saved) as plain,
        zipfile.ZipFile(folder / "generator.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out,
    ):
        for info in plain.infolist():
            with out.open(info.filename, "w", force_zip64=True) as record:
                if info.filename.endswith("/data/0"):
                    for _ in range(1200):
                        record.write(bytes(2**20))
                else:
                    record.write(plain.read(info))


def repeated_lists(folder: Path) -> None:
    """A generator.pt whose description has a list of two lists of two lists, and so on."""
    value: object = 0
    for _ in range(60):
        value = [value, value]
    content = {"version": checkpoint.GENERATOR_VERSION, "generator": {}, "metrics": value}
    torch.save(content, folder / "generator.pt")


def expanded_tensor(folder: Path) -> None:
    """A generator.pt with a tensor of a trillion numbers that are one number."""
    weights = {"w": torch.zeros(1).expand(10**6, 10**6)}
    torch.save(
        {"version": checkpoint.GENERATOR_VERSION, "generator": weights}, folder / "generator.pt"
    )


def sparse_weights(folder: Path) -> None:
    save_untrained(folder)
    sparse(folder / "generator.safetensors")


def repeated_rows(folder: Path) -> None:
    """A dataset with a shard of few bytes that claims 3 GB of pixels."""
    (folder / "pairs").mkdir()
    rows, size = 2**14, 256
    pixels = {
        "rgb": pa.DictionaryArray.from_arrays(
            np.zeros(rows, np.int32), pa.array([bytes(size * size * 3)], pa.binary(3 * size * size))
        ),
        "thermal": pa.DictionaryArray.from_arrays(
            np.zeros(rows, np.int32), pa.array([bytes(size * size)], pa.binary(size * size))
        ),
    }
    names = {name: pa.array(["a"] * rows) for name in ("recording", "name")}
    shards = []
    for split in ("train", "val"):
        path = folder / "pairs" / f"{split}.parquet"
        parquet.write_table(pa.table(pixels | names), path, store_schema=False)
        shards.append(
            {"path": f"pairs/{split}.parquet", "kind": "pairs", "split": split, "rows": rows,
             "sha256": checksum(Location.of(path))}
        )  # fmt: skip
    content = {
        "version": 4, "source": "a", "layout": "folders", "size": size, "filter": "bicubic",
        "temperatures": None, "alignment": {"mode": "none", "recordings": {}}, "recordings": {},
        "unusable_files": [], "rejected_pairs": [], "notes": [], "shards": shards,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(content))


def bombs() -> Iterator[Case]:
    def load(folder: Path) -> object:
        return checkpoint.load_generator(Location.of(folder / "generator.pt"))

    yield Case("compressed records", compressed_records, load)
    yield Case("repeated lists", repeated_lists, load)
    yield Case("expanded tensor", expanded_tensor, load)
    yield Case("sparse weights", sparse_weights, generator.load)
    yield Case("repeated rows", repeated_rows, lambda f: read_pairs(read_manifest(f), "train"))
    for parameter in ("generator_width", "discriminator_width", "blocks", "scales", "patch_layers"):
        for value in (3000, 10**6, 10**12):
            changes = {"generator_network": "resnet", parameter: value}
            yield Case(f"{parameter} {value}", model_with(changes), generator.load)
    wide: dict[str, object] = {"channel_base": 10**6, "channel_max": 30_000}
    yield Case("channels", model_with(wide, "progressive_gan"), generator.load)
    batch: dict[str, object] = {"reference_batch_size": 10**6}
    yield Case("reference batch", model_with(batch, "improved_gan"), generator.load)


def run(case: Case, folder: Path) -> dict[str, object]:
    """Reads a case's input in a process of its own."""
    folder.mkdir()
    # In another process too: memory that this one has freed would not count as growth.
    if (maker := os.fork()) == 0:
        try:
            case.make(folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(maker, 0)[1]:
        raise SystemExit(f"{case.name} cannot be made")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(KILL_AFTER_S)
        sentence, before = "", rss_mb()
        try:
            case.read(folder)
        except (ThermalSearchError, Unusable) as refused:
            sentence = str(refused)
        except (OSError, ValueError) as refused:
            # What Statistics.load is documented to raise.
            is_known = "statistics" in case.name
            sentence = str(refused) if is_known else traceback.format_exc()
        except BaseException:
            sentence = traceback.format_exc()
        os.write(writer, json.dumps([before, sentence[-4000:]]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    _, status, usage = os.wait4(child, 0)
    before, sentence = json.loads(told) if status == 0 else (0.0, f"ended by signal {status}")
    return {
        "name": case.name,
        "sentence": sentence,
        "seconds": usage.ru_utime + usage.ru_stime,
        "mb": usage.ru_maxrss / 1024 - before,
    }


def rss_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    for number, case in enumerate([*images(), *documents(), *bombs()]):
        result = run(case, folder / str(number))
        print(json.dumps(result), flush=True)
        with contextlib.suppress(OSError):
            for path in (folder / str(number)).iterdir():
                if path.is_file():
                    path.unlink()


if __name__ == "__main__":
    main()
