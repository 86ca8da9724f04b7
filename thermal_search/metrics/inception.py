"""pytorch-fid's Inception, with batch normalization folded into its convolutions."""

import contextlib
import os
import tempfile
from collections.abc import Generator
from pathlib import Path

import torch
import torch.nn.functional as F
from pytorch_fid.inception import FID_WEIGHTS_URL, InceptionV3
from torch import Tensor, nn
from torchvision.models.inception import BasicConv2d

from thermal_search.errors import WeightsUnavailable
from thermal_search.metrics.extractor import (
    Extractor,
    FeaturesPrecision,
    digest_of,
    fold_batch_norm,
)

WEIGHTS_FILE = Path(FID_WEIGHTS_URL).name
SIZE = 299


class _Inception(nn.Module):
    """pytorch-fid's InceptionV3 up to its last pooling: 2048 features, input in -1 .. 1."""

    def __init__(self) -> None:
        super().__init__()
        last = InceptionV3.BLOCK_INDEX_BY_DIM[2048]
        # Inputs are resized and scaled beforehand, in float32 for any precision of the network.
        self.network = InceptionV3([last], resize_input=False, normalize_input=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[0].flatten(1)


def build_inception(weights: Path | None, precision: FeaturesPrecision) -> Extractor:
    """With the weights in a file, or in torch.hub's folder, to which they are downloaded.

    Raises WeightsUnavailable if that fails.
    """
    try:
        with torch_hub_weights(weights) if weights else contextlib.nullcontext():
            network = _Inception()
            # From the disk: the line above has downloaded them, or failed.
            state = torch.hub.load_state_dict_from_url(FID_WEIGHTS_URL, map_location="cpu")
            classifier = nn.Linear(2048, len(state["fc.weight"]), bias=False)
            # Without the bias, as Salimans et al. computed the Inception Score.
            classifier.load_state_dict({"weight": state["fc.weight"]})
    except Exception as error:  # any, from the network, the disk or the file
        reason = " ".join(str(error).split())[:200]
        if weights:
            raise WeightsUnavailable(
                f"--inception-weights must be pytorch-fid's {WEIGHTS_FILE}, but {weights} cannot "
                f"be loaded as that ({reason}): download it from {FID_WEIGHTS_URL}."
            ) from None
        raise WeightsUnavailable(
            f"FID needs pytorch-fid's Inception weights, and they could not be loaded ({reason}): "
            f"download {FID_WEIGHTS_URL}, then pass --inception-weights FILE or put it at "
            f"{Path(torch.hub.get_dir(), 'checkpoints', WEIGHTS_FILE)}; or measure on other "
            "features with --features efficientnet-lite0."
        ) from None
    digest = digest_of(network)
    for module in network.modules():
        if isinstance(module, BasicConv2d):
            fold_batch_norm(module, "conv", "bn")
    return Extractor(
        "inception",
        2048,
        network,
        _preprocess,
        classifier,
        metric="fid",
        resize=f"bilinear to {SIZE} px",
        digest=digest,
        precision=precision,
        memory_format=torch.channels_last,
    )


def _preprocess(pixels: Tensor) -> Tensor:
    """As pytorch-fid does: resized without antialiasing, -1 .. 1."""
    resized = F.interpolate(pixels / 255, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    return 2 * resized - 1


@contextlib.contextmanager
def torch_hub_weights(weights: Path) -> Generator[None]:
    """A context in which pytorch-fid loads a local file: it reads torch.hub's folder only."""
    if not weights.is_file():
        raise FileNotFoundError("no such file")
    before = os.environ.get("TORCH_HOME")
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "hub", "checkpoints", WEIGHTS_FILE)
        link.parent.mkdir(parents=True)
        link.symlink_to(weights.absolute())
        os.environ["TORCH_HOME"] = folder
        try:
            yield
        finally:
            os.environ.pop("TORCH_HOME")
            if before is not None:
                os.environ["TORCH_HOME"] = before
