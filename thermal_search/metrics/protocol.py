"""How metrics are measured: those of different protocols are never compared."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What must be equal before two values of a metric may be compared.

    For one and the same generator, a distance falls with the number of images and changes with the
    network, its precision and the way images are resized (Chong & Forsyth 2020, arXiv 1911.07023;
    Parmar et al. 2022, arXiv 2104.11222).
    """

    features: str
    """Name of the extractor."""

    weights: str
    """Digest of its weights."""

    images: int
    """Number of generated images, and of the real ones they are compared with."""

    resize: str
    """From stored pixels to the network's input."""

    precision: str
    """Precision of the network's forward pass: fp32 or bf16."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
