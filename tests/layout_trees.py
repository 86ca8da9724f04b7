"""Writes a small example of each layout, with its oddities.

Every function fills a folder and returns it. Oddities are marked.
"""

import io
import json
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

RGB, THERMAL = (50, 40), (40, 32)


@cache
def encoded(size, mode, format):
    random = np.random.default_rng(size[0])
    shape = (size[1], size[0], 3) if mode == "RGB" and size != THERMAL else (size[1], size[0])
    kind, low, top = (np.uint16, 7000, 8000) if mode == "I;16" else (np.uint8, 0, 256)
    image = Image.fromarray(random.integers(low, top, shape, kind))
    buffer = io.BytesIO()
    (image.convert(mode) if mode == "RGB" else image).save(buffer, format)
    return buffer.getvalue()


def image(path, size=RGB, mode="RGB", format=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    by_name = {".png": "PNG", ".tiff": "TIFF", ".bmp": "BMP"}
    path.write_bytes(encoded(size, mode, format or by_name.get(path.suffix, "JPEG")))


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def lines(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in content))


# FLIR ADAS v2.


def flir_name(video, index, frame, suffix=".jpg"):
    return f"video-{video}-frame-{index:06d}-{frame}{suffix}"


def flir_v2(root, *, map_beside=True, nested=True, video_frames=6, stills=True):
    """Two videos with a map beside the folder of six, like the archive, and stills.

    Stills: a description points to video 1, video 2 has an equal file name, video 3 has neither.
    """
    folder = root / "FLIR_ADAS_v2" if nested else root
    mapping = {}
    for video in range(2):
        for n in range(video_frames):
            rgb = flir_name(f"rgbTest{video}", n, f"r{video}{n}")
            thermal = flir_name(f"irTest{video}", n, f"t{video}{n}")
            # Odd: RGB sizes differ, and thermal has three equal channels.
            rgb_size = (50, 40) if video else (45, 40)
            image(folder / "video_rgb_test" / "data" / rgb, rgb_size)
            image(folder / "video_thermal_test" / "data" / thermal, THERMAL)
            radiometric = Path(thermal).with_suffix(".tiff").name
            image(folder / "video_thermal_test" / "analyticsData" / radiometric, THERMAL, "I;16")
            mapping[rgb] = thermal
    write_json((root if map_beside else folder) / "rgb_to_thermal_vid_map.json", mapping)
    for split in ("train", "val") if stills else ():
        _flir_v2_stills(folder, split)
    lines(root / "README.txt", ["FLIR ADAS v2"])
    return root


def scene(seed, size=(120, 96)):
    """Boxes and discs whose colors and temperatures are unrelated."""
    random = np.random.default_rng(seed)
    rgb, thermal = Image.new("RGB", size, (90, 90, 90)), Image.new("L", size, 90)
    for _ in range(25):
        x, y = random.integers(0, size[0]), random.integers(0, size[1])
        w, h = random.integers(8, 40, 2)
        box = [int(x - w // 2), int(y - h // 2), int(x + w // 2), int(y + h // 2)]
        shape = "ellipse" if random.random() < 0.5 else "rectangle"
        getattr(ImageDraw.Draw(rgb), shape)(box, tuple(random.integers(0, 256, 3).tolist()))
        getattr(ImageDraw.Draw(thermal), shape)(box, int(random.integers(0, 256)))
    return rgb, thermal


def flir_v2_scenes(root):
    """Like `flir_v2`; the recovered pairs of video 1 show one scene, those of video 2 do not."""
    flir_v2(root)
    for split in ("Train", "Val"):
        folders = [
            root / "FLIR_ADAS_v2" / f"images_{kind}_{split.lower()}" / "data"
            for kind in ("rgb", "thermal")
        ]
        for video, is_true in ((1, True), (2, False)):
            for n in (10, 20, 30, 40):
                pair = scene(n)[0], scene(n if is_true else 99)[1]
                for image, folder, kind in zip(pair, folders, ("rgb", "ir"), strict=True):
                    image.save(next(folder.glob(f"video-{kind}{split}{video}-frame-{n:06d}-*")))
    return root


def _flir_v2_stills(root, split):
    tag = split.capitalize()
    rgb_videos = [
        {"id": f"rgb{tag}1", "filename": "drive one_Visible.avi", "description": ""},
        {"id": f"rgb{tag}2", "filename": "Drive 2 cam1.zip", "description": None},
        {"id": f"rgb{tag}3", "filename": "alone.mp4"},
    ]
    thermal_videos = [
        # Odd: the pointer is JSON in free text.
        {"id": f"ir{tag}1", "filename": "x.avi", "description": f'{{"RGB": "rgb{tag}1"}} fps 30'},
        {"id": f"ir{tag}2", "filename": "drive_2_cam2.avi", "description": "no pointer"},
        {"id": f"ir{tag}3", "filename": "another.avi", "description": ""},
    ]
    for kind, short, videos in (("rgb", "rgb", rgb_videos), ("thermal", "ir", thermal_videos)):
        folder = root / f"images_{kind}_{split}"
        images, frames = [], []
        for video in (1, 2, 3):
            # Odd: the two cameras were not sampled at the same frames.
            for n in range(0, 50, 10) if kind == "rgb" else range(10, 60, 10):
                name = flir_name(f"{short}{tag}{video}", n, f"{kind[0]}{split}{video}{n}")
                image(folder / "data" / name, RGB if kind == "rgb" else THERMAL)
                # Odd: COCO names include the folder.
                images.append({"file_name": f"data/{name}", "extra_info": {"hours": ""}})
                meta = {"videoId": f"{short}{tag}{video}", "frameIndex": n}
                frames.append({"videoMetadata": meta, "annotations": [{"labels": ["car"]}]})
        write_json(folder / "index.json", {"videos": videos, "frames": frames})
        write_json(folder / "coco.json", {"images": images, "annotations": []})
        lines(folder / "coco_annotation_counts.tsv", ["car\t1"])


# FLIR ADAS v1 and its relatives.


def flir_v1(root):
    """The ReadMe's folders; the first thermal image of each split has no RGB image."""
    first = 1
    for split, count in (("Training", 12), ("Validation", 5), ("Video", 5)):
        for n in range(first, first + count):
            name = f"FLIR_{'video_' if split == 'Video' else ''}{n:05d}"
            # Odd: four RGB sizes, 8-bit thermal with three channels, .jpeg beside .jpg.
            if n > first:
                size = [(45, 40), (18, 12), (51, 38), (32, 25)][n % 4]
                image(root / split / "RGB" / f"{name}.jpg", size)
            image(root / split / "PreviewData" / f"{name}.jpeg", THERMAL)
            image(root / split / "Data" / f"{name}.tiff", THERMAL, "I;16")
            write_json(root / split / "Annotations" / f"{name}.json", {})
        first += count
    return root


def flir_v1_3(root):
    folder = root / "FLIR_ADAS_1_3"
    for split, count in (("train", 12), ("val", 5), ("video", 5)):
        for n in range(1, count + 1):
            name = f"FLIR_{n:05d}"
            if n > 1:
                image(folder / split / "RGB" / f"{name}.jpg")
            image(folder / split / "thermal_8_bit" / f"{name}.jpeg", THERMAL, "L")
            image(folder / split / "annotated_thermal_8_bit" / f"{name}.jpeg", THERMAL)
            image(folder / split / "thermal_16_bit" / f"{name}.tiff", THERMAL, "I;16")
        write_json(folder / split / "thermal_annotations.json", {"images": []})
    return root


def flir_europe(root):
    """RGB and thermal names differ; some files of val's map are in val_video."""
    for split, count in (("train", 10), ("val", 6)):
        pairs = []
        for n in range(count):
            thermal, rgb = f"FLIR_{n:05d}.jpeg", f"rgb_{n + 7:05d}.jpg"
            folder = "val_video" if split == "val" and n > 3 else split
            image(root / folder / "thermal_8_bit" / thermal, THERMAL, "L")
            # Odd: one partner is missing.
            if n:
                image(root / folder / "RGB" / rgb)
            pairs.append({"thermal_filename": thermal, "rgb_filename": rgb})
        content = {"thermal_to_rgb_ordered_frames": pairs}
        write_json(root / split / "europe_thermal_to_rgb.json", content)
    return root


def flir_aligned(root):
    """One list names a missing pair; one pair is in no list."""
    folder = root / "align"
    for n in range(2, 22):
        image(folder / "JPEGImages" / f"FLIR_{n:05d}_RGB.jpg", THERMAL)
        image(folder / "JPEGImages" / f"FLIR_{n:05d}_PreviewData.jpeg", THERMAL)
        lines(folder / "Annotations" / f"FLIR_{n:05d}_PreviewData.xml", ["<a/>"])
    stems = [f"FLIR_{n:05d}_PreviewData" for n in range(2, 21)]
    lines(folder / "align_train.txt", [*stems[:14], "FLIR_99999_PreviewData"])
    lines(folder / "align_validation.txt", stems[14:])
    return root


# Other datasets.


def kaist(root):
    for group in ("set00", "set01", "set06"):
        for drive in ("V000", "V001"):
            for n in range(4):
                for kind in ("visible", "lwir"):
                    # Odd: LWIR comes as three channels.
                    image(root / "images" / group / drive / kind / f"I{n:05d}.jpg", THERMAL)
    return root


def llvip(root):
    for split, locations in (("train", (1, 2, 3)), ("test", (19,))):
        for location in locations:
            for n in range(4):
                for kind in ("visible", "infrared"):
                    image(root / kind / split / f"{location:02d}{n:04d}.jpg", THERMAL)
    lines(root / "Annotations" / "010001.xml", ["<annotation/>"])
    return root


def m3fd(root):
    for n in range(20):
        image(root / "Vis" / f"{n:05d}.png", THERMAL)
        image(root / "Ir" / f"{n:05d}.png", THERMAL, "L")
        lines(root / "Annotation" / f"{n:05d}.xml", ["<annotation/>"])
    return root


def msrs(root):
    for split, count in (("train", 12), ("test", 6)):
        for n in range(count):
            name = f"{n:05d}{'DN'[n % 2]}.png"
            image(root / split / "vi" / name, THERMAL)
            image(root / split / "ir" / name, THERMAL, "L")
            image(root / split / "Segmentation_labels" / name, THERMAL, "L")
    return root


def roadscene(root):
    for n in (6, 18, 60, 200, 210, 400, 410, 500, 700):
        # Odd: the high-resolution RGB is larger than its thermal partner.
        image(root / "crop_HR_visible" / f"FLIR_{n:05d}.jpg", (80, 64))
        image(root / "crop_LR_visible" / f"FLIR_{n:05d}.jpg", THERMAL)
        image(root / "cropinfrared" / f"FLIR_{n:05d}.jpg", THERMAL, "L")
    return root


def side_by_side(root):
    """The left half of every image is white, which reveals a reader that takes the wrong half."""
    for split, count in (("train", 10), ("val", 4), ("test", 4)):
        for n in range(1, count + 1):
            both = np.zeros((32, 64, 3), np.uint8)
            both[:, :32] = 255
            (root / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(both).save(root / split / f"{n}.png")
    return root


def unpaired(root):
    for folder, count in (("trainA", 9), ("trainB", 7), ("testA", 5), ("testB", 5)):
        for n in range(count):
            mode = "RGB" if folder.endswith("A") else "L"
            image(root / folder / f"{n}.jpg", THERMAL, mode)
    return root


def folders(root):
    """Your own folders: odd extensions, a PNG named .jpg, a missing partner, other files."""
    for n in range(20):
        number = n + 1000 * (n // 5)
        name = f"frame_{number}.jpg"
        image(root / "RGB" / name, THERMAL, format="PNG" if n == 3 else None)
        if n != 7:
            image(root / "Thermal" / f"frame_{number}.PNG", THERMAL, "L", "PNG")
    lines(root / "RGB" / "notes.docx", ["not an image"])
    lines(root / "RGB" / "labels.json", ["{}"])
    (root / "RGB" / "old").mkdir()
    return root
