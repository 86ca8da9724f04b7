"""A video of RGB frames to a video of thermal frames, without its sound."""

import contextlib
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat, takewhile
from pathlib import Path

import cv2
import numpy as np

from thermal_search.errors import DatasetError, SettingsError
from thermal_search.image_files import Pixels
from thermal_search.storage import Location, describe_fault
from thermal_search.translation import marks
from thermal_search.translation.pipeline import in_threads
from thermal_search.translation.settings import TranslationSettings
from thermal_search.translation.sources import is_video, refuse_itself
from thermal_search.translation.worker import BATCH, Worker

CODECS = {".avi": "MJPG", ".m4v": "mp4v", ".mov": "mp4v", ".mp4": "mp4v"}
"""Codecs that OpenCV's wheel can write, by the suffix of the file."""

DEFAULT_FPS = 25.0
"""For a video that does not say its frame rate."""

MIN_READ = 0.98
"""A smaller fraction of the announced frames is a damaged video: headers are not exact."""


# FFmpeg would print what it thinks of a damaged video beside our one sentence.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


@dataclass(frozen=True)
class VideoResult:
    """What became of a video."""

    target: Location
    frames: int
    """Frames that were written; 0 if an earlier run has written them."""

    warning: str = ""


def target_of(source: Location, output: Location) -> Location:
    """The video that is written: the output, or if that is a folder the input's name in it."""
    if is_video(output) and not (output.local and output.local.is_dir()):
        target = output
    else:
        name = Path(source.path)
        target = output / f"{name.stem}{name.suffix if name.suffix.lower() in CODECS else '.mp4'}"
    if Path(target.path).suffix.lower() not in CODECS:
        raise DatasetError(
            f"{target} must end with {', '.join(CODECS)}, the videos that can be written: name it "
            "so."
        )
    refuse_itself(source, target)
    return target


def check_settings(settings: TranslationSettings) -> None:
    """SettingsError if a video cannot have what the settings ask for."""
    for flag, is_set in {"--celsius": settings.celsius, "--depth 16": settings.depth == 16}.items():
        if is_set:
            raise SettingsError(f"{flag} is of images: a video has 8 bits; leave it out.")
    if (settings.workers or 1) > 1 or settings.address:
        raise SettingsError("A video is translated by one worker: leave --workers and --address.")


def translate_video(
    make_worker: Callable[[], Worker],
    run: str,
    source: Location,
    target: Location,
    advance: Callable[[int, int], None],
) -> VideoResult:
    """Writes the thermal video; the file appears when it is complete.

    Args:
        make_worker: loads the generator, if there is something to do.
        run: `marks.digest_of_run`.
        advance: called with the frames that are written, and those that there are.

    Raises DatasetError if the video cannot be read or written.
    """
    existing = marks.existing_digests([target])
    with _readable(source) as path, _capture(path) as capture:
        digest = marks.digest_of_file(run, path)
        if existing.get(target) == digest:
            return VideoResult(target, 0)
        announced = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        fps = capture.get(cv2.CAP_PROP_FPS)
        written = 0
        with (
            _writable(target, digest) as unfinished,
            contextlib.closing(_translated(make_worker(), capture)) as frames,
        ):
            writer = _Writer(unfinished, fps if fps > 0 and math.isfinite(fps) else DEFAULT_FPS)
            with contextlib.closing(writer):
                for pixels in frames:
                    writer.write(pixels)
                    written += 1
                    advance(written, announced)
            if not written:
                raise DatasetError(f"{source} holds no frame that can be read: repair it.")
    warning = ""
    if written < MIN_READ * announced:
        warning = f"only {written} of {announced} frames can be read"
    return VideoResult(target, written, warning)


def _translated(worker: Worker, capture: cv2.VideoCapture) -> Generator[Pixels]:
    """The pixels of the thermal frames, in order. Decoding, cutting, generating and rendering go on
    at the same time."""
    pools = [ThreadPoolExecutor(count) for count in (1, worker.threads, worker.threads)]
    decoding, cutting, rendering = pools

    def read(_: None) -> Pixels | None:
        is_frame, frame = capture.read()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if is_frame else None

    try:
        decoded = takewhile(_is_frame, in_threads(decoding, read, repeat(None), BATCH))
        cut = in_threads(cutting, lambda rgb: worker.cut(rgb), decoded, BATCH)  # pyright: ignore[reportArgumentType] - frames only
        translated = worker.generate((frame, frame.patches.rgb) for frame in cut)
        yield from in_threads(
            rendering, lambda t: worker.render(t.item, t.generated), translated, BATCH
        )
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _is_frame(frame: Pixels | None) -> bool:
    return frame is not None


class _Writer:
    """A video file, opened for the size of its first frame."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self.video: cv2.VideoWriter | None = None

    def write(self, pixels: Pixels) -> None:
        """Adds a frame, [height, width] or [height, width, 3] in RGB."""
        # The codecs halve the resolution of color: an odd last row or column would be cut off.
        odd = [(0, length % 2) for length in pixels.shape[:2]]
        pixels = np.pad(pixels, odd + [(0, 0)] * (pixels.ndim - 2), mode="edge")
        code = cv2.COLOR_GRAY2BGR if pixels.ndim == 2 else cv2.COLOR_RGB2BGR
        if self.video is None:
            height, width = pixels.shape[:2]
            codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
            self.video = cv2.VideoWriter(
                str(self.path.absolute()), cv2.CAP_FFMPEG, codec, self.fps, (width, height)
            )
            if not self.video.isOpened():
                raise DatasetError(
                    f"A video of {width} x {height} pixels cannot be written to "
                    f"{self.path.parent}: "
                    "free some space, or choose another output."
                )
        self.video.write(cv2.cvtColor(pixels, code))

    def close(self) -> None:
        if self.video is not None:
            self.video.release()


# Absolute paths, because FFmpeg would take `a:b.mp4` for an address.


@contextlib.contextmanager
def _capture(path: Path) -> Generator[cv2.VideoCapture]:
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise DatasetError(f"{path} must be a video that FFmpeg reads, but is not: convert it.")
        yield capture
    finally:
        capture.release()


@contextlib.contextmanager
def _readable(source: Location) -> Generator[Path]:
    """The video on a disk."""
    if local := source.local:
        yield local
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / source.name
        with source.open_input() as remote, path.open("wb") as file:
            shutil.copyfileobj(remote, file)
        yield path


@contextlib.contextmanager
def _writable(target: Location, digest: str) -> Generator[Path]:
    """A file to write, which becomes the target when the block ends without an error."""
    suffix = Path(target.path).suffix
    try:
        if local := target.local:
            local.parent.mkdir(parents=True, exist_ok=True)
            unfinished = local.with_name(f".unfinished-{secrets.token_hex(8)}{suffix}")
            try:
                yield unfinished
                marks.mark_video(unfinished, digest)
                os.replace(unfinished, local)
            finally:
                unfinished.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"video{suffix}"
            yield path
            marks.mark_video(path, digest)
            with path.open("rb") as file, target.open_output() as remote:
                shutil.copyfileobj(file, remote)
    except OSError as error:
        raise DatasetError(
            f"{target} cannot be written ({describe_fault(error)}): free some space, or fix it."
        ) from None
