"""Search for the best RGB -> thermal generator, on the cluster this machine belongs to.

    ray submit cluster.yaml search.py --data /data/flir --output /data/search
    python cluster/search.py --address local --data flir --output search

The same search, with the same flags, as `thermal-search search`.
"""

import argparse

from thermal_search.cli import add_search_flags, run_verb


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="search.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_search_flags(parser, default_address="auto")
    run_verb(parser, None)


if __name__ == "__main__":
    main()
