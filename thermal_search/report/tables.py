"""Tables as plain data; `charts.html` writes them."""

from collections.abc import Sequence
from dataclasses import dataclass

FOLD_AFTER = 12
"""Rows of a long table that are shown at once."""


@dataclass(frozen=True)
class Table:
    """Rows of texts. The first column names the row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    trials: Sequence[int | None] = ()
    """The trial of each row, which the page highlights everywhere; or nothing."""

    folded: int = 0
    """From this row on, rows are shown on request; 0 for all."""

    numbers: frozenset[int] = frozenset()
    """Columns that are aligned as numbers."""

    wraps: bool = False
    """Whether the last column holds sentences."""
