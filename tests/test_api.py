"""The Python interface."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from generator_helpers import save_untrained
from PIL import Image
from recordings import folders
from summaries import record_of, run_trial
from tiny_settings import SIZE
from training_helpers import plan_of, trial_of

import thermal_search as ts
from thermal_search import generator
from thermal_search.errors import SearchError, SettingsError
from thermal_search.images import Temperatures
from thermal_search.storage import Location
from thermal_search.translation.command import translate
from thermal_search.tuning.slots.messages import TrialConfig

HEIGHT, WIDTH = 40, 60


def test_import_is_light():
    code = (
        "import sys, thermal_search as ts; dir(ts); "
        "assert not {'torch', 'ray', 'mlflow', 'pandas', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading_a_generator_needs_no_ray(tmp_path):
    folder = save_untrained(tmp_path / "model")
    code = (
        f"import sys, thermal_search as ts; ts.load_generator({str(folder)!r}); "
        "assert not {'ray', 'mlflow', 'optuna'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_exists():
    assert all(getattr(ts, name).__doc__ for name in ts.__all__)
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = ts.train


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("model") / "model", "thermalgan")


@pytest.fixture(scope="module")
def loaded(model):
    return ts.load_generator(model, device="cpu")


@pytest.fixture(scope="module")
def pixels():
    small = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    return np.array(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


class TestLoadedGenerator:
    def test_kinds_of_images_agree(self, loaded, pixels):
        from_array = loaded(pixels)
        from_pil = loaded(Image.fromarray(pixels))
        planes = torch.from_numpy(pixels).permute(2, 0, 1)
        from_bytes = loaded(planes)
        from_floats = loaded(planes / 255)
        from_batch = loaded(torch.stack([planes, planes.flip(2)]).half() / 255)

        assert (from_array.dtype, from_array.shape) == (np.uint8, (HEIGHT, WIDTH))
        assert (from_pil.mode, from_pil.size) == ("L", (WIDTH, HEIGHT))
        assert np.array_equal(np.array(from_pil), from_array)
        assert np.array_equal(from_bytes, from_array[None])
        assert (from_floats.dtype, from_floats.shape) == (torch.float32, (1, HEIGHT, WIDTH))
        assert 0 <= from_floats.min() <= from_floats.max() <= 1
        assert (from_floats * 255 - from_bytes).abs().max() <= 0.5001
        assert (from_batch.dtype, from_batch.shape) == (torch.float16, (2, 1, HEIGHT, WIDTH))

    def test_seed_decides_latent_and_dropout(self, loaded, pixels):
        state = torch.get_rng_state()
        assert np.array_equal(loaded(pixels, seed=1), loaded(pixels, seed=1))
        assert not np.array_equal(loaded(pixels, seed=1), loaded(pixels, seed=2))
        assert torch.equal(torch.get_rng_state(), state)

    def test_image_of_its_own_size_is_what_translate_writes(self, loaded, model, pixels, tmp_path):
        square = Image.fromarray(pixels).resize((SIZE, SIZE))
        (tmp_path / "rgb").mkdir()
        square.save(tmp_path / "rgb" / "a.png")
        translate(model, tmp_path / "rgb", tmp_path / "thermal")

        with Image.open(tmp_path / "thermal" / "a.png") as written:
            assert np.array_equal(np.array(written), np.array(loaded(square)))

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
    def test_every_mode_of_pil_is_shown_as_rgb(self, loaded, pixels, mode):
        image = Image.fromarray(pixels)
        if mode == "I;16":
            image = Image.fromarray(np.array(image.convert("L")).astype(np.uint16) * 257)
        else:
            image = image.convert(mode)
        assert loaded(image).size == (WIDTH, HEIGHT)

    def test_turned_image_is_seen_upright(self, loaded, pixels, tmp_path):
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
        with Image.open(tmp_path / "turned.png") as image:
            assert loaded(image).size == (HEIGHT, WIDTH)

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (np.zeros((4, 4), np.uint8), r"uint8 \[height, width, 3\], but is uint8 \[4, 4\]"),
            (np.zeros((4, 4, 3)), r"but is float64 \[4, 4, 3\]"),
            (torch.zeros(4, 4), r"\[3, height, width\] .* but is \[4, 4\]"),
            (torch.zeros(0, 3, 4, 4), r"but is \[0, 3, 4, 4\]"),
            (torch.full((3, 4, 4), 2.0), r"in 0 .. 1, but is 2 .. 2"),
            (torch.full((3, 4, 4), torch.nan), r"in 0 .. 1, but is nan .. nan"),
            (torch.zeros(3, 4, 4, dtype=torch.int64), r"but is torch.int64"),
            (Image.new("F", (4, 4)), "floating-point pixels"),
            ("rgb.png", "but is str"),
        ],
    )
    def test_other_images_are_one_sentence(self, loaded, image, message):
        with pytest.raises(SettingsError, match=message):
            loaded(image)

    def test_celsius_needs_temperatures(self, loaded, model, pixels, tmp_path):
        with pytest.raises(SearchError, match="which hold no temperatures"):
            loaded.celsius(pixels)
        config = generator.load_config(model).model_copy(
            update={"temperatures": Temperatures(low=-10.0, high=50.0)}
        )
        weights = generator.load_weights(model).tensors
        generator.save(Location.of(tmp_path), config, weights)
        radiometric = ts.load_generator(tmp_path)
        celsius = radiometric.celsius(pixels)

        assert (celsius.dtype, celsius.shape) == (np.float32, (HEIGHT, WIDTH))
        gray = radiometric(pixels).astype(float)
        assert np.abs(celsius - (gray / 255 * 60 - 10)).max() <= 60 / 255

    def test_unknown_device_is_one_sentence(self, model):
        with pytest.raises(SettingsError, match="device must be one that this torch has"):
            ts.load_generator(model, device="abacus")


@pytest.fixture
def result(tmp_path):
    record = record_of(tmp_path / "search", objective="fid", architectures=("pix2pix", "wgan"))
    best = run_trial(record, {"fid": 4.0, "l1": 9.0}, {"fid": 2.0, "l1": 8.0})
    run_trial(record, 3.0, architecture="wgan", status="stopped")
    record.add(2, TrialConfig("wgan", {"width": 8}))
    list(trial_of(plan_of(record.output / "trials" / best.id, images=8)).evaluations())
    return ts.open_search(tmp_path / "search")


class TestSearchResult:
    def test_dataframe_has_a_row_for_each_trial(self, result):
        frame = result.dataframe()

        assert list(frame.index) == ["00000", "00001", "00002"]
        assert list(frame.architecture) == ["pix2pix", "wgan", "wgan"]
        assert frame.loc["00000", "objective.fid"] == 2.0
        assert frame.loc["00000", "metrics.l1"] == 8.0
        assert np.isnan(frame.loc["00001", "metrics.l1"])
        assert np.isnan(frame.loc["00002", "objective.fid"])
        assert frame.loc["00002", "parameters.width"] == 8

    def test_best_is_exported(self, result, tmp_path):
        assert result.best.id == "00000"
        assert [trial.id for trial in result.ranking] == ["00000", "00001"]
        folder = result.export(tmp_path / "model")

        assert generator.load_config(folder).trial == "00000"
        assert ts.load_generator(folder).size == SIZE

    def test_folder_without_a_search_is_one_sentence(self, tmp_path):
        with pytest.raises(SearchError, match="holds no search"):
            ts.open_search(tmp_path)


def test_prepare_and_evaluate(tmp_path):
    folders(tmp_path / "raw", count=40)
    manifest = ts.prepare(tmp_path / "raw", tmp_path / "data", size=SIZE, workers=1)
    model = save_untrained(tmp_path / "model")
    report = ts.evaluate(model, tmp_path / "data", features="efficientnet-lite0")

    assert manifest.size == SIZE
    assert report.dataset == manifest.digest
    assert "fd_efficientnet_lite0" in report.metrics
    assert report.baselines


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ts.prepare("raw", "data", size=33), "--size must be a power of two"),
        (lambda: ts.prepare("raw", "data", colour=1), "--colour is not a setting"),
        (lambda: ts.search(data="d", output="o", trials=0), "--trials must be at least 1"),
        (lambda: ts.search(data="d"), "--output is required"),
        (lambda: ts.search(output="o", config="c"), "config is a flag of the command line"),
        (lambda: ts.evaluate("m", "d", lpips=1), "--lpips is not a setting"),
    ],
)
def test_wrong_settings_are_one_sentence(call, message):
    with pytest.raises(SettingsError, match=message):
        call()
