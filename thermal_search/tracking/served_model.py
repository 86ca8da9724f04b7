"""An exported generator as an MLflow model, which `mlflow models serve` serves.

MLflow runs this file to build the model ("models from code"): nothing is pickled, and the weights
are the safetensors of the export. One row holds one RGB image, as a file in base64 (PNG or any
other image that this package reads) or as [height, width, 3] numbers of 0 .. 255; its thermal image
comes back in the same form and size, as a PNG or as [height, width] numbers.
"""

import base64
import binascii
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from PIL import Image
from torch import Tensor

from thermal_search import generator, inference
from thermal_search.image_files import Pixels, Unusable, decode
from thermal_search.images import to_pixels
from thermal_search.preparation.resizing import resize_square
from thermal_search.storage import Location

BATCH = 16
INPUT, OUTPUT = "image", "thermal"
"""The columns of the request and of the answer."""

ARTIFACT = "generator"
"""The folder that `thermal-search export` wrote, among the model's artifacts."""


class ThermalGenerator(PythonModel):
    """Answers RGB images with thermal images, as `thermal-search translate` translates them."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the generator, on the GPU if there is one."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.translator = generator.load(Location.of(context.artifacts[ARTIFACT])).to(device)
        inference.share_dropout(self.translator)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride] - MLflow takes both forms
        self, context: Any, model_input: Any, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """The thermal image of every row.

        Args:
            model_input: a table with the column `image`.
            params: `seed` of the latents.

        Raises MlflowException for what is no RGB image: a server answers its sentence with status
        400.
        """
        seed = int((params or {}).get("seed", 0))
        rows = [*model_input[INPUT]]
        answers: list[Any] = []
        for start in range(0, len(rows), BATCH):
            chunk = rows[start : start + BATCH]
            images = [_pixels(row, start + n) for n, row in enumerate(chunk)]
            for row, image, thermal in zip(
                chunk, images, self._translate(images, seed), strict=True
            ):
                answers.append(_answer(thermal, image.shape[:2], as_file=_is_file(row)))
        return pd.DataFrame({OUTPUT: answers})

    def _translate(self, images: Sequence[Pixels], seed: int) -> Tensor:
        """Thermal images of the generator's own size, in -1 .. 1: [batch, size, size]."""
        size = self.translator.config.size
        squares = [resize_square(image, size, "bicubic") for image in images]
        rgb = torch.stack([torch.from_numpy(square).permute(2, 0, 1) for square in squares])
        return inference.generate(self.translator, rgb, seed, share_latent=True)[:, 0]


def _is_file(row: Any) -> bool:
    return isinstance(row, (str, bytes))


def _pixels(row: Any, index: int) -> Pixels:
    """One RGB image: uint8 [height, width, 3]."""
    try:
        if isinstance(row, str):
            # A data URL, as browsers make it, holds the same behind a comma.
            row = base64.b64decode(row.rpartition(",")[2], validate=True)
        if isinstance(row, bytes):
            return decode(row, "RGB")
        numbers = np.asarray(row, dtype=np.float64)
    except (Unusable, binascii.Error, ValueError, TypeError) as error:
        raise MlflowException.invalid_parameter_value(
            f"Image {index} must be an image file in base64 or [height, width, 3] numbers, but is "
            f"not ({error}): send one of them."
        ) from None
    if numbers.ndim != 3 or numbers.shape[2] != 3 or not numbers.size:
        raise MlflowException.invalid_parameter_value(
            f"Image {index} must be [height, width, 3] numbers, but is {[*numbers.shape]}: send an "
            "RGB image, channels last."
        )
    if not ((numbers >= 0) & (numbers <= 255) & (numbers == numbers.round())).all():
        raise MlflowException.invalid_parameter_value(
            f"Image {index} must hold whole numbers from 0 to 255, but holds others: send uint8."
        )
    return numbers.astype(np.uint8)


def _answer(thermal: Tensor, shape: tuple[int, ...], *, as_file: bool) -> Any:
    height, width = shape
    resized = Image.fromarray(thermal.numpy()).resize((width, height), Image.Resampling.BICUBIC)
    pixels = to_pixels(torch.from_numpy(np.array(resized))).numpy()
    if not as_file:
        return pixels.tolist()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


set_model(ThermalGenerator())
