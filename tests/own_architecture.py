"""Puts the architecture of a file into the tables that the contract tests read."""

from pathlib import Path

from tiny_settings import BATCH

import search_spaces
from thermal_search.architectures.from_file import FLAG, SourceFile, register
from thermal_search.tuning.own_code import read_own_code


def add(path: Path, tiny: dict[str, dict[str, object]]) -> str:
    """The name of the architecture, which then has its TINY setting and its search space.

    Optional in the file: TINY, fields of its Config that make it small.
    """
    own = read_own_code([], [path])
    (name,) = own.architectures
    module = register(SourceFile.read(path, FLAG))
    tiny[name] = {"batch_size": BATCH, **getattr(module, "TINY", {})}
    load, names, space = search_spaces.load, search_spaces.names, own.spaces[name].load()
    search_spaces.load = lambda other: space if other == name else load(other)
    search_spaces.names = lambda: sorted([*names(), name])
    return name
