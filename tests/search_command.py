"""The command line of a search, without the search."""

from thermal_search.cli import app
from thermal_search.tuning.settings import LaunchSettings, SearchSettings


def parse(*arguments: object) -> tuple[SearchSettings, LaunchSettings]:
    """The settings of a `search` command line, which is not run."""
    words = ["search", *map(str, arguments)]
    _, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    return bound.kwargs["settings"], bound.kwargs.get("launch", LaunchSettings())
