"""Files from others, damaged or malicious: every reader ends in one sentence, and soon."""

import json
import os
import struct
import zipfile

import numpy as np
import pytest
import torch
from generator_helpers import save_untrained
from hypothesis import given
from hypothesis import strategies as st
from json_edits import FAST, VALUES, edits, ends_in_a_sentence
from recordings import folders

from thermal_search import checkpoint, generator
from thermal_search.data.frames import Frames
from thermal_search.data.manifest import read_manifest
from thermal_search.data.parquet import check_shards, read_pairs
from thermal_search.errors import DatasetError, SearchError, ThermalSearchError
from thermal_search.images import Temperatures
from thermal_search.metrics import Statistics
from thermal_search.preparation.alignment.geometry import read_homographies
from thermal_search.preparation.prepare import prepare
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.storage import Location

DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    folders(folder / "raw", count=24, gap_every=8, size=(32, 32))
    prepare(folder / "raw", folder / "data", PreparationSettings(size=32, workers=1))
    return folder / "data"


def test_edited_config_of_a_generator_is_one_sentence(model, tmp_path):
    content = json.loads((model / "config.json").read_text())
    (tmp_path / "generator.safetensors").symlink_to(model / "generator.safetensors")

    @FAST
    @given(edits(content))
    def holds(content):
        (tmp_path / "config.json").write_bytes(content)
        ends_in_a_sentence(lambda: generator.load(tmp_path))

    holds()


def test_damaged_weights_are_one_sentence(model, tmp_path):
    weights = (model / "generator.safetensors").read_bytes()
    (tmp_path / "config.json").symlink_to(model / "config.json")

    @FAST
    @given(st.integers(0, 4000), st.binary(min_size=1, max_size=8), st.integers(0, len(weights)))
    def holds(position, replacement, length):
        damaged = weights[:position] + replacement + weights[position + len(replacement) :]
        (tmp_path / "generator.safetensors").write_bytes(
            damaged[:length] if length % 2 else damaged
        )
        ends_in_a_sentence(lambda: generator.load(tmp_path))

    holds()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(model, tmp_path, value):
    config = generator.load_config(model)
    weights = generator.load(model).generator.state_dict()
    next(iter(weights.values())).view(-1)[0] = value
    generator.save(Location.of(tmp_path), config, weights)
    with pytest.raises(SearchError, match="must be finite numbers, but some of"):
        generator.load(tmp_path)


def test_edited_manifest_is_one_sentence(prepared, tmp_path):
    content = json.loads((prepared / "manifest.json").read_text())
    for folder in ("pairs", "rgb", "thermal"):
        if (prepared / folder).exists():
            (tmp_path / folder).symlink_to(prepared / folder)

    @FAST
    @given(edits(content))
    def holds(content):
        (tmp_path / "manifest.json").write_bytes(content)
        ends_in_a_sentence(lambda: read_pairs(read_manifest(tmp_path), "train"))

    holds()


@pytest.mark.parametrize(
    ("key", "value"), [("size", 64), ("rows", 5), ("sha256", "0" * 64), ("temperatures", "16bit")]
)
def test_manifest_that_is_not_of_its_shards_is_refused(prepared, key, value):
    manifest = read_manifest(prepared)
    if key == "temperatures":
        value = Temperatures(0.0, 10.0)
    if key in ("rows", "sha256"):
        shards = [shard.model_copy(update={key: value}) for shard in manifest.shards]
        key, value = "shards", shards
    changed = manifest.model_copy(update={key: value}).at(manifest.folder)
    for read in (read_pairs, lambda manifest, split: check_shards(manifest, [("pairs", split)])):
        with pytest.raises(DatasetError, match="is damaged"):
            read(changed, "train")


def test_scrambled_pixels_are_refused(prepared, tmp_path):
    manifest = read_manifest(prepared)
    for shard in manifest.shards:
        content = bytearray((prepared / shard.path).read_bytes())
        content[1000] ^= 255
        (tmp_path / shard.path).parent.mkdir(exist_ok=True)
        (tmp_path / shard.path).write_bytes(content)
    with pytest.raises(DatasetError, match="its checksum is not the manifest's"):
        read_pairs(manifest.at(Location.of(tmp_path)), "train")


def test_shards_that_are_as_the_manifest_says_are_read(prepared):
    manifest = read_manifest(prepared)
    rgb, thermal = read_pairs(manifest, "val")

    assert isinstance(rgb, Frames)
    assert len(rgb) == len(thermal) == manifest.count("pairs", "val")


@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "deep", "huge", "device"])
def test_what_is_no_document_is_refused_at_once(tmp_path, name, kind):
    file = tmp_path / name
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "deep":
        file.write_text(DEEP)
    elif kind == "huge":
        with file.open("wb") as sparse:
            sparse.truncate(2**33)
    else:
        file.symlink_to("/dev/zero")
    read = read_manifest if name == "manifest.json" else generator.load_config
    with pytest.raises(ThermalSearchError, match=r"cannot be read|is damaged|regular"):
        read(tmp_path)


@pytest.mark.parametrize(
    "content", [DEEP, "[[1]]", '{"*": [[1e400,0,0],[0,1,0],[0,0,1]]}', "\ud800"],
)  # fmt: skip
def test_damaged_homographies_are_one_sentence(tmp_path, content):
    (tmp_path / "h.json").write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(DatasetError):
        read_homographies(tmp_path / "h.json")


@pytest.mark.parametrize("value", VALUES.elements)
def test_matrix_of_other_values_is_one_sentence(tmp_path, value):
    for rows in (value, [value] * 3, [[value] * 3] * 3):
        (tmp_path / "h.json").write_text(json.dumps({"*": rows}))
        with pytest.raises(DatasetError, match="must be 3 x 3 finite numbers"):
            read_homographies(tmp_path / "h.json")


@pytest.fixture(scope="module")
def statistics_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("statistics") / "whole.npz"
    Statistics.of(torch.rand(5, 4)).save(path)
    return path


class TestStatistics:
    @pytest.mark.parametrize(
        "changes",
        [
            {"count": 500_000},
            {"count": -1},
            {"rows": np.zeros((1, 4), np.float32), "count": 1},
            {"rows": np.zeros((5, 3), np.float32)},
            {"rows": np.zeros((5, 4), np.int64)},
            {"rows": np.zeros(5, np.float32)},
            {"sum": np.ones(4)},
            {"outer": np.ones((4, 4))},
            {"outer": np.ones((3, 3)), "count": 9},
        ],
    )
    def test_arrays_that_do_not_belong_together_are_refused(
        self, statistics_file, tmp_path, changes
    ):
        with np.load(statistics_file) as content:
            np.savez(tmp_path / "a.npz", **(dict(content) | changes))
        with pytest.raises(ValueError, match=r"count|array|outer|sum"):
            Statistics.load(tmp_path / "a.npz")

    def test_claimed_size_is_not_allocated(self, statistics_file, tmp_path):
        with np.load(statistics_file) as content:
            np.savez_compressed(tmp_path / "a.npz", **dict(content))
        header = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
        header += b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000, 4000), }"
        with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
            archive.writestr("rows2.npy", header.ljust(127) + b"\n")
        with pytest.raises(ValueError, match="arrays of 3200000"):
            Statistics.load(tmp_path / "a.npz")

    def test_damaged_file_is_statistics_or_refused(self, statistics_file, tmp_path):
        content = statistics_file.read_bytes()

        @FAST
        @given(st.integers(0, len(content) - 1), st.integers(0, 255), st.integers(0, len(content)))
        def holds(position, value, length):
            damaged = bytearray(content)
            damaged[position] = value
            (tmp_path / "a.npz").write_bytes(damaged[:length] if length % 2 else damaged)
            try:
                Statistics.load(tmp_path / "a.npz")
            except (OSError, ValueError):
                return

        holds()


@pytest.fixture(scope="module")
def trial_file(model, tmp_path_factory):
    folder = Location.of(tmp_path_factory.mktemp("trial"))
    config = generator.load_config(model)
    names = checkpoint.GeneratorDescription.model_fields
    description = checkpoint.GeneratorDescription(**{n: getattr(config, n) for n in names})
    weights = generator.load(model).generator.state_dict()
    checkpoint.save_generator(description, weights, folder)
    return (folder / checkpoint.GENERATOR).local


class TestGeneratorOfATrial:
    def test_code_in_the_file_is_not_run_and_not_advised(self, tmp_path):
        torch.save({"generator": os.system}, tmp_path / "generator.pt")
        with pytest.raises(SearchError, match="more than tensors and plain values") as refused:
            checkpoint.load_generator(Location.of(tmp_path / "generator.pt"))

        assert "weights_only" not in str(refused.value)

    def test_damaged_file_is_one_sentence(self, trial_file, tmp_path):
        content = trial_file.read_bytes()
        path = tmp_path / "generator.pt"

        @FAST
        @given(st.integers(0, len(content) - 1), st.integers(0, 255), st.integers(0, len(content)))
        def holds(position, value, length):
            damaged = bytearray(content)
            damaged[position] = value
            path.write_bytes(damaged[:length] if length % 2 else damaged)
            ends_in_a_sentence(lambda: checkpoint.load_generator(Location.of(path)))

        holds()


@pytest.mark.parametrize(
    "numbers",
    [
        (0.0, 0.0),
        (5.0, -5.0),
        (float("nan"), 1.0),
        (0.0, float("inf")),
        (-1e9, 1e9),
        (0.0, 1.0, 0.0),
    ],
)
def test_temperatures_must_be_possible(numbers):
    with pytest.raises(ValueError, match="must be"):
        Temperatures(*numbers)
