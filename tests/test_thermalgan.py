import math

import pytest
import torch
from tiny_settings import BATCH, SIZE, TINY, random_batches
from torch import nn

from thermal_search.architectures import build
from thermal_search.architectures.thermalgan import average_levels
from thermal_search.images import Batch
from thermal_search.networks.unet import PerImageBatchNorm
from thermal_search.training.optimizers import build_optimizers


def make(**parameters):
    torch.manual_seed(0)
    return build("thermalgan", SIZE, TINY["thermalgan"] | parameters)


def test_base_has_few_levels_each_the_mean_of_its_pixels():
    thermal = torch.rand(3, 1, SIZE, SIZE) * 2 - 1
    base = make().base_of(thermal)
    assert torch.equal(base, average_levels(thermal, 8))
    for image, original in zip(base, thermal, strict=True):
        levels = image.unique()
        assert len(levels) <= 8
        for level in levels:
            assert original[image == level].mean().item() == pytest.approx(level.item(), abs=1e-5)


def test_levels_cover_equally_many_pixels_and_uniform_images_stay():
    ramp = torch.linspace(-1, 1, SIZE * SIZE).view(1, 1, SIZE, SIZE)
    _, counts = average_levels(ramp, 8).unique(return_counts=True)
    assert counts.min() > 0.8 * SIZE * SIZE / 8
    uniform = torch.full((1, 1, SIZE, SIZE), 0.3)

    assert torch.allclose(average_levels(uniform, 8), uniform, atol=1e-6)


def test_noise_does_not_fragment_levels():
    torch.manual_seed(0)
    halves = torch.ones(1, 1, 64, 64)
    halves[..., :32] = -1
    base = average_levels(halves + 0.3 * torch.randn_like(halves), 2)
    away_from_edge = base[..., :28], base[..., 36:]

    assert all(half.unique().numel() == 1 for half in away_from_edge)
    noise = torch.randn(1, 1, 64, 64)

    def edges(image):
        return (image.diff(dim=3) != 0).float().mean()

    quantiles = noise.flatten().sort().values[torch.arange(1, 4) * 1024]
    without_blur = torch.searchsorted(quantiles, noise).float()
    assert edges(average_levels(noise, 4)) < 0.8 * edges(without_blur)


def test_bases_are_scored_at_two_scales():
    translator = make()
    for discriminator in (translator.encoded_discriminator, translator.random_discriminator):
        assert len(discriminator.scales) == 2
        # BicycleGAN's release halves the width with the size.
        assert [scale.layers[0].out_channels for scale in discriminator.scales] == [4, 2]


def test_perfect_stages_translate_exactly_but_for_clipped_contrast():
    translator, batch = make(contrast_range=0.4), next(random_batches())
    base = translator.base_of(batch.thermal)
    discriminator_inputs = []
    translator.contrast_discriminator.register_forward_hook(
        lambda _, x, __: discriminator_inputs.append(x[0])
    )
    list(translator.turns(iter([batch])))
    real_contrast = discriminator_inputs[0][:, -1:]
    # Both stages return what they are trained to generate.
    translator.generator.base.register_forward_hook(lambda *_: base)
    translator.generator.contrast.register_forward_hook(lambda *_: real_contrast)
    thermal = translator.translate(batch.rgb)

    difference = batch.thermal - base
    is_within = difference.abs() < 0.4
    assert 0.2 < is_within.float().mean() < 1
    assert torch.allclose(thermal[is_within], batch.thermal[is_within], atol=1e-6)
    clipped = (base + 0.4 * difference.sign()).clamp(-1, 1)
    assert torch.allclose(thermal[~is_within], clipped[~is_within], atol=1e-6)


def test_lowpass_base_is_the_blurred_image():
    thermal = torch.rand(2, 1, SIZE, SIZE) * 2 - 1
    base = make(base_method="lowpass").base_of(thermal)

    assert base.std() < thermal.std() / 2
    assert base.mean().item() == pytest.approx(thermal.mean().item(), abs=0.05)


def test_real_contrast_is_not_zero():
    translator, batch = make(), next(random_batches())
    base = translator.base_of(batch.thermal)

    assert ((batch.thermal - base) / 0.25).clamp(-1, 1).std() > 1e-3


def test_different_latents_give_different_bases():
    translator = make()
    translator.eval()
    rgb = next(random_batches()).rgb
    z, other_z = translator.draw_latent(BATCH), translator.draw_latent(BATCH)
    base = translator.generator.base

    assert (base(rgb, z) - base(rgb, other_z)).abs().mean() > 1e-6


def test_latent_enters_every_encoder_layer_of_stage_one_only():
    translator = make()
    size = TINY["thermalgan"]["latent_size"]

    def in_channels(network):
        return [layer[1].in_channels for layer in network.encoder]

    with_latent = in_channels(translator.generator.base)
    without_latent = in_channels(translator.generator.contrast)
    assert with_latent[0] == 3 + size
    assert [a - b for a, b in zip(with_latent[1:], without_latent[1:], strict=True)] == [size] * 4
    z, inputs = translator.draw_latent(2), []
    for layer in translator.generator.base.encoder:
        layer.register_forward_hook(lambda _, x, __: inputs.append(x[0][:, -size:]))
    translator.generator.base(torch.zeros(2, 3, SIZE, SIZE), z)
    assert len(inputs) == 5
    assert all(torch.equal(x, z[:, :, None, None].expand_as(x)) for x in inputs)


def test_stage_two_takes_base_and_rgb_and_its_discriminator_also_contrast():
    translator, batch = make(), next(random_batches())
    inputs, scored = [], []
    translator.generator.contrast.register_forward_hook(lambda _, x, __: inputs.append(x[0]))
    translator.contrast_discriminator.register_forward_hook(lambda _, x, __: scored.append(x[0]))
    list(translator.turns(iter([batch])))
    base = translator.base_of(batch.thermal)

    assert torch.equal(inputs[0], torch.cat([base, batch.rgb], 1))  # the real base
    assert len(scored) == 3
    assert all(x.shape[1] == 5 and torch.equal(x[:, :4], inputs[0]) for x in scored)
    assert torch.equal(scored[0][:, 4:], ((batch.thermal - base) / 0.25).clamp(-1, 1))


def test_translation_adds_contrast_to_its_own_base():
    translator = make().eval()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    calls = []
    translator.generator.contrast.register_forward_hook(lambda _, x, out: calls.append((x[0], out)))
    thermal = translator.translate(rgb, z)
    (condition, contrast), base = calls[0], translator.generator.base(rgb, z)

    assert torch.equal(condition, torch.cat([base, rgb], dim=1))
    assert torch.equal(thermal, (base + 0.25 * contrast).clamp(-1, 1))


def test_stage_two_can_train_on_predicted_bases():
    translator = make(predicted_base_probability=1.0, dropout=0.0)
    batch, calls = next(random_batches()), []
    translator.generator.contrast.register_forward_hook(lambda _, x, out: calls.append((x[0], out)))
    translator.begin_step(0, 1000)
    *_, turn = translator.turns(iter([batch]))
    condition, fake = calls[0]
    base = condition[:, :1]
    # The real contrast is the difference to that very base.
    real = ((batch.thermal - base) / 0.25).clamp(-1, 1)
    expected = 100 * (fake - real).abs().mean()
    assert turn.terms["l1"].item() == pytest.approx(expected.item(), rel=1e-4)

    assert not torch.allclose(base, translator.base_of(batch.thermal))
    assert not condition.requires_grad


def test_four_players_take_one_turn_each_in_order():
    turns = list(make().turns(random_batches()))

    assert [turn.player for turn in turns] == [
        "base_discriminators",
        "base",
        "contrast_discriminator",
        "contrast",
    ]
    assert set(turns[1].terms) == {"encoded", "random", "l1", "kl", "latent"}
    assert set(turns[3].terms) == {"adversarial", "l1"}


def test_half_the_batch_is_encoded_and_random_bases_are_compared_with_the_other():
    translator, batch = make(), next(random_batches())
    encoded, scored = [], []
    translator.encoder.register_forward_hook(lambda _, x, __: encoded.append(x[0]))
    translator.random_discriminator.register_forward_hook(lambda _, x, __: scored.append(x[0]))
    list(translator.turns(iter([batch])))
    first, second = translator.base_of(batch.thermal).chunk(2)

    assert torch.equal(encoded[0], first)
    assert torch.equal(scored[0], second)


def test_latent_recovery_does_not_train_the_encoder():
    translator = make()
    turns = translator.turns(random_batches())
    next(turns)
    turn = next(turns)
    turn.terms["latent"].backward()

    assert all(p.grad is None for p in translator.encoder.parameters())
    assert any(p.grad is not None for p in translator.generator.base.parameters())


def test_latent_and_l1_terms_compare_the_right_codes_and_bases():
    translator, batch = make(latent_weight=3.0, base_l1_weight=2.0), next(random_batches())
    calls = []
    translator.generator.base.register_forward_hook(lambda _, x, out: calls.append((*x, out)))
    turns = translator.turns(iter([batch]))
    next(turns)
    terms = next(turns).terms
    real = translator.base_of(batch.thermal)[:2]
    mean, log_variance = translator.encoder(real)
    (rgb, code, encoded), (other_rgb, random_code, random) = calls

    assert torch.equal(rgb, batch.rgb[:2])
    assert torch.equal(other_rgb, rgb)
    # The code is sampled from the encoded normal distribution.
    assert 0.1 < ((code - mean) / (0.5 * log_variance).exp()).std() < 2
    latent = 3 * (translator.encoder(random)[0] - random_code).abs().mean()
    assert terms["latent"].item() == pytest.approx(latent.item(), rel=1e-4)
    l1 = 2 * (encoded - real).abs().mean()
    assert terms["l1"].item() == pytest.approx(l1.item(), rel=1e-4)


def test_kl_term_is_the_divergence_from_the_prior():
    translator = make(kl_weight=1.0)
    size = TINY["thermalgan"]["latent_size"]
    for layer, value in ((translator.encoder.mean, 2.0), (translator.encoder.log_variance, 0.0)):
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, value)
    turns = translator.turns(random_batches())
    next(turns)

    # Half of the squared mean, summed over the entries and averaged over the images.
    assert next(turns).terms["kl"].item() == pytest.approx(size * 2.0, rel=1e-5)
    nn.init.constant_(translator.encoder.log_variance.bias, 1.0)
    turns = translator.turns(random_batches())
    next(turns)
    assert next(turns).terms["kl"].item() == pytest.approx(size * (2 + (math.e - 2) / 2), rel=1e-5)


def test_odd_batch_size_is_refused():
    with pytest.raises(ValueError, match="even batch_size"):
        build("thermalgan", SIZE, TINY["thermalgan"] | {"batch_size": 3})


def test_clipped_fraction_is_logged_and_not_minimized():
    translator, batch = make(contrast_range=0.01), next(random_batches())
    _, _, turn, _ = translator.turns(iter([batch]))

    assert turn.logged["clipped_fraction"] > 0.5
    assert "clipped_fraction" not in turn.terms


def test_stage_two_has_dropout_and_stage_one_has_none():
    generator = make().generator

    def dropouts(network):
        return sum("Dropout" in type(module).__name__ for module in network.modules())

    assert dropouts(generator.base) == 0
    assert dropouts(generator.contrast) > 0


def test_stage_one_has_instance_and_stage_two_batch_normalization():
    generator = make().generator

    def kinds(network):
        return {type(m) for m in network.modules() if "Norm" in type(m).__name__}

    assert kinds(generator.base) == {nn.InstanceNorm2d}
    assert kinds(generator.contrast) == {PerImageBatchNorm}


@torch.no_grad()
@pytest.mark.parametrize(
    ("test_norm_stats", "is_as_in_training"), [("image", True), ("running", False)]
)
def test_stage_two_is_tested_with_each_images_statistics_or_with_running_averages(
    test_norm_stats, is_as_in_training
):
    translator = make(dropout=0.0, test_norm_stats=test_norm_stats)
    rgb = next(random_batches()).rgb[:1]
    z = translator.draw_latent(1)
    as_in_training = translator.train().translate(rgb, z)
    tested = translator.eval().translate(rgb, z)

    assert torch.allclose(tested, as_in_training, atol=1e-5) == is_as_in_training


@torch.no_grad()
def test_translation_does_not_depend_on_the_other_images_of_a_batch():
    translator, rgb = make(dropout=0.0).eval(), next(random_batches()).rgb
    z = translator.draw_latent(BATCH)
    alone = [translator.translate(rgb[i : i + 1], z[i : i + 1]) for i in range(BATCH)]

    assert torch.allclose(translator.translate(rgb, z), torch.cat(alone), atol=1e-6)


def test_both_stages_encode_down_to_one_pixel():
    for network in (make().generator.base, make().generator.contrast):
        assert len(network.encoder) == 5  # 32 = 2 ** 5


def test_default_settings_are_the_published_ones():
    config = build("thermalgan", 32, {"width": 4}).config
    weights = config.base_l1_weight, config.contrast_l1_weight, config.kl_weight
    assert (*weights, config.latent_weight) == (10, 100, 0.01, 0.5)
    assert {o.optimizer.defaults["lr"] for o in build_optimizers(make()).values()} == {2e-4}


def test_loss_depends_on_which_frames_are_paired():
    batch = next(random_batches())
    swapped = Batch(batch.rgb, batch.thermal.roll(1, 0))
    torch.manual_seed(0)
    *_, one = make().turns(iter([batch]))
    torch.manual_seed(0)
    *_, other = make().turns(iter([swapped]))

    assert one.terms["l1"] != other.terms["l1"]


def test_contrast_discriminator_can_have_scales_and_its_features_can_be_matched():
    translator = make(contrast_scales=2, feature_matching=True)
    *_, turn = translator.turns(random_batches())

    assert len(translator.contrast_discriminator.scales) == 2
    assert set(turn.terms) == {"adversarial", "l1", "feature_matching"}
    assert turn.terms["feature_matching"] > 0
