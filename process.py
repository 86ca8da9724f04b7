"""Turn a recording of RGB and thermal images into a dataset to search on.

python process.py SOURCE OUTPUT --size 256
python process.py --verify DATASET

The same command, with the same flags, as `thermal-search prepare`.
"""

from collections.abc import Sequence

from thermal_search.command_line import create_app, run
from thermal_search.preparation.command import INTERRUPTED, PAIRS, prepare

HELP = """Turn a recording of RGB and thermal images into a dataset to search on.

The dataset is Parquet shards of raw pixels, with a manifest and a preview.
The same command resumes an interrupted run. It is also `thermal-search prepare`."""

app = create_app("process.py", HELP)
app.default(prepare)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command. Invalid input ends with one sentence and exit code 1 or 2."""
    run(app, arguments, interrupted=INTERRUPTED, pairs=PAIRS)


if __name__ == "__main__":
    main()
