"""How the pairs of a dataset were aligned, as far as metrics of generators depend on it."""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, get_args

from thermal_search.choices import HOMOGRAPHY_PREFIX, FixedAlignment
from thermal_search.documents import Section


class PairAlignment(Section):
    """An alignment decides which crop of a scene a pair shows, and how far apart its edges are."""

    method: FixedAlignment | Literal["homography"]
    """As --align names it: without the file of homographies, which has another path elsewhere."""

    layout: str
    """The source's layout. Without an alignment, pairs are as its authors left them: FLIR ADAS v1
    shows other crops of its scenes than FLIR-aligned, which is made of it."""

    fields_of_view: tuple[float, float] | None = None
    """Horizontal degrees of the thermal and the RGB camera, of the method center."""

    homographies: tuple[tuple[float, ...], ...] = ()
    """The different matrices of the method homography, each of nine numbers row by row."""

    @classmethod
    def of(
        cls, mode: str, layout: str, alignments: Mapping[str, Mapping[str, Any] | None]
    ) -> "PairAlignment":
        """From --align and the parameters of each recording's alignment.

        ValueError if the mode is unknown, or if an alignment lacks the parameters of its method.
        """
        method, degrees, matrices = mode, None, ()
        known = [alignment for alignment in alignments.values() if alignment]
        try:
            if mode.startswith(HOMOGRAPHY_PREFIX):
                method = "homography"
                matrices = tuple(sorted({tuple(alignment["matrix"]) for alignment in known}))
            elif mode not in get_args(FixedAlignment):
                names = ", ".join(get_args(FixedAlignment))
                raise ValueError(f"mode must be {names} or {HOMOGRAPHY_PREFIX}FILE")
            elif mode == "center" and known:
                degrees = known[0]["thermal_degrees"], known[0]["rgb_degrees"]
        except (KeyError, TypeError):
            raise ValueError(f"recordings must have the parameters of {method}") from None
        return cls.model_validate(
            {
                "method": method,
                "layout": layout,
                "fields_of_view": degrees,
                "homographies": matrices,
            }
        )

    def compares_with(self, other: "PairAlignment") -> bool:
        """Whether metrics on pairs of these two alignments mean the same.

        The crops of the method auto differ by recording: each one is where the edges match.
        """
        if (self.method, self.fields_of_view) != (other.method, other.fields_of_view):
            return False
        if self.method == "none":
            return self.layout == other.layout
        matrices, others = set(self.homographies), set(other.homographies)
        # One of two datasets may have fewer of the recordings.
        return matrices <= others or others <= matrices

    def __str__(self) -> str:
        """In the words of process.py's settings."""
        if self.method == "none":
            return f"pairs as the layout {self.layout} has them (--align none)"
        text = f"--align {self.method}"
        if self.fields_of_view:
            thermal, rgb = self.fields_of_view
            text += f" --fields-of-view {thermal:g},{rgb:g}"
        if self.homographies:
            digest = hashlib.sha256(repr(self.homographies).encode()).hexdigest()[:8]
            text += f":FILE with the {len(self.homographies)} matrices of digest {digest}"
        return f"pairs aligned by {text}"
