"""Search for the best RGB -> thermal generator on the cluster that this machine belongs to.

    ray submit cluster.yaml search.py --data /data/flir --output /data/search
    python cluster/search.py --address local --data flir --output search

The same command, with the same flags, as `thermal-search search`.
"""

from thermal_search.cli import LAUNCH, LaunchFlags, SearchFlags, run_search
from thermal_search.command_line import create_app, run

app = create_app(
    "search.py",
    "Searches for the best generator on the cluster that this machine belongs to. The same "
    "command, with the same flags, as thermal-search search.",
)


@app.default
def search(*, settings: SearchFlags, launch: LaunchFlags = LAUNCH) -> None:
    run_search(settings, launch, default_address="auto")


def main() -> None:
    run(app)


if __name__ == "__main__":
    main()
