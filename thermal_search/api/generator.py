"""`ts.load_generator` and what it returns."""

from typing import Any, overload

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from thermal_search import generator, inference
from thermal_search.api import Place
from thermal_search.architectures.translator import Translator
from thermal_search.errors import SearchError, SettingsError
from thermal_search.generator import GeneratorConfig
from thermal_search.image_files import Unusable, rgb_of
from thermal_search.images import Temperatures, to_pixels
from thermal_search.preparation.resizing import resize_square
from thermal_search.storage import Location

Pixels = NDArray[np.uint8]


class LoadedGenerator:
    """An exported generator, called with an RGB image or with several.

    | Given | Returned |
    |---|---|
    | PIL image of any mode | PIL image of mode L |
    | numpy uint8 [height, width, 3] | numpy uint8 [height, width] |
    | uint8 tensor [3, height, width] or [count, 3, height, width] | uint8 tensor of 1 channel |
    | floating tensor in 0 .. 1 of these shapes | floating tensor in 0 .. 1 of 1 channel |

    Floating numbers are rounded to the 256 levels of the images that it was trained on.

    The result has the height and width of the image. The generator itself sees it resized to
    `size` x `size` pixels, as `thermal-search translate` does. Equal images and seeds give equal
    results; among several images, each has a latent of its own.
    """

    def __init__(
        self, translator: Translator, config: GeneratorConfig, device: torch.device
    ) -> None:
        self.translator, self.config, self.device = translator.to(device), config, device

    @classmethod
    def load(cls, place: Location, device: str | None = None) -> "LoadedGenerator":
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            where = torch.device(chosen)
            torch.empty(0, device=where)
        except (RuntimeError, AssertionError):
            raise SettingsError(
                f"device must be one that this torch has, such as cpu, but is {chosen!r:.40}."
            ) from None
        return cls(generator.load(place), generator.load_config(place), where)

    @property
    def size(self) -> int:
        """Height and width in pixels of the images that the generator was trained on."""
        return self.config.size

    @property
    def temperatures(self) -> Temperatures | None:
        """The degrees Celsius of black and white; None if it was trained on 8-bit images."""
        return self.config.temperatures

    @overload
    def __call__(self, image: Image.Image, *, seed: int = 0) -> Image.Image: ...
    @overload
    def __call__(self, image: NDArray[Any], *, seed: int = 0) -> Pixels: ...
    @overload
    def __call__(self, image: Tensor, *, seed: int = 0) -> Tensor: ...
    def __call__(
        self, image: Image.Image | NDArray[Any] | Tensor, *, seed: int = 0
    ) -> Image.Image | Pixels | Tensor:
        """The thermal image of `image`, of the same kind: white is hot.

        Args:
            seed: of the latents and of dropout that is active at test time.

        Raises SettingsError if `image` has another type, shape or range.
        """
        if isinstance(image, Image.Image):
            return Image.fromarray(self._from_array(_rgb_of(image), seed))
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise _unusable("uint8 [height, width, 3]", f"{image.dtype} {[*image.shape]}")
            return self._from_array(image, seed)
        if isinstance(image, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] - of untyped code
            return self._from_tensor(image, seed)
        raise _unusable("a PIL image, a numpy array or a tensor", type(image).__name__)

    def celsius(
        self, image: Image.Image | NDArray[Any] | Tensor, *, seed: int = 0
    ) -> NDArray[np.float32]:
        """Degrees Celsius, float32 [height, width], of one image as `__call__` takes it.

        Raises SearchError if the generator was trained on 8-bit images, which hold no temperatures.
        """
        if self.temperatures is None:
            raise SearchError(
                "This generator was trained on 8-bit thermal images, which hold no temperatures: "
                "call it without celsius, or train on a dataset prepared with thermal='16bit'."
            )
        if isinstance(image, Tensor):
            if image.ndim != 3:
                raise _unusable("a tensor [3, height, width]", str([*image.shape]))
            pixels = _tensor_to_array(image)
        else:
            pixels = _rgb_of(image) if isinstance(image, Image.Image) else image
        celsius = self.temperatures.celsius(self._generate(_square(pixels, self.size), seed))
        return _resized(celsius, pixels.shape[0], pixels.shape[1])[0, 0].numpy()

    def _from_array(self, pixels: Pixels, seed: int) -> Pixels:
        thermal = self._generate(_square(pixels, self.size), seed)
        return to_pixels(_resized(thermal, *pixels.shape[:2]))[0, 0].numpy()

    def _from_tensor(self, image: Tensor, seed: int) -> Tensor:
        is_single = image.ndim == 3
        batch = image[None] if is_single else image
        if batch.ndim != 4 or batch.shape[1] != 3 or not len(batch):
            raise _unusable(
                "a tensor [3, height, width] or [count, 3, height, width]", str([*image.shape])
            )
        squares = torch.cat([_square(_tensor_to_array(one), self.size) for one in batch])
        thermal = _resized(self._generate(squares, seed), *batch.shape[2:])
        if image.dtype == torch.uint8:
            result = to_pixels(thermal)
        else:
            result = ((thermal + 1) / 2).clamp(0, 1).to(image.dtype)
        result = result.to(image.device)
        return result[0] if is_single else result

    def _generate(self, rgb: Tensor, seed: int) -> Tensor:
        """[count, 3, size, size] uint8 -> [count, 1, size, size] in -1 .. 1, on the CPU."""
        # A copy, because what is made in inference mode cannot be changed in place.
        return inference.generate(self.translator, rgb, seed, share_latent=False).clone()


def load_generator(place: Place, *, device: str | None = None) -> LoadedGenerator:
    """An exported generator, to be called with RGB images (see `LoadedGenerator`).

    Args:
        place: a folder that `export` wrote.
        device: such as `cpu` or `cuda`; by default a GPU if there is one.

    Raises SearchError if the folder holds no exported generator of this release, SettingsError for
    an unknown device.
    """
    return LoadedGenerator.load(Location.of(place), device)


def _square(pixels: Pixels, size: int) -> Tensor:
    """[1, 3, size, size], as process.py resizes by default."""
    square = resize_square(pixels, size, "bicubic")
    return torch.from_numpy(np.ascontiguousarray(square)).permute(2, 0, 1)[None]


def _tensor_to_array(image: Tensor) -> Pixels:
    """[3, height, width] -> [height, width, 3] uint8."""
    if image.dtype != torch.uint8:
        if not image.is_floating_point():
            raise _unusable("a tensor of uint8, or of floating numbers in 0 .. 1", str(image.dtype))
        low, high = image.min().item(), image.max().item()
        if not 0 <= low <= high <= 1:
            raise _unusable("floating numbers in 0 .. 1", f"{low:g} .. {high:g}")
        image = (image.float() * 255).round().to(torch.uint8)
    return image.permute(1, 2, 0).cpu().numpy()


def _resized(images: Tensor, height: int, width: int) -> Tensor:
    """Bicubic, as the translated images of `thermal-search translate`."""
    if images.shape[2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bicubic", antialias=True)


def _rgb_of(image: Image.Image) -> Pixels:
    try:
        return rgb_of(image)
    except Unusable as error:
        raise SettingsError(
            f"image must be one that can be shown as RGB, but has {error}."
        ) from None


def _unusable(expected: str, found: str) -> SettingsError:
    return SettingsError(f"image must be {expected}, but is {found}.")
