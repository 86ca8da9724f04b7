import pytest
import torch
from tiny_settings import SIZE, TINY, random_batches
from torch import nn

from thermal_search.architectures import build
from thermal_search.images import Batch
from thermal_search.training.optimizers import build_optimizers


def make(**parameters):
    torch.manual_seed(0)
    return build("unit", SIZE, TINY["unit"] | parameters)


def generators_turn(translator, batch=None):
    *_, turn = translator.turns(iter([batch or next(random_batches())]))
    return turn


def test_encoders_share_their_last_and_decoders_their_first_layers():
    translator = make()
    batch = next(random_batches())
    calls = {"shared_encoder": 0, "shared_decoder": 0}

    def count(name):
        def hook(*_):
            calls[name] += 1

        return hook

    for name in calls:
        getattr(translator.generator, name).register_forward_hook(count(name))
    translator.encode_rgb(batch.rgb)
    code = translator.encode_thermal(batch.thermal)
    translator.decode_rgb(code)
    translator.decode_thermal(code)

    assert calls == {"shared_encoder": 2, "shared_decoder": 2}
    assert sum(p.numel() for p in translator.generator.shared_encoder.parameters()) > 0


def test_changing_the_shared_encoder_changes_both_codes():
    translator, batch = make().eval(), next(random_batches())
    before = translator.encode_rgb(batch.rgb), translator.encode_thermal(batch.thermal)
    for parameter in translator.generator.shared_encoder.parameters():
        parameter.data += 0.1
    after = translator.encode_rgb(batch.rgb), translator.encode_thermal(batch.thermal)

    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_code_is_sampled_with_unit_variance_around_its_mean():
    translator, batch = make(), next(random_batches())
    codes = []
    translator.generator.shared_decoder.register_forward_hook(lambda _, x, __: codes.append(x[0]))
    list(translator.turns(iter([batch])))
    noise = codes[0] - translator.encode_rgb(batch.rgb)

    assert noise.std().item() == pytest.approx(1, abs=0.05)
    assert noise.mean().item() == pytest.approx(0, abs=0.05)


def test_step_reconstructs_translates_and_cycles_both_domains():
    translator = make()
    decoded = {"rgb": 0, "thermal": 0}

    def count(name):
        def hook(*_):
            decoded[name] += 1

        return hook

    translator.rgb_decoder.register_forward_hook(count("rgb"))
    translator.generator.thermal_decoder.register_forward_hook(count("thermal"))
    turn = generators_turn(translator)

    assert decoded == {"rgb": 3, "thermal": 3}
    assert set(turn.terms) == {
        "adversarial_thermal",
        "adversarial_rgb",
        "recon_rgb",
        "recon_thermal",
        "kl",
        "cycle_rgb",
        "cycle_thermal",
        "cycle_kl",
    }


def test_kl_term_is_the_mean_square_of_both_codes():
    translator, batch = make(kl_weight=1.0), next(random_batches())
    codes = translator.encode_rgb(batch.rgb), translator.encode_thermal(batch.thermal)
    expected = sum(code.square().mean().item() for code in codes)

    assert generators_turn(translator, batch).terms["kl"].item() == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize(
    ("weight", "terms"),
    [
        ("gan_weight", ["adversarial_thermal", "adversarial_rgb"]),
        ("recon_weight", ["recon_rgb", "recon_thermal"]),
        ("kl_weight", ["kl"]),
        ("cycle_weight", ["cycle_rgb", "cycle_thermal"]),
        ("cycle_kl_weight", ["cycle_kl"]),
    ],
)
def test_each_weight_scales_its_terms(weight, terms):
    def values(factor):
        translator = make(**{weight: factor})
        torch.manual_seed(1)
        turn = generators_turn(translator)
        return [turn.terms[name].item() for name in terms]

    assert values(6.0) == pytest.approx([3 * value for value in values(2.0)], rel=1e-4)


def test_default_weights_are_the_published_ones():
    config = build("unit", SIZE, {"generator_width": 4}).config
    weights = config.gan_weight, config.recon_weight, config.kl_weight
    assert (*weights, config.cycle_weight, config.cycle_kl_weight) == (1, 10, 0.01, 10, 0.01)


def test_discriminators_score_one_domain_at_several_scales():
    translator = make(scales=2)
    sizes = []
    for scale in translator.thermal_discriminator.scales:
        scale.register_forward_hook(lambda _, x, __: sizes.append(tuple(x[0].shape[1:])))
    translator.thermal_discriminator(next(random_batches()).thermal)

    assert sizes == [(1, SIZE, SIZE), (1, SIZE // 2, SIZE // 2)]
    assert translator.rgb_discriminator.scales[0].layers[1].in_channels == 3
    norms = [m for m in translator.rgb_discriminator.modules() if "Norm" in type(m).__name__]
    assert norms == []


def test_small_images_have_fewer_scales():
    scales = {
        size: len(
            build("unit", size, {"generator_width": 4, "discriminator_width": 4})
            .thermal_discriminator.scales
        )
        for size in (32, 64)
    }  # fmt: skip

    assert scales == {32: 2, 64: 3}


def test_loss_does_not_depend_on_which_frames_are_paired():
    # With the same frames in another order, only the noise changes the losses.
    translator, batch = make(), next(random_batches())
    means = []
    for thermal in (batch.thermal, batch.thermal.roll(1, 0)):
        losses = []
        for seed in range(12):
            torch.manual_seed(seed)
            turns = translator.turns(iter([Batch(batch.rgb, thermal)]))
            losses.append([turn.loss.item() for turn in turns])
        means.append(torch.tensor(losses).mean(0).tolist())

    assert means[0] == pytest.approx(means[1], rel=0.01)
    assert not translator.needs_pairs


def test_translation_is_deterministic():
    translator = make()
    rgb = next(random_batches()).rgb

    assert translator.draw_latent(4) is None
    assert torch.equal(translator.translate(rgb), translator.translate(rgb))


def test_both_turns_share_the_generated_images():
    translator = make()
    encoded = []
    translator.generator.rgb_encoder.register_forward_hook(lambda *_: encoded.append(1))
    list(translator.turns(random_batches()))

    assert len(encoded) == 2  # the RGB image and the generated one


def test_decoders_normalize_over_the_whole_image():
    norms = [m for m in make().generator.thermal_decoder.modules() if isinstance(m, nn.GroupNorm)]

    assert len(norms) == 2
    assert all(norm.num_groups == 1 for norm in norms)


def test_adam_has_weight_decay_and_learning_rates_halve():
    translator = make()
    for player_optimizer in build_optimizers(translator).values():
        assert player_optimizer.optimizer.defaults["weight_decay"] == 1e-4
        assert player_optimizer.optimizer.defaults["betas"] == (0.5, 0.999)
    for budget in (1000, 10**6):
        tenths = (0, 0.099, 0.1, 0.95)
        factors = [translator.learning_rate_factor(int(t * budget), budget) for t in tenths]
        assert factors == [1, 1, 0.5, 0.5**9]


def test_codes_are_sampled_and_each_term_compares_the_right_images():
    translator, batch = make(recon_weight=1.0, cycle_weight=1.0), next(random_batches())
    generator = translator.generator
    encoded, codes, samples, decoded = [], [], [], []
    generator.shared_encoder.register_forward_hook(lambda _, __, out: codes.append(out))
    generator.shared_decoder.register_forward_hook(lambda _, x, __: samples.append(x[0]))
    for encoder in (generator.rgb_encoder, translator.thermal_encoder):
        encoder.register_forward_hook(lambda _, x, __: encoded.append(x[0]))
    for decoder in (generator.thermal_decoder, translator.rgb_decoder):
        decoder.register_forward_hook(lambda _, __, out: decoded.append(out))
    discriminators_turn, turn = translator.turns(iter([batch]))
    terms = turn.terms
    fake_thermal, fake_rgb, rgb, thermal, cycled_rgb, cycled_thermal = decoded

    expected = [batch.rgb, batch.thermal, fake_thermal, fake_rgb]
    assert all(torch.equal(a, b) for a, b in zip(encoded, expected, strict=True))
    # The code of a real image is sampled twice (translation, reconstruction), of a fake once.
    for code, sample in zip([*codes[:2], *codes[:2], *codes[2:]], samples, strict=True):
        assert (sample - code).std().item() == pytest.approx(1, abs=0.05)
    for name, output, original in (
        ("recon_rgb", rgb, batch.rgb),
        ("recon_thermal", thermal, batch.thermal),
        ("cycle_rgb", cycled_rgb, batch.rgb),
        ("cycle_thermal", cycled_thermal, batch.thermal),
    ):
        expected = (output - original).abs().mean().item()
        assert terms[name].item() == pytest.approx(expected, rel=1e-4)
    divergence = sum(code.square().mean().item() for code in codes[2:])
    assert terms["cycle_kl"].item() == pytest.approx(0.01 * divergence, rel=1e-4)
    # The cycle loss trains the first translation too; the discriminators' loss no generator.
    for name, decoder in (
        ("cycle_rgb", generator.thermal_decoder),
        ("cycle_thermal", translator.rgb_decoder),
    ):
        weight = decoder[-2].weight
        assert torch.autograd.grad(terms[name], weight, retain_graph=True)[0].any()
        assert torch.autograd.grad(
            discriminators_turn.loss, weight, retain_graph=True, allow_unused=True
        ) == (None,)


def test_encoders_use_instance_normalization_and_decoders_nearest_upsampling():
    translator = make()
    norms = [m for m in translator.thermal_encoder if isinstance(m, nn.InstanceNorm2d)]
    modes = [m.mode for m in translator.rgb_decoder if isinstance(m, nn.Upsample)]

    assert len(norms) == 3
    assert modes == ["nearest", "nearest"]


def test_weights_start_with_hes_std():
    torch.manual_seed(0)
    weight = (
        build("unit", SIZE, {"generator_width": 16}).generator.shared_encoder[0].layers[1].weight
    )

    assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.02)
