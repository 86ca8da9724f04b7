"""The perceptual loss: what it measures, and that no search measures with its network."""

from pathlib import Path

import pytest
import torch
import yaml
from summaries import started_plan
from tiny_settings import SIZE, TINY, random_batches
from torchvision.models import VGG16_Weights, vgg16
from training_helpers import plan_of, trial_of

from thermal_search.architectures import build
from thermal_search.errors import SearchError, SettingsError, WeightsUnavailable
from thermal_search.networks.perceptual_loss import _load, perceptual_loss
from thermal_search.tuning.first_settings import read_first

ON = {"perceptual_network": "efficientnet-lite0"}


def images(size=SIZE, seed=0):
    return next(random_batches(seed, size=size, batch=2)).thermal


def loss(fake, real):
    return perceptual_loss("efficientnet-lite0", fake, real)


def test_equal_images_are_at_0_and_the_more_they_differ_the_larger_it_is():
    real = images()
    distances = [loss(real + strength * images(seed=1), real) for strength in (0, 0.1, 0.5)]

    assert distances[0] == 0
    assert 0.01 < distances[1] < distances[2] < 4


def test_generated_images_get_its_gradient():
    fake = images(seed=1).requires_grad_(True)
    loss(fake, images()).backward()

    assert fake.grad.isfinite().all()
    assert (fake.grad != 0).float().mean() > 0.9


def test_it_is_computed_in_float32_under_autocast():
    expected = loss(images(seed=1), images())
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(images(seed=1).bfloat16().float(), images()).dtype == torch.float32
        assert loss(images(seed=1), images()) == expected


@pytest.mark.parametrize("size", [4, 16])
def test_small_images_of_growing_networks_are_enlarged(size):
    fake, real = images(size, 1), images(size)
    factor = 32 // size

    def enlarged(thermal):
        return thermal.repeat_interleave(factor, 2).repeat_interleave(factor, 3)

    assert torch.allclose(loss(fake, real), loss(enlarged(fake), enlarged(real)))


def test_first_use_of_a_network_draws_nothing():
    _load.cache_clear()
    state = torch.get_rng_state()
    loss(images(), images())

    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["dcgan", "pix2pix", "thermalgan"])
def test_its_network_is_no_part_of_the_translator(name):
    on, off = (build(name, SIZE, TINY[name] | setting) for setting in (ON, {}))
    *_, turn = on.turns(random_batches())

    assert "perceptual" in turn.terms
    assert [*on.state_dict()] == [*off.state_dict()]
    assert len([*on.modules()]) == len([*off.modules()])


def test_thermalgan_compares_thermal_images_and_not_their_contrast():
    translator = build("thermalgan", SIZE, TINY["thermalgan"] | ON | {"perceptual_weight": 1.0})
    batch, contrasts = next(random_batches()), []
    translator.generator.contrast.register_forward_hook(lambda _, __, out: contrasts.append(out))
    *_, turn = translator.turns(iter([batch]))
    base = translator.base_of(batch.thermal)
    generated = (base + translator.config.contrast_range * contrasts[0]).clamp(-1, 1)

    assert turn.terms["perceptual"].item() == pytest.approx(
        loss(generated, batch.thermal).item(), rel=1e-4
    )


def test_weight_scales_its_term():
    def term(weight):
        torch.manual_seed(0)
        translator = build("dcgan", SIZE, TINY["dcgan"] | ON | {"perceptual_weight": weight})
        *_, turn = translator.turns(random_batches())
        return turn.terms["perceptual"].item()

    assert term(6.0) == pytest.approx(3 * term(2.0), rel=1e-4)


def test_trial_refuses_the_network_that_it_is_measured_with(tmp_path):
    with pytest.raises(
        SearchError,
        match=r"perceptual_network must not be a network that the search measures with, but is "
        r"efficientnet-lite0: choose another one, or other --features\.$",
    ):
        trial_of(plan_of(tmp_path, "dcgan", parameters=ON))


def choices(tmp_path, features, **changes):
    plan = started_plan(
        tmp_path / "search", architectures=("dcgan", "pix2pix"), features=features, **changes
    )
    return plan.search_space().spaces["dcgan"].space["perceptual_network"].choices


def test_search_leaves_out_the_network_that_it_measures_with(tmp_path):
    assert choices(tmp_path, "inception") == ("none", "efficientnet-lite0")
    assert choices(tmp_path, "efficientnet-lite0") == ("none",)


def test_fixed_value_is_kept_if_the_search_measures_with_another_network(tmp_path):
    fix = ("dcgan.perceptual_network=efficientnet-lite0",)

    assert choices(tmp_path, "inception", fix=fix) == ("efficientnet-lite0",)


@pytest.mark.parametrize(
    "flags",
    [
        {"fix": ("dcgan.perceptual_network=efficientnet-lite0",)},
        {"narrow": ("dcgan.perceptual_network=none|efficientnet-lite0",)},
    ],
)
def test_asking_for_the_network_that_a_search_measures_with_is_refused(tmp_path, flags):
    with pytest.raises(
        SettingsError,
        match=r"^dcgan\.perceptual_network must not be efficientnet-lite0, with which the search "
        r"measures: choose another network, or other --features\.$",
    ):
        choices(tmp_path, "efficientnet-lite0", **flags)


def test_first_setting_cannot_ask_for_it_either(tmp_path):
    file = tmp_path / "first.yaml"
    file.write_text(yaml.safe_dump([{"architecture": "dcgan", "parameters": ON}]))
    plan = started_plan(
        tmp_path / "search", architectures=("dcgan",), features="efficientnet-lite0"
    )

    with pytest.raises(SettingsError, match=r"perceptual_network must be one of none, but is"):
        read_first(file, plan.search_space().spaces)


def test_vgg_needs_its_weights_in_torchs_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    _load.cache_clear()
    with pytest.raises(
        WeightsUnavailable, match=r"perceptual_network vgg16 needs torchvision's weights in .*vgg16"
    ):
        perceptual_loss("vgg16", images(), images())
    file = tmp_path / "hub" / "checkpoints" / Path(VGG16_Weights.IMAGENET1K_V1.url).name
    file.parent.mkdir(parents=True)
    with torch.device("meta"):
        shapes = vgg16(weights=None).features[:23].state_dict()
    random = torch.Generator().manual_seed(0)
    torch.save(
        {
            f"features.{name}": torch.randn(value.shape, generator=random) * 0.05
            for name, value in shapes.items()
        },
        file,
    )

    assert perceptual_loss("vgg16", images(), images()) == 0
    assert perceptual_loss("vgg16", images(seed=1), images()) > 0.01
    _load.cache_clear()
