"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table. A `|` in a cell would end it, and becomes a space."""
    lines = [list(heads), ["---"] * len(heads), *rows]
    return [f"| {' | '.join(cell.replace('|', ' ') for cell in line)} |" for line in lines]
