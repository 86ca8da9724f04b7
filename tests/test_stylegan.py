import itertools

import pytest
import torch
import torch.nn.functional as F
from tiny_settings import BATCH, SIZE, TINY, random_batches

from thermal_search.architectures import build
from thermal_search.architectures.stylegan import Styled
from thermal_search.losses import r1_penalty
from thermal_search.networks.progressive import (
    Blur,
    EqualizedLinear,
    Growth,
    MinibatchStd,
    ProgressiveNetwork,
)
from thermal_search.training.step import build_optimizers


def make(**parameters):
    torch.manual_seed(0)
    translator = build("stylegan", SIZE, TINY["stylegan"] | parameters)
    translator.generator.growth = translator.discriminator.growth = Growth(SIZE, 1.0)
    return translator


def test_the_mapping_has_eight_slow_layers():
    mapping = build("stylegan", SIZE, {"channel_base": 64}).generator.map
    layers = [m for m in mapping.layers if isinstance(m, EqualizedLinear)]

    assert len(layers) == 8
    assert all(layer.lr_multiplier == 0.01 for layer in layers)
    assert layers[1].weight.std().item() == pytest.approx(100, rel=0.05)
    # Scaled down when used: the signal itself is of unit size.
    assert (layers[1].weight * layers[1].scale).std().item() == pytest.approx(
        (2 / 512) ** 0.5, rel=0.05
    )


def test_the_latent_enters_through_styles_alone():
    translator = make().eval()
    rgb = next(random_batches()).rgb
    one, other = translator.draw_latent(BATCH), translator.draw_latent(BATCH)
    assert not torch.equal(translator.translate(rgb, one), translator.translate(rgb, other))
    for styled in translator.modules():
        if isinstance(styled, Styled):
            styled.style.weight.data.zero_()

    assert torch.equal(translator.translate(rgb, one), translator.translate(rgb, other))


def test_synthesis_starts_from_a_learned_constant():
    translator = make()
    *_, turn = translator.turns(random_batches())
    turn.loss.backward(inputs=list(translator.generator.parameters()))

    assert translator.generator.constant.shape[2:] == (4, 4)
    assert translator.generator.constant.grad.abs().sum() > 0


def test_a_style_sets_the_mean_and_the_spread_of_each_channel():
    styled = Styled(3, 2, 8, has_noise=True)
    styled.style.weight.data.zero_()
    styled.style.bias.data = torch.tensor([1.0, 0.0, -0.5, 7.0, 0.0, 0.0])
    features = styled(torch.randn(2, 3, 8, 8) * 5 + 3, torch.zeros(2, 2))

    assert features.mean((2, 3))[0].tolist() == pytest.approx([7, 0, 0], abs=1e-3)
    spread = features.std((2, 3), correction=0)[0]
    assert spread.tolist() == pytest.approx([2, 1, 0.5], abs=1e-2)
    plain = Styled(3, 2, 8, has_noise=False)
    plain.style.weight.data.zero_()
    given = torch.randn(2, 3, 8, 8)
    rectified = torch.where(given > 0, given, 0.2 * given)
    centered = rectified - rectified.mean((2, 3), keepdim=True)
    expected = centered / rectified.std((2, 3), correction=0, keepdim=True)
    assert torch.allclose(plain(given, torch.zeros(2, 2)), expected, atol=1e-3)
    assert plain.style.scale == pytest.approx(2**-0.5)  # no rectifier follows: gain 1


def test_styles_start_at_scale_one_and_shift_zero():
    for module in make().modules():
        if isinstance(module, Styled):
            assert module.style.bias.abs().max() == 0


def test_at_first_noise_says_nothing_then_as_much_as_is_learned():
    translator = make(style_mixing=0.0)
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)

    assert torch.equal(translator.translate(rgb, z), translator.translate(rgb, z))
    for module in translator.modules():
        if isinstance(module, Styled):
            module.noise_strength.data.fill_(0.5)
    assert not torch.equal(translator.translate(rgb, z), translator.translate(rgb, z))
    translator.eval()
    assert torch.equal(translator.translate(rgb, z), translator.translate(rgb, z))


def test_noise_is_one_channel_that_each_picture_draws_by_itself():
    styled = Styled(3, 2, 8, has_noise=True)
    styled.style.weight.data.zero_()
    styled.noise_strength.data = torch.tensor([1.0, 1.0, 2.0]).view(3, 1, 1)
    painted = styled(torch.zeros(2, 3, 8, 8), torch.zeros(2, 2))

    # From nothing but noise, and normalized after: alike in all channels.
    assert torch.allclose(painted[:, 0], painted[:, 1])
    assert torch.allclose(painted[:, 0], painted[:, 2], atol=1e-3)
    assert not torch.allclose(painted[0], painted[1], atol=0.1)


def test_each_layer_has_its_own_noise_when_judged():
    noises = [m.noise for m in make().modules() if isinstance(m, Styled)]
    alike = [torch.equal(a, b) for a, b in itertools.combinations(noises, 2) if a.shape == b.shape]

    assert len(alike) == 4
    assert not any(alike)


def test_without_noise_there_is_none_to_learn():
    names = [name for name, _ in make(noise=False).named_parameters()]

    assert not [name for name in names if "noise" in name]


def test_later_layers_often_take_another_latents_style():
    translator = make(style_mixing=1.0)
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    crossings = set()
    for seed in range(40):
        torch.manual_seed(seed)
        styles = list(translator.generator._styles(rgb, z, layers=8))
        same = [torch.equal(style, styles[0]) for style in styles]
        assert all(torch.equal(style, styles[-1]) for style in styles[same.index(False) :])
        crossing = same.index(False)
        assert 1 <= crossing < 8
        assert same == [True] * crossing + [False] * (8 - crossing)
        crossings.add(crossing)
    assert crossings == set(range(1, 8))
    torch.manual_seed(0)
    often = make(style_mixing=0.7).generator
    drawn = (list(often._styles(rgb, z, layers=8)) for _ in range(300))
    mixed = [not torch.equal(styles[0], styles[-1]) for styles in drawn]
    assert sum(mixed) == pytest.approx(210, abs=30)
    assert len(set(translator.eval().generator._styles(rgb, z, layers=8))) == 1
    plain = list(make(style_mixing=0.0).generator._styles(rgb, z, layers=8))
    assert all(style is plain[0] for style in plain)


def test_a_growing_network_mixes_only_layers_it_has():
    translator = make(style_mixing=1.0)
    translator.generator.growth = Growth(4, 1.0)
    used = []
    for styled in translator.modules():
        if isinstance(styled, Styled):
            styled.register_forward_hook(lambda _, x, __: used.append(x[1]))
    for _ in range(5):
        translator.generator(next(random_batches()).rgb, translator.draw_latent(BATCH))

    assert len(used) == 2 * 5
    assert not any(torch.equal(*pair) for pair in zip(used[::2], used[1::2], strict=True))


def test_truncation_holds_styles_to_their_mean_when_judged_only():
    translator = make(truncation=0.0)
    rgb = next(random_batches()).rgb
    one, other = translator.draw_latent(BATCH), translator.draw_latent(BATCH)
    assert not torch.equal(translator.translate(rgb, one), translator.translate(rgb, other))
    translator.eval()
    assert torch.equal(translator.translate(rgb, one), translator.translate(rgb, other))
    assert build("stylegan", SIZE, {"channel_base": 64}).config.truncation == 1


def test_the_mean_style_moves_slowly_to_what_was_mapped():
    mapping = make().generator.map
    mapping.remember(torch.ones(4, 8))

    assert mapping.running_w.tolist() == pytest.approx([0.005] * 8)
    # The first latent's styles only, whatever it is mixed with.
    translator = make(style_mixing=1.0)
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    translator.generator._styles(rgb, z, layers=8)
    expected = 0.005 * translator.generator.map(rgb, z).mean(0)
    assert torch.allclose(translator.generator.map.running_w, expected, atol=1e-6)


def test_the_style_sees_the_rgb_picture_when_asked_to():
    rgb, z = next(random_batches()).rgb, torch.randn(BATCH, 8)
    seeing, blind = make().generator.map, make(condition_mapping=False).generator.map

    assert not torch.equal(seeing(rgb, z), seeing(-rgb, z))
    assert torch.equal(blind(rgb, z), blind(-rgb, z))


def test_the_mapping_bends_and_does_not_feel_how_long_a_latent_is():
    mapping, rgb, z = make().generator.map, next(random_batches()).rgb, torch.randn(BATCH, 8)

    assert torch.allclose(mapping(rgb, z), mapping(rgb, 10 * z), atol=1e-5)
    kinds = [type(layer).__name__ for layer in mapping.layers]
    assert kinds == ["EqualizedLinear", "LeakyReLU"] * 2
    layer = EqualizedLinear(3, 2, lr_multiplier=0.01)
    layer.bias.data.fill_(1.0)
    assert layer(torch.zeros(1, 3)).tolist() == [pytest.approx([0.01] * 2)]


def test_r1_of_a_linear_score_is_known():
    slope = torch.tensor([3.0, -4.0]).view(1, 1, 1, 2)
    real = torch.rand(6, 1, 1, 2, requires_grad=True)

    assert r1_penalty((slope * real).sum((1, 2, 3)), real).item() == pytest.approx(25)


def test_the_penalty_is_half_gamma_times_r1_and_teaches_the_first_layer():
    def penalty(gamma):
        translator = make(r1_gamma=gamma)
        turn = next(translator.turns(random_batches()))
        turn.terms["penalty"].backward()
        assert translator.discriminator.eyes[str(SIZE)].weight.grad.abs().sum() > 0
        return turn.terms["penalty"].item()

    assert penalty(20.0) == pytest.approx(2 * penalty(10.0), rel=1e-4)


class Product(ProgressiveNetwork):
    """Scores a pair by the product of its red and its thermal channel: with the RGB image held
    fixed, its slope at any thermal image is the red channel; squared, it tells where it is."""

    def __init__(self):
        super().__init__(Growth(SIZE, 1.0))

    def forward(self, rgb, thermal):
        return (rgb[:, 0] * thermal[:, 0].square() / 2).sum((1, 2))


def test_the_slope_is_that_at_real_pictures_by_the_thermal_picture_alone():
    translator, batch = make(r1_gamma=3.0), next(random_batches())
    translator.discriminator = Product()
    turn = next(translator.turns(iter([batch])))
    slope = (batch.rgb[:, 0] * batch.thermal[:, 0]).flatten(1)

    assert turn.terms["penalty"].item() == pytest.approx(
        3 / 2 * slope.square().sum(1).mean().item(), rel=1e-4
    )


def test_the_penalty_is_taken_in_float32_under_bf16():
    translator, dtypes = make(), []
    translator.discriminator.eyes[str(SIZE)].register_forward_hook(
        lambda _, __, out: dtypes.append(out.dtype)
    )
    with torch.autocast("cpu", torch.bfloat16):
        next(translator.turns(random_batches()))

    assert dtypes == [torch.bfloat16, torch.float32]


def test_the_lazy_penalty_is_rare_and_as_much_heavier():
    translator, optimizers = make(r1_every=4), None
    rows = []
    for step in range(5):
        translator.begin_step(990 + step, 1000)
        for turn in translator.turns(random_batches()):
            if turn.player == "discriminator":
                rows.append("penalty" in turn.terms)
    optimizers = build_optimizers(translator)
    every = next(make(r1_every=1).turns(random_batches())).terms["penalty"]
    fourth = next(make(r1_every=4).turns(random_batches())).terms["penalty"]

    assert rows == [True, False, False, False, True]
    other = make(r1_every=4)
    other.load_state_dict(translator.state_dict())
    assert other.steps == translator.steps == 5
    assert fourth.item() == pytest.approx(4 * every.item(), rel=1e-4)
    recipe = optimizers["discriminator"].optimizer.defaults
    assert recipe["lr"] == pytest.approx(1e-3 * 4 / 5)
    assert recipe["betas"][1] == pytest.approx(0.99 ** (4 / 5))


def test_the_discriminator_blurs_and_the_filter_keeps_the_level():
    translator = make()
    assert any(isinstance(m, Blur) for m in translator.discriminator.modules())
    inside = Blur()(torch.ones(1, 2, 8, 8))[:, :, 1:-1, 1:-1]

    assert torch.allclose(inside, torch.ones_like(inside))
    point = torch.zeros(1, 1, 3, 3)
    point[0, 0, 1, 1] = 16
    assert Blur()(point)[0, 0].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    blurred = []
    translator.generator.blur.register_forward_hook(lambda _, x, __: blurred.append(x[0].shape[-1]))
    translator.translate(next(random_batches()).rgb)
    assert blurred == [8, 16, 32]


def test_the_filters_first_and_second_derivatives():
    features = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    blur = Blur().double()

    def cubed(features):  # so that the second derivative is one
        return blur(features) ** 3

    assert torch.autograd.gradcheck(cubed, features)
    assert torch.autograd.gradgradcheck(cubed, features)
    with torch.autocast("cpu", torch.bfloat16):  # a network's float32 layers stay what they are
        assert Blur()(torch.ones(1, 1, 4, 4)).dtype == torch.float32


def test_the_discriminator_compares_four_images():
    head = make().discriminator.head

    assert isinstance(head[0], MinibatchStd)
    assert head[0].group == 4


def test_a_new_resolution_begins_as_the_enlarged_old_one():
    translator = make().eval()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    translator.generator.growth = Growth(8, 1.0)
    old = translator.generator(rgb, z)
    translator.generator.growth = Growth(16, 0.0)

    assert torch.equal(translator.generator(rgb, z), F.interpolate(old, scale_factor=2))


def test_optimizers_start_afresh_when_the_resolution_doubles():
    translator = build("stylegan", SIZE, TINY["stylegan"])

    assert sum(translator.begin_step(images, 1000) for images in range(0, 1000, 10)) == 3


def test_no_norm_layers_in_the_discriminator():
    assert not [m for m in make().discriminator.modules() if "Norm" in type(m).__name__]


def test_it_grows_when_asked_to():
    translator = build("stylegan", SIZE, TINY["stylegan"] | {"start_resolution": 8})
    assert translator.generator.growth == Growth(8, 1.0)
    assert build(
        "stylegan", SIZE, TINY["stylegan"] | {"growing": False}
    ).generator.growth == Growth(SIZE, 1.0)
