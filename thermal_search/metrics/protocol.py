"""How a number was measured: numbers of different protocols are never compared."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from thermal_search.errors import MetricError


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What must be equal before two numbers may be compared.

    A distance falls with the number of images and changes with the network, its precision and the
    way pictures are resized, for one and the same generator (Chong & Forsyth 2020, arXiv
    1911.07023; Parmar et al. 2022, arXiv 2104.11222).
    """

    features: str
    """Name of the extractor."""

    weights: str
    """Digest of its weights."""

    images: int
    """How many were painted, and how many real ones they were compared with."""

    resize: str
    """From stored pixels to the network's input."""

    precision: str
    """Of the network's forward pass: fp32 or bf16."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Protocol":
        """Raises MetricError where a field is missing or unknown."""
        names = {field.name for field in fields(cls)}
        if set(content) != names:
            raise MetricError(
                f"A protocol must name {', '.join(sorted(names))}, but this one names "
                f"{', '.join(sorted(content))}: measure again with this version."
            )
        return cls(**content)


def require_same(protocols: Iterable[Protocol]) -> None:
    """Raises MetricError where numbers of these protocols must not be compared or ranked."""
    first: Protocol | None = None
    for other in protocols:
        first = first or other
        if other == first:
            continue
        differing = [
            f"{field.name} {getattr(first, field.name)} and {getattr(other, field.name)}"
            for field in fields(Protocol)
            if getattr(first, field.name) != getattr(other, field.name)
        ]
        raise MetricError(
            "Only numbers measured the same way can be compared, but these differ in "
            f"{', '.join(differing)}: measure both the same way."
        )
