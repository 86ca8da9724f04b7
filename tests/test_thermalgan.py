import math

import pytest
import torch
from tiny_settings import BATCH, SIZE, TINY, random_batches
from torch import nn

from thermal_search.architectures import build
from thermal_search.architectures.thermalgan import even_levels
from thermal_search.images import Batch
from thermal_search.training.step import build_optimizers


def make(**parameters):
    torch.manual_seed(0)
    return build("thermalgan", SIZE, TINY["thermalgan"] | parameters)


def test_the_base_has_few_even_levels_each_the_mean_of_its_place():
    thermal = torch.rand(3, 1, SIZE, SIZE) * 2 - 1
    base = make().base_of(thermal)
    assert torch.equal(base, even_levels(thermal, 8))
    for image, original in zip(base, thermal, strict=True):
        levels = image.unique()
        assert len(levels) <= 8
        for level in levels:
            assert original[image == level].mean().item() == pytest.approx(level.item(), abs=1e-5)


def test_levels_are_equally_populated_and_even_pictures_survive():
    ramp = torch.linspace(-1, 1, SIZE * SIZE).view(1, 1, SIZE, SIZE)
    _, counts = even_levels(ramp, 8).unique(return_counts=True)
    assert counts.min() > 0.8 * SIZE * SIZE / 8
    flat = torch.full((1, 1, SIZE, SIZE), 0.3)

    assert torch.allclose(even_levels(flat, 8), flat, atol=1e-6)


def test_noise_does_not_tear_levels():
    torch.manual_seed(0)
    halves = torch.ones(1, 1, 64, 64)
    halves[..., :32] = -1
    base = even_levels(halves + 0.3 * torch.randn_like(halves), 2)
    far = base[..., :28], base[..., 36:]

    assert all(half.unique().numel() == 1 for half in far)
    noise = torch.randn(1, 1, 64, 64)

    def torn(image):
        return (image.diff(dim=3) != 0).float().mean()

    quantiles = noise.flatten().sort().values[torch.arange(1, 4) * 1024]
    assert torn(even_levels(noise, 4)) < 0.8 * torn(torch.searchsorted(quantiles, noise).float())


def test_bases_are_judged_at_two_sizes():
    translator = make()
    for judge in (translator.encoded_discriminator, translator.random_discriminator):
        assert len(judge.scales) == 2


def test_base_and_contrast_add_up_to_the_picture_within_the_range():
    translator = make(contrast_range=0.4)
    thermal = torch.rand(2, 1, SIZE, SIZE) * 2 - 1
    base = translator.base_of(thermal)
    contrast = ((thermal - base) / 0.4).clamp(-1, 1)
    within = (thermal - base).abs() < 0.4

    assert within.float().mean() > 0.2
    assert torch.allclose((base + 0.4 * contrast)[within], thermal[within], atol=1e-6)


def test_a_blurred_base_can_be_chosen():
    thermal = torch.rand(2, 1, SIZE, SIZE) * 2 - 1
    base = make(base="lowpass").base_of(thermal)

    assert base.std() < thermal.std() / 2
    assert base.mean().item() == pytest.approx(thermal.mean().item(), abs=0.05)


def test_the_contrast_is_not_empty():
    translator, batch = make(), next(random_batches())
    base = translator.base_of(batch.thermal)

    assert ((batch.thermal - base) / 0.25).clamp(-1, 1).std() > 1e-3


def test_different_latents_paint_different_bases():
    translator = make()
    translator.eval()
    for module in translator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    rgb = next(random_batches()).rgb
    one, other = translator.draw_latent(BATCH), translator.draw_latent(BATCH)
    base = translator.generator.base

    assert (base(rgb, one) - base(rgb, other)).abs().mean() > 1e-6


def test_the_latent_enters_every_encoder_layer_of_stage_one_and_none_of_stage_two():
    translator = make()
    latent = TINY["thermalgan"]["latent_size"]

    def inputs(network):
        return [layer[1].in_channels for layer in network.encoder]

    with_latent, without = inputs(translator.generator.base), inputs(translator.generator.contrast)
    assert with_latent[0] == 3 + latent
    assert [a - b for a, b in zip(with_latent[1:], without[1:], strict=True)] == [latent] * 4
    z, given = translator.draw_latent(2), []
    for layer in translator.generator.base.encoder:
        layer.register_forward_hook(lambda _, x, __: given.append(x[0][:, -latent:]))
    translator.generator.base(torch.zeros(2, 3, SIZE, SIZE), z)
    assert len(given) == 5
    assert all(torch.equal(seen, z[:, :, None, None].expand_as(seen)) for seen in given)


def test_stage_two_and_its_judge_see_base_rgb_and_contrast_in_that_order():
    translator, batch = make(), next(random_batches())
    seen, judged = [], []
    translator.generator.contrast.register_forward_hook(lambda _, x, __: seen.append(x[0]))
    translator.contrast_discriminator.register_forward_hook(lambda _, x, __: judged.append(x[0]))
    list(translator.turns(iter([batch])))
    base = translator.base_of(batch.thermal)

    assert torch.equal(seen[0], torch.cat([base, batch.rgb], 1))  # the true base
    assert len(judged) == 3
    assert all(pair.shape[1] == 5 and torch.equal(pair[:, :4], seen[0]) for pair in judged)
    assert torch.equal(judged[0][:, 4:], ((batch.thermal - base) / 0.25).clamp(-1, 1))


def test_translating_it_stands_on_its_own_base():
    translator = make().eval()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    seen = []
    translator.generator.contrast.register_forward_hook(lambda _, x, out: seen.append((x[0], out)))
    thermal = translator.translate(rgb, z)
    (given, contrast), base = seen[0], translator.generator.base(rgb, z)

    assert torch.equal(given, torch.cat([base, rgb], dim=1))
    assert torch.equal(thermal, (base + 0.25 * contrast).clamp(-1, 1))


def test_learning_on_its_own_base_can_be_mixed_in():
    translator, batch = make(predicted_base_share=1.0, dropout=0.0), next(random_batches())
    seen, painted = [], []
    translator.generator.contrast.register_forward_hook(lambda _, x, __: seen.append(x[0]))
    translator.generator.contrast.register_forward_hook(lambda _, __, out: painted.append(out))
    translator.begin_step(0, 1000)
    *_, turn = translator.turns(iter([batch]))
    # What is left to paint is the difference to that very base.
    contrast = ((batch.thermal - seen[0][:, :1]) / 0.25).clamp(-1, 1)
    expected = 100 * (painted[0] - contrast).abs().mean()
    assert turn.terms["l1"].item() == pytest.approx(expected.item(), rel=1e-4)

    assert not torch.allclose(seen[0][:, :1], translator.base_of(batch.thermal))
    assert not seen[0].requires_grad


def test_four_players_one_turn_each_in_order():
    turns = list(make().turns(random_batches()))

    assert [turn.player for turn in turns] == [
        "base_discriminators",
        "base",
        "contrast_discriminator",
        "contrast",
    ]
    assert set(turns[1].terms) == {"encoded", "random", "l1", "kl", "latent"}
    assert set(turns[3].terms) == {"adversarial", "l1"}


def test_half_the_batch_is_encoded_and_the_other_half_judges_the_random_one():
    translator, batch = make(), next(random_batches())
    encoded, judged = [], []
    translator.encoder.register_forward_hook(lambda _, x, __: encoded.append(x[0]))
    translator.random_discriminator.register_forward_hook(lambda _, x, __: judged.append(x[0]))
    list(translator.turns(iter([batch])))
    first, second = translator.base_of(batch.thermal).chunk(2)

    assert torch.equal(encoded[0], first)
    assert torch.equal(judged[0], second)


def test_finding_the_latent_again_does_not_move_the_encoder():
    translator = make()
    turns = translator.turns(random_batches())
    next(turns)
    turn = next(turns)
    turn.terms["latent"].backward()

    assert all(p.grad is None for p in translator.encoder.parameters())
    assert any(p.grad is not None for p in translator.generator.base.parameters())


def test_the_latent_is_drawn_given_and_looked_for_in_what_was_painted_from_it():
    translator, batch = make(latent_weight=3.0, base_l1_weight=2.0), next(random_batches())
    given, painted = [], []
    translator.generator.base.register_forward_hook(lambda _, x, out: given.append(x))
    translator.generator.base.register_forward_hook(lambda _, __, out: painted.append(out))
    turns = translator.turns(iter([batch]))
    next(turns)
    terms = next(turns).terms
    mean, log_variance = translator.encoder(translator.base_of(batch.thermal)[:2])
    (rgb, code), (other_rgb, drawn) = given

    assert torch.equal(rgb, batch.rgb[:2])
    assert torch.equal(other_rgb, rgb)
    # The code is drawn around what is encoded, as widely as is encoded.
    assert 0.1 < ((code - mean) / (0.5 * log_variance).exp()).std() < 2
    found = 3 * (translator.encoder(painted[1])[0] - drawn).abs().mean()
    assert terms["latent"].item() == pytest.approx(found.item(), rel=1e-4)
    l1 = 2 * (painted[0] - translator.base_of(batch.thermal)[:2]).abs().mean()
    assert terms["l1"].item() == pytest.approx(l1.item(), rel=1e-4)


def test_the_code_costs_its_divergence_from_the_prior():
    translator = make(kl_weight=1.0)
    latent = TINY["thermalgan"]["latent_size"]
    for layer, value in ((translator.encoder.mean, 2.0), (translator.encoder.log_variance, 0.0)):
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, value)
    turns = translator.turns(random_batches())
    next(turns)

    # Half of the squared mean, summed over the entries and averaged over the images.
    assert next(turns).terms["kl"].item() == pytest.approx(latent * 2.0, rel=1e-5)
    nn.init.constant_(translator.encoder.log_variance.bias, 1.0)
    turns = translator.turns(random_batches())
    next(turns)
    assert next(turns).terms["kl"].item() == pytest.approx(
        latent * (2 + (math.e - 2) / 2), rel=1e-5
    )


def test_an_odd_batch_is_refused():
    with pytest.raises(ValueError, match="even batch_size"):
        build("thermalgan", SIZE, TINY["thermalgan"] | {"batch_size": 3})


def test_what_the_range_cuts_off_is_watched_and_not_minimised():
    translator, batch = make(contrast_range=0.01), next(random_batches())
    _, _, turn, _ = translator.turns(iter([batch]))

    assert turn.logged["clipped_share"] > 0.5
    assert "clipped_share" not in turn.terms


def test_stage_two_drops_out_and_stage_one_does_not():
    generator = make().generator

    def dropouts(network):
        return sum("Dropout" in type(module).__name__ for module in network.modules())

    assert dropouts(generator.base) == 0
    assert dropouts(generator.contrast) > 0
    for network in (generator.base, generator.contrast):
        kinds = {type(m) for m in network.modules() if "Norm" in type(m).__name__}
        assert kinds == {nn.BatchNorm2d}


def test_both_stages_go_down_to_one_pixel():
    for network in (make().generator.base, make().generator.contrast):
        assert len(network.encoder) == 5  # 32 = 2 ** 5


def test_published_weights():
    config = build("thermalgan", 32, {"width": 4}).config
    weights = config.base_l1_weight, config.contrast_l1_weight, config.kl_weight
    assert (*weights, config.latent_weight) == (10, 100, 0.01, 0.5)
    recipes = {s.optimizer.defaults["lr"] for s in build_optimizers(make()).values()}
    assert recipes == {2e-4}


def test_it_needs_pairs():
    batch = next(random_batches())
    swapped = Batch(batch.rgb, batch.thermal.roll(1, 0))
    torch.manual_seed(0)
    *_, one = make().turns(iter([batch]))
    torch.manual_seed(0)
    *_, other = make().turns(iter([swapped]))

    assert one.terms["l1"] != other.terms["l1"]
