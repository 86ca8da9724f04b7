"""Exported generators, and the generators of trials: damaged or foreign ones are one sentence."""

import json
import re

import pytest
import torch
from generator_helpers import save_untrained
from safetensors.torch import save_file
from summaries import record_of, run_trial
from tiny_settings import SIZE, TINY
from training_helpers import plan_of, trial_of

from thermal_search import checkpoint, generator
from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.cli import main
from thermal_search.errors import SearchError
from thermal_search.export import export
from thermal_search.generator_shape import build_for
from thermal_search.storage import Location


def refusal(load):
    """The one sentence that loading ends with."""
    with pytest.raises(SearchError) as raised:
        load()
    sentence = str(raised.value)
    assert "\n" not in sentence
    return sentence


def assert_refused(folder, message):
    sentence = refusal(lambda: generator.load(folder))
    assert re.search(message, sentence), sentence


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_loaded_generator_generates_the_same_images(tmp_path, architecture):
    folder = save_untrained(tmp_path / "model", architecture)
    torch.manual_seed(0)
    saved = build(architecture, SIZE, TINY[architecture]).eval()
    loaded = generator.load(folder)

    images = []
    for translator in (saved, loaded):
        torch.manual_seed(1)
        rgb = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
        z = translator.draw_latent(2)
        with torch.inference_mode():
            images.append(translator.translate(rgb, z))
    assert torch.equal(*images)
    assert not loaded.training


def test_saved_config_is_loaded_unchanged(tmp_path):
    folder = save_untrained(tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())

    assert content["version"] == 5
    assert generator.load_config(folder).model_dump(mode="json") == content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, r"has version 2, but this release reads version 5: export it again\."),
        ({"version": None}, r"has version None, but this release reads version 5"),
        ({"size": "32"}, r"is damaged \(size: .*, not '32'\): export it again\."),
        ({"images": 1.5}, r"is damaged \(images: "),
        ({"parameters": None}, r"is damaged \(parameters: "),
        ({"metrics": {"fid": "low"}}, r"is damaged \(metrics\.fid: .*'low'\)"),
        ({"temperatures": {"low": 0.0}}, r"is damaged \(temperatures\.high: Field required\)"),
        ({"color": "red"}, r"is damaged \(color: .*'red'\)"),
        ({"architecture": "pix3pix"}, r"cannot be built \(.*Unknown architecture 'pix3pix'"),
        ({"size": 33}, r"cannot be built \(.*power of two"),
        ({"size": -64}, r"cannot be built \(.*power of two"),
        ({"parameters": {"speed": 1}}, r"cannot be built \(.*Unknown parameters.*speed"),
        ({"parameters": {"generator_width": "wide"}}, r"cannot be built \("),
        ({"parameters": {"generator_width": -4}}, r"cannot be built \("),
        ({"parameters": {"generator_width": 10**12}}, r"cannot be built \("),
        ({"parameters": {"generator_width": [4]}}, r"cannot be built \("),
        ({"parameters": {"generator_width": 8}}, r"does not describe the weights .* has shape"),
        ({"size": 64}, r"does not describe the weights that came with it \("),
        ({"architecture": "cyclegan"}, r"config\.json (does not describe|describes a generator)"),
    ],
)
def test_invalid_config_is_one_sentence(tmp_path, changes, message):
    folder = save_untrained(tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changes))

    assert_refused(folder, message)


@pytest.mark.parametrize("key", ["version", "architecture", "parameters", "size", "temperatures"])
def test_config_without_a_key_is_one_sentence(tmp_path, key):
    folder = save_untrained(tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    del content[key]
    (folder / "config.json").write_text(json.dumps(content))

    assert_refused(folder, rf"config\.json is damaged \({key}: Field required\): export it again\.")


@pytest.mark.parametrize("content", [b"{ cut off", b"[]", b"\xff\xfe", b""])
def test_config_that_is_no_json_object_is_one_sentence(tmp_path, content):
    folder = save_untrained(tmp_path / "model")
    (folder / "config.json").write_bytes(content)

    assert_refused(folder, r"config\.json is damaged \(.*\): export it again\.")


@pytest.mark.parametrize("name", ["config.json", "generator.safetensors"])
def test_missing_file_is_one_sentence(tmp_path, name):
    folder = save_untrained(tmp_path / "model")
    (folder / name).unlink()

    assert_refused(folder, r"holds no exported generator \(config\.json and generator\.safetensors")


def test_damaged_weights_are_one_sentence(tmp_path):
    folder = save_untrained(tmp_path / "model")
    (folder / "generator.safetensors").write_bytes(b"cut off")

    assert_refused(folder, r"generator\.safetensors cannot be read \(.*\): export it again\.")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda weights: weights.popitem(), "is missing"),
        (lambda weights: weights.update(spare=torch.zeros(1)), "spare is unknown"),
        (
            lambda weights: weights.update({next(iter(weights)): torch.zeros(1)}),
            r"has shape \[1\], not",
        ),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_weights_of_another_generator_are_one_sentence(tmp_path, edit, message):
    folder = save_untrained(tmp_path / "model")
    weights = generator.load(folder).generator.state_dict()
    edit(weights)
    save_file(weights, folder / "generator.safetensors")

    assert_refused(folder, rf"does not describe the weights that came with it \(.*{message}")


def test_commands_print_the_sentence(tmp_path):
    folder = save_untrained(tmp_path / "model")
    (folder / "config.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"config\.json is damaged"):
        main(["translate", str(folder), str(tmp_path), str(tmp_path / "thermal")])


@pytest.fixture
def search(tmp_path):
    """The output folder of a search with one evaluated trial."""
    record = record_of(tmp_path / "search", objective="fid")
    trial = run_trial(record, 2.0)
    list(trial_of(plan_of(record.output / "trials" / trial.id, images=8)).evaluations())
    return tmp_path / "search"


def test_best_generator_of_a_search_is_exported(search):
    folder = export(search)
    config = generator.load_config(folder)
    description, weights = checkpoint.load_generator(
        Location.of(search / "trials" / "00000" / "generator.pt")
    )

    assert (config.trial, config.objective, config.test_metrics) == ("00000", {"fid": 2.0}, {})
    assert dict(description).items() <= dict(config).items()
    for name, value in generator.load(folder).generator.state_dict().items():
        assert torch.equal(value, weights[name])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.pop("architecture"), r"architecture\s+Field required"),
        (lambda state: state.pop("generator"), r"KeyError"),
        (lambda state: state.update(size="32"), r"must be a generator that a search saved"),
        (lambda state: state.update(color="red"), r"must be a generator that a search saved"),
        (lambda state: state.update(generator=[1]), r"must be a generator that a search saved"),
        (lambda state: state.update(metrics=torch.ones(1)), r"must be a generator that a search"),
        (lambda state: state.update(architecture="pix3pix"), r"Unknown architecture 'pix3pix'"),
        (lambda state: state["generator"].popitem(), r"is missing"),
    ],
)
def test_damaged_generator_of_a_trial_is_one_sentence(search, damage, message):
    path = search / "trials" / "00000" / "generator.pt"
    state = torch.load(path, weights_only=True)
    damage(state)
    torch.save(state, path)

    sentence = refusal(lambda: export(search))
    assert re.search(message, sentence), sentence
    assert str(path) in sentence


@pytest.mark.parametrize("content", [b"cut off", b"", None])
def test_unreadable_generator_of_a_trial_is_one_sentence(search, content):
    path = search / "trials" / "00000" / "generator.pt"
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    assert str(path) in refusal(lambda: export(search))
    assert not (search / "generator").exists()


def test_folder_of_other_files_is_not_overwritten(search, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()

    assert "must be empty or an earlier export" in refusal(
        lambda: export(search, tmp_path / "photos")
    )


def test_largest_discriminators_fit_beside_a_small_generator(tmp_path):
    """Of all search spaces: 50 million numbers in all, and 3 million of the generator."""
    config = generator.load_config(save_untrained(tmp_path))
    changes = {"discriminator_width": 96, "patch_layers": 5, "scales": 3}
    parameters = {"generator_network": "resnet", "generator_width": 32} | changes
    description = config.model_copy(update={"parameters": parameters, "size": 256})
    translator = build_for(description, {"weights": torch.empty(3_000_000)})

    assert sum(value.numel() for value in translator.parameters()) > 45_000_000
