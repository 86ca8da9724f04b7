"""Generators as programs of torch.export and as ONNX, for programs without this package."""

import json
import os
import re
import subprocess
import sys

import jaxtyping
import numpy as np
import pytest
import scipy.stats
import torch
from generator_helpers import config_of, save_untrained
from PIL import Image
from summaries import record_of, run_trial
from tiny_settings import SIZE, TINY
from training_helpers import plan_of, trial_of

from thermal_search import generator
from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.cli import main
from thermal_search.data.manifest import read_manifest
from thermal_search.errors import ExportMismatch, SearchError, SettingsError
from thermal_search.export import export, parse_formats
from thermal_search.portable import programs
from thermal_search.portable.comparison import (
    MAX_DIFFERENCE,
    ComparisonImages,
    greatest_difference,
    require_equal,
)
from thermal_search.portable.files import write_formats
from thermal_search.portable.network import PortableGenerator, generate_with_inputs
from thermal_search.portable.priors import prior_of
from thermal_search.storage import Location

RESNET = {"generator_network": "resnet", "blocks": 1}
TRACED = ("biggan", "stylegan", "unit")
"""Both formats of these are written here: attention and spectral normalization, layers that growth
left behind, and any size. pix2pix, with dropout and per-image statistics, is exported as a whole.
ALL_FORMATS=1 writes every architecture."""
if os.environ.get("ALL_FORMATS"):
    TRACED = tuple(sorted(ARCHITECTURES))

INPUTS = {
    "cyclegan": ["rgb"],
    "pix2pix": ["rgb", "noise"],
    "thermalgan": ["rgb", "z", "noise"],
    "unit": ["rgb"],
}
"""Of all other architectures: rgb and z."""


@pytest.fixture(autouse=True)
def no_shape_checks():
    """The checks of annotated shapes, which only tests have, would fix the traced lengths."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def translator_of(architecture, size=SIZE, **parameters):
    torch.manual_seed(0)
    return build(architecture, size, TINY[architecture] | parameters).eval()


def images(count=3, size=SIZE):
    rgb = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return ComparisonImages(rgb, f"{count} test images")


def run_card(folder, section):
    """Runs the Python lines of a section of the model card where this package does not exist."""
    code = re.search(
        rf"## Load {re.escape(section)}.*?```python\n(.*?)```",
        (folder / "README.md").read_text(),
        re.S,
    )[1]
    lines = [line for line in code.splitlines() if line and not re.match("import|from", line)]
    assert len(lines) <= 5
    blocked = "import sys; sys.modules['thermal_search'] = None\n"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-P", "-c", blocked + code], cwd=folder, check=True, env=environment
    )
    with Image.open(folder / "thermal.png") as image:
        return np.array(image)


class TestFormats:
    @pytest.mark.parametrize("architecture", TRACED)
    def test_both_generate_what_the_trained_generator_does(self, tmp_path, architecture):
        trained = translator_of(architecture)
        written = write_formats(
            tmp_path, ["pt2", "onnx"], trained, config_of(architecture), images()
        )

        assert list(written.records) == ["safetensors", "pt2", "onnx"]
        for name, record in written.records.items():
            assert (tmp_path / record.file).is_file()
            assert record.difference <= (0 if name == "safetensors" else 1e-4)
            assert list(record.inputs) == INPUTS.get(architecture, ["rgb", "z"])

    def test_unused_layers_are_not_in_the_files(self):
        trained = translator_of("stylegan", start_resolution=4)
        assert trained.generator.growth.resolution == 4
        network = PortableGenerator(trained)
        names = set(programs.trace(network).state_dict)

        assert any("to_thermal.4." in name for name in names)
        assert not any("to_thermal.32." in name for name in names)

    def test_other_weights_are_a_mismatch(self):
        trained, other = translator_of("unit"), translator_of("unit")
        with torch.no_grad():
            other.generator.thermal_decoder[-2].bias.add_(0.1)
        difference = greatest_difference(trained, other, images().rgb)

        assert greatest_difference(trained, translator_of("unit"), images().rgb) == 0
        with pytest.raises(ExportMismatch, match=r"as pt2 differs .* nothing was written"):
            require_equal("pt2", difference, MAX_DIFFERENCE)

    def test_images_of_another_shape_are_a_mismatch(self):
        trained = translator_of("unit")
        with pytest.raises(ExportMismatch, match=r"returns images of shape"):
            greatest_difference(trained, lambda inputs: inputs["rgb"], images().rgb)


class TestPortableGenerator:
    @pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
    def test_generates_the_same_images_from_the_same_inputs(self, architecture):
        trained = translator_of(architecture)
        network = PortableGenerator(trained)
        thermal, inputs = generate_with_inputs(trained, images().rgb, seed=3)

        assert list(inputs) == INPUTS.get(architecture, ["rgb", "z"])
        torch.testing.assert_close(network(**inputs), thermal, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
    def test_latent_drawn_by_the_card_is_the_translators(self, architecture):
        trained = translator_of(architecture)
        prior, expected = (
            prior_of(trained),
            trained.draw_latent(1, torch.Generator().manual_seed(7)),
        )
        if expected is None:
            assert prior is None
            return
        names = {"torch": torch, "random": torch.Generator().manual_seed(7)}
        assert torch.equal(eval(prior.torch_code.format(size=expected.shape[1]), names), expected)
        names = {"numpy": np, "random": np.random.default_rng(7)}
        drawn = eval(prior.numpy_code.format(size=50_000), names)
        assert (drawn.shape, drawn.dtype) == ((1, 50_000), np.float32)
        many = torch.cat([trained.draw_latent(5_000, torch.Generator().manual_seed(7)).flatten()])
        assert drawn.mean() == pytest.approx(many.mean().item(), abs=0.05)
        assert drawn.std() == pytest.approx(many.std().item(), abs=0.05)

    def test_truncated_latent_is_drawn_truncated(self):
        trained = translator_of("biggan", truncation=0.5)
        prior = prior_of(trained)
        names = {"numpy": np, "scipy": scipy, "random": np.random.default_rng(0)}
        drawn = eval(prior.numpy_code.format(size=1000), names)

        assert "truncated to -0.5 .. 0.5" in prior.words
        assert 0.4 < np.abs(drawn).max() <= 0.5

    @pytest.mark.parametrize(
        ("architecture", "parameters", "multiple"),
        [
            ("cyclegan", {}, 4),
            ("unit", {}, 4),
            ("pix2pix", RESNET, 4),
            ("pix2pix", {"dropout": 0.0}, SIZE),
            ("pix2pix", {}, 0),
            ("dcgan", {}, 0),
            ("stylegan", {}, 0),
            ("cgan", {}, 0),
        ],
    )
    def test_sizes_that_the_network_can_have(self, architecture, parameters, multiple):
        assert (
            PortableGenerator(translator_of(architecture, **parameters)).size_multiple == multiple
        )


@pytest.fixture
def search(tmp_path):
    """The output folder of a search with one evaluated trial of pix2pix."""
    record = record_of(tmp_path / "search", objective="fid")
    baselines = {"inverted_grey": {"fid": 30.0}, "mean_thermal": {"fid": 90.0}}
    trial = run_trial(record, 2.0, baselines=baselines)
    list(trial_of(plan_of(record.output / "trials" / trial.id, images=8)).evaluations())
    return tmp_path / "search"


@pytest.fixture
def rgb_image():
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    return Image.fromarray(pixels)


def add_format(folder, name):
    """Adds a file that an earlier export, according to its config.json, has written."""
    config = json.loads((folder / "config.json").read_text())
    file = f"generator.{name}"
    config["formats"][name] = config["formats"]["safetensors"] | {"file": file}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / file).write_text("earlier")


class TestExport:
    def test_files_and_model_card_without_this_package(self, search, rgb_image, capsys):
        main(["export", str(search), "--format", "onnx,pt2"])
        folder = search / "generator"
        rgb_image.save(folder / "rgb.png")
        printed = capsys.readouterr().out
        config = generator.load_config(folder)
        card = (folder / "README.md").read_text()

        assert {path.name for path in folder.iterdir()} == {
            "README.md", "config.json", "generator.onnx", "generator.pt2",
            "generator.safetensors", "images.png", "rgb.png",
        }  # fmt: skip
        for record in config.formats.values():
            assert f"{record.file} generates" in printed
            assert record.compared_on == "8 random images (its dataset is out of reach)"
        for text in ("`digest`", "| Images shown in training | 8 |", "inverted grey", "MIT"):
            assert text in card
        # The dropout's noise is drawn by the card: with any, the images are alike.
        thermal = generator.load(folder)
        with torch.no_grad():
            rgb = torch.from_numpy(np.array(rgb_image)).permute(2, 0, 1)[None] / 127.5 - 1
            torch.manual_seed(0)
            expected = ((thermal.translate(rgb)[0, 0] + 1) * 127.5).numpy()
        for file in ("generator.pt2", "generator.onnx"):
            drawn = run_card(folder, file).astype(float)
            assert drawn.shape == (SIZE, SIZE)
            assert np.abs(drawn - expected).mean() < 25

    def test_frames_of_the_dataset_are_compared(self, dataset, tmp_path):
        record = record_of(tmp_path / "search", objective="fid", data=dataset)
        record.plan.replace(dataset_digest=read_manifest(dataset).digest).save()
        trial = run_trial(record, 2.0)
        list(trial_of(plan_of(record.output / "trials" / trial.id, images=8)).evaluations())
        folder = export(tmp_path / "search")

        compared = generator.load_config(folder).formats["safetensors"].compared_on
        assert re.fullmatch(r"\d validation frames", compared)

    def test_trial_is_chosen_by_its_id(self, search):
        record = record_of(search)
        worse = run_trial(record, 5.0)
        list(trial_of(plan_of(record.output / "trials" / worse.id, images=8)).evaluations())

        assert generator.load_config(export(search, trial=worse.id)).trial == worse.id
        assert generator.load_config(export(search)).trial == "00000"
        with pytest.raises(SearchError, match=r"--trial 7 must be a trial .*: 00000, 00001\."):
            export(search, trial="7")

    def test_earlier_formats_do_not_outlive_their_weights(self, search):
        folder = export(search)
        add_format(search / "generator", "pt2")
        export(search)

        assert not (search / "generator" / "generator.pt2").exists()
        assert list(generator.load_config(folder).formats) == ["safetensors"]

    @pytest.mark.parametrize("name", ["README.md", "generator.onnx", "images.png"])
    def test_file_of_somebody_else_in_an_export_is_kept(self, search, name):
        folder = save_untrained(search / "generator")
        (folder / name).write_text("mine")
        before = (folder / "generator.safetensors").read_bytes()
        with pytest.raises(SearchError, match=rf"{name} exists and was not written by export"):
            export(search)

        assert (folder / name).read_text() == "mine"
        assert (folder / "generator.safetensors").read_bytes() == before

    def test_failed_export_leaves_the_earlier_one(self, search, monkeypatch):
        folder = export(search)
        before = {path.name: path.read_bytes() for path in folder.local.iterdir()}
        written = []

        def full_disk(source, target):
            written.append(target)
            if len(written) == 3:
                raise OSError(28, "No space left on device")
            target.write(source.read())

        monkeypatch.setattr("thermal_search.export.shutil.copyfileobj", full_disk)
        with pytest.raises(OSError, match="No space"):
            export(search)

        assert {path.name: path.read_bytes() for path in folder.local.iterdir()} == before

    def test_killed_export_is_refused_by_readers_and_can_be_repeated(self, search, monkeypatch):
        folder = export(search)
        add_format(search / "generator", "pt2")
        delete = Location.delete

        def killed(self):
            if self.name == "generator.pt2":
                raise KeyboardInterrupt
            delete(self)

        with monkeypatch.context() as patch:
            patch.setattr(Location, "delete", killed)
            with pytest.raises(KeyboardInterrupt):
                export(search)
        with pytest.raises(SearchError, match="has version 0"):
            generator.load(folder)
        export(search)

        assert generator.load(folder)
        assert not (folder / "generator.pt2").exists()

    @pytest.mark.parametrize("text", ["", "torchscript", "pt2,jit"])
    def test_unknown_format_is_one_sentence(self, text):
        assert parse_formats(" onnx,pt2") == ("pt2", "onnx")
        with pytest.raises(SettingsError, match="--format must be safetensors, pt2, onnx"):
            parse_formats(text)

    def test_missing_package_is_one_sentence(self, search, monkeypatch):
        monkeypatch.setattr(programs.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(
            SearchError, match=r"needs onnx, .* pip install 'thermal-search\[onnx\]'"
        ):
            export(search, formats=["onnx"])

    def test_file_of_other_weights_is_not_written(self, search, monkeypatch):
        serialize = generator.serialize_weights

        def faulty(weights):
            return serialize({name: value + 0.01 for name, value in weights.items()})

        monkeypatch.setattr(generator, "serialize_weights", faulty)
        with pytest.raises(ExportMismatch, match="as safetensors differs"):
            export(search)

        assert not (search / "generator").exists()
