"""One process that translates: threads read and write images while the generator works."""

import os
from collections.abc import Generator as Yields
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from thermal_search import generator, inference
from thermal_search.architectures.translator import Translator
from thermal_search.atomic_file import replacing
from thermal_search.errors import DatasetError, SearchError
from thermal_search.image_files import (
    MAX_FILE_BYTES,
    Pixels,
    Unusable,
    decode,
    read_content,
)
from thermal_search.images import Temperatures
from thermal_search.storage import Location, describe_fault
from thermal_search.translation import geometry, rendering
from thermal_search.translation.marks import digest_of_image, png_texts
from thermal_search.translation.pipeline import Translated, in_batches, in_threads
from thermal_search.translation.settings import TranslationSettings
from thermal_search.translation.sources import Job

Item = TypeVar("Item")

BATCH = 16
"""Images of the generator's size in one batch."""

MAX_THREADS = 8
"""Of a worker that read, and as many that write."""


@dataclass(frozen=True)
class Request:
    """What every worker must know."""

    model: Location
    settings: TranslationSettings
    run: str
    """`marks.digest_of_run`."""


@dataclass(frozen=True)
class Outcome:
    """What became of one image."""

    name: str
    target: Location
    kept: bool = False
    """Whether an earlier run has written it."""

    reason: str = ""
    """Why it is left out; empty if it is not."""


@dataclass(frozen=True)
class Frame:
    """An image on its way through a worker."""

    rgb: Pixels | None
    """[height, width, 3], if it is shown beside the thermal image."""

    patches: geometry.Patches


class Worker:
    """An exported generator on one device.

    An image's result depends on the image, the generator and the settings alone, not on the images
    beside it: all have the latent and the dropout mask of the seed.
    """

    def __init__(
        self,
        request: Request,
        device: torch.device,
        *,
        workers: int = 1,
        translator: Translator | None = None,
    ) -> None:
        """
        Args:
            workers: how many share the cores of this machine.
            translator: the generator of the request, if this process has loaded it already.
        """
        self.request, self.settings, self.device = request, request.settings, device
        self.threads = min(max((os.cpu_count() or 1) // workers, 1), MAX_THREADS)
        self.translator = (translator or generator.load(request.model)).to(device)
        self.size: int = self.translator.config.size
        self.temperatures = generator.load_config(request.model).temperatures
        inference.share_dropout(self.translator)
        check_model(request, self.temperatures, self.translator.size_multiple)

    def translate_images(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Writes the thermal images, in order. Raises DatasetError if the disk refuses."""
        with (
            ThreadPoolExecutor(self.threads) as reading,
            ThreadPoolExecutor(self.threads) as writing,
        ):
            # Large images wait in small numbers.
            keeps_size = self.settings.tiles or self.settings.size == "native"
            ahead = 2 * self.threads if keeps_size else 2 * BATCH
            read = in_threads(reading, self._read, jobs, ahead)
            translated = self.generate(
                (item, item[2].patches.rgb if isinstance(item, tuple) else ()) for item in read
            )
            written = in_threads(writing, self._write, translated, ahead)
            try:
                with closing(read), closing(written):
                    yield from written
            finally:
                for pool in (reading, writing):
                    pool.shutdown(wait=False, cancel_futures=True)

    def cut(self, rgb: Pixels) -> Frame:
        """An image [height, width, 3] with its patches for the generator."""
        multiple = self.translator.size_multiple
        patches = geometry.cut(rgb, self.size, self.settings, multiple)
        return Frame(rgb if self.settings.side_by_side else None, patches)

    def generate(self, items: Iterable[tuple[Item, Sequence[Tensor]]]) -> Yields[Translated[Item]]:
        """The items, in order, with what the generator makes of their patches."""
        return in_batches(items, self._generate, BATCH * self.size**2)

    def render(self, frame: Frame, generated: Sequence[Pixels]) -> Pixels:
        """The pixels of the file: see `rendering.render`."""
        thermal = frame.patches.join(generated)
        return rendering.render(thermal, frame.rgb, self.settings, self.temperatures)

    def _generate(self, patches: Tensor) -> Pixels:
        try:
            thermal = inference.generate(
                self.translator, patches, self.settings.seed, share_latent=True
            )[:, 0].numpy()
        except torch.OutOfMemoryError:
            raise DatasetError(
                f"The memory of {self.device} ran out on an image of {patches.shape[3]} x "
                f"{patches.shape[2]} pixels: pass --tiles, or leave --size native out."
            ) from None
        if not np.isfinite(thermal).all():
            raise SearchError(
                f"{self.request.model} generates pixels that are not finite numbers: export "
                "another generator."
            )
        return thermal

    def _read(self, job: Job) -> Outcome | tuple[Job, str, Frame]:
        """An image with the digest that its file will have, or what else becomes of it."""
        torch.set_num_threads(1)  # of this thread: the others have cores of their own
        left_out = partial(Outcome, job.name, job.target)
        try:
            content = _content(job.source)
            digest = digest_of_image(self.request.run, content)
            if digest == job.existing:
                return Outcome(job.name, job.target, kept=True)
            return job, digest, self.cut(decode(content, "RGB"))
        except Unusable as error:
            return left_out(reason=str(error))

    def _write(self, translated: "Translated[Outcome | tuple[Job, str, Frame]]") -> Outcome:
        if isinstance(translated.item, Outcome):
            return translated.item
        job, digest, frame = translated.item
        texts = {**rendering.texts(self.settings), **png_texts(digest)}
        write(job.target, rendering.encode_png(self.render(frame, translated.generated), texts))
        return Outcome(job.name, job.target)


def check_model(
    request: Request, temperatures: Temperatures | None, size_multiple: int | None
) -> None:
    """DatasetError if the generator cannot do what the settings ask for."""
    if request.settings.celsius and temperatures is None:
        raise DatasetError(
            f"{request.model} was trained on 8-bit thermal images, which hold no temperatures: "
            "leave --celsius out, or train on a dataset prepared with --thermal 16bit."
        )
    if request.settings.size == "native" and size_multiple is None:
        raise DatasetError(
            f"The generator in {request.model} takes images of its own size only: pass --tiles "
            "instead of --size native."
        )


def write(target: Location, content: bytes) -> None:
    """Writes a file so that a reader sees all of it or none. Raises DatasetError."""
    try:
        if local := target.local:
            with replacing(local) as file:
                file.write(content)
        else:
            target.write_bytes(content)
    except OSError as error:
        raise DatasetError(
            f"{target} cannot be written ({describe_fault(error)}): free some space, or fix it; "
            "the same command resumes the translation."
        ) from None


def _content(source: Location) -> bytes:
    """The bytes of an image's file. Raises Unusable."""
    if local := source.local:
        return read_content(local)
    try:
        content = source.read_bytes()
    except FileNotFoundError:
        raise Unusable("unreadable (No such file or directory)") from None
    if len(content) > MAX_FILE_BYTES:
        raise Unusable(f"a file of {len(content) / 2**20:.0f} MiB; up to 512 are read")
    return content
