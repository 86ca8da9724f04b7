import itertools

import pytest
import torch
import torch.nn.functional as F
from tiny_settings import BATCH, SIZE, TINY, random_batches

from thermal_search.architectures import build
from thermal_search.architectures.stylegan import LayerEpilogue
from thermal_search.losses import r1_penalty
from thermal_search.networks.progressive import (
    Blur,
    EqualizedLinear,
    Growth,
    MinibatchStd,
    ProgressiveNetwork,
)
from thermal_search.training.optimizers import build_optimizers


def make(**parameters):
    torch.manual_seed(0)
    translator = build("stylegan", SIZE, TINY["stylegan"] | parameters)
    translator.generator.growth = translator.discriminator.growth = Growth(SIZE, 1.0)
    return translator


def test_mapping_network_has_eight_layers_with_a_small_learning_rate():
    mapping = build("stylegan", SIZE, {"channel_base": 64}).generator.mapping
    layers = [m for m in mapping.layers if isinstance(m, EqualizedLinear)]

    assert len(layers) == 8
    assert all(layer.lr_multiplier == 0.01 for layer in layers)
    assert layers[1].weight.std().item() == pytest.approx(100, rel=0.05)
    # Scaled in the forward pass, so that the signal keeps its size.
    assert (layers[1].weight * layers[1].scale).std().item() == pytest.approx(
        (2 / 512) ** 0.5, rel=0.05
    )


def test_latent_enters_through_styles_alone():
    translator = make().eval()
    rgb = next(random_batches()).rgb
    one, other = translator.draw_latent(BATCH), translator.draw_latent(BATCH)
    assert not torch.equal(translator.translate(rgb, one), translator.translate(rgb, other))
    for module in translator.modules():
        if isinstance(module, LayerEpilogue):
            module.style.weight.data.zero_()

    assert torch.equal(translator.translate(rgb, one), translator.translate(rgb, other))


def test_synthesis_starts_from_a_learned_constant():
    translator = make()
    *_, turn = translator.turns(random_batches())
    turn.loss.backward(inputs=list(translator.generator.parameters()))

    assert translator.generator.constant.shape[2:] == (4, 4)
    assert translator.generator.constant.grad.abs().sum() > 0


def test_style_sets_the_mean_and_std_of_each_channel():
    epilogue = LayerEpilogue(3, 2, 8, has_noise=True)
    epilogue.style.weight.data.zero_()
    epilogue.style.bias.data = torch.tensor([1.0, 0.0, -0.5, 7.0, 0.0, 0.0])
    output = epilogue(torch.randn(2, 3, 8, 8) * 5 + 3, torch.zeros(2, 2))

    assert output.mean((2, 3))[0].tolist() == pytest.approx([7, 0, 0], abs=1e-3)
    std = output.std((2, 3), correction=0)[0]
    assert std.tolist() == pytest.approx([2, 1, 0.5], abs=1e-2)


def test_epilogue_normalizes_after_the_leaky_relu():
    epilogue = LayerEpilogue(3, 2, 8, has_noise=False)
    epilogue.style.weight.data.zero_()
    features = torch.randn(2, 3, 8, 8)
    activated = torch.where(features > 0, features, 0.2 * features)
    centered = activated - activated.mean((2, 3), keepdim=True)
    expected = centered / activated.std((2, 3), correction=0, keepdim=True)

    assert torch.allclose(epilogue(features, torch.zeros(2, 2)), expected, atol=1e-3)
    assert epilogue.style.scale == pytest.approx(2**-0.5)  # no activation follows: gain 1


def test_style_biases_start_at_zero():
    for module in make().modules():
        if isinstance(module, LayerEpilogue):
            assert module.style.bias.abs().max() == 0


def test_noise_starts_at_zero_and_is_fixed_outside_training():
    translator = make(style_mixing_probability=0.0)
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)

    assert torch.equal(translator.translate(rgb, z), translator.translate(rgb, z))
    for module in translator.modules():
        if isinstance(module, LayerEpilogue):
            module.noise_strength.data.fill_(0.5)
    assert not torch.equal(translator.translate(rgb, z), translator.translate(rgb, z))
    translator.eval()
    assert torch.equal(translator.translate(rgb, z), translator.translate(rgb, z))


def test_noise_is_one_channel_and_differs_between_images():
    epilogue = LayerEpilogue(3, 2, 8, has_noise=True)
    epilogue.style.weight.data.zero_()
    epilogue.noise_strength.data = torch.tensor([1.0, 1.0, 2.0]).view(3, 1, 1)
    output = epilogue(torch.zeros(2, 3, 8, 8), torch.zeros(2, 2))

    # The normalization removes the strength, so all channels are equal.
    assert torch.allclose(output[:, 0], output[:, 1])
    assert torch.allclose(output[:, 0], output[:, 2], atol=1e-3)
    assert not torch.allclose(output[0], output[1], atol=0.1)


def test_each_layer_has_its_own_fixed_noise():
    noises = [m.noise for m in make().modules() if isinstance(m, LayerEpilogue)]
    is_equal = [
        torch.equal(a, b) for a, b in itertools.combinations(noises, 2) if a.shape == b.shape
    ]

    assert len(is_equal) == 4
    assert not any(is_equal)


def test_noise_can_be_left_out():
    names = [name for name, _ in make(noise=False).named_parameters()]

    assert not [name for name in names if "noise" in name]


def styles_of_layers(translator):
    """The w that each layer of the generator in use takes in one forward pass."""
    styles = []
    handles = [
        module.register_forward_hook(lambda _, x, __: styles.append(x[1]))
        for module in translator.modules()
        if isinstance(module, LayerEpilogue)
    ]
    with torch.no_grad():
        translator.generator(next(random_batches()).rgb, torch.ones(BATCH, 8))
    for handle in handles:
        handle.remove()
    return styles


def test_style_mixing_switches_to_another_w_at_a_random_layer():
    translator = make(style_mixing_probability=1.0)
    crossovers = set()
    for seed in range(40):
        torch.manual_seed(seed)
        styles = styles_of_layers(translator)
        is_first = [torch.equal(w, styles[0]) for w in styles]
        crossover = is_first.index(False)
        assert is_first == [True] * crossover + [False] * (8 - crossover)
        assert all(torch.equal(w, styles[-1]) for w in styles[crossover:])
        crossovers.add(crossover)

    assert crossovers == set(range(1, 8))


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.7, 50, 90)])
def test_style_mixing_has_its_probability(probability, low, high):
    translator = make(style_mixing_probability=probability)
    passes = [styles_of_layers(translator) for _ in range(100)]
    mixed = sum(not torch.equal(styles[0], styles[-1]) for styles in passes)

    assert low <= mixed <= high


def test_style_mixing_is_off_outside_training():
    styles = styles_of_layers(make(style_mixing_probability=1.0).eval())

    assert len(styles) == 8
    assert all(torch.equal(w, styles[0]) for w in styles)


def test_style_mixing_crosses_within_the_layers_in_use():
    translator = make(style_mixing_probability=1.0)
    translator.generator.growth = Growth(4, 1.0)
    for _ in range(5):
        first, second = styles_of_layers(translator)
        assert not torch.equal(first, second)


def test_truncation_applies_outside_training_only():
    translator = make(truncation=0.0)
    rgb = next(random_batches()).rgb
    one, other = translator.draw_latent(BATCH), translator.draw_latent(BATCH)
    assert not torch.equal(translator.translate(rgb, one), translator.translate(rgb, other))
    translator.eval()
    assert torch.equal(translator.translate(rgb, one), translator.translate(rgb, other))
    assert build("stylegan", SIZE, {"channel_base": 64}).config.truncation == 1


def test_running_w_is_a_slow_average_of_w():
    mapping = make().generator.mapping
    mapping.update_running_w(torch.ones(4, 8))

    assert mapping.running_w.tolist() == pytest.approx([0.005] * 8)


def test_running_w_averages_the_first_w_alone():
    translator = make(style_mixing_probability=1.0)
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    translator.generator(rgb, z)

    expected = 0.005 * translator.generator.mapping(rgb, z).mean(0)
    assert torch.allclose(translator.generator.mapping.running_w, expected, atol=1e-6)


def test_condition_mapping_decides_whether_w_depends_on_rgb():
    rgb, z = next(random_batches()).rgb, torch.randn(BATCH, 8)
    conditional, unconditional = (
        make(condition_mapping=is_on).generator.mapping for is_on in (True, False)
    )

    assert not torch.equal(conditional(rgb, z), conditional(-rgb, z))
    assert torch.equal(unconditional(rgb, z), unconditional(-rgb, z))


def test_mapping_network_is_nonlinear_and_normalizes_the_latent():
    mapping, rgb = make(condition_mapping=False).generator.mapping, next(random_batches()).rgb
    z = torch.randn(BATCH, 8)

    assert torch.allclose(mapping(rgb, z), mapping(rgb, 10 * z), atol=1e-5)
    kinds = [type(layer).__name__ for layer in mapping.layers]
    assert kinds == ["EqualizedLinear", "LeakyReLU"] * 2
    layer = EqualizedLinear(3, 2, lr_multiplier=0.01)
    layer.bias.data.fill_(1.0)
    assert layer(torch.zeros(1, 3)).tolist() == [pytest.approx([0.01] * 2)]


def test_latent_and_embedded_rgb_image_are_normalized_together():
    mapping, rgb, z = make().generator.mapping, next(random_batches()).rgb, torch.randn(BATCH, 8)
    inputs = []
    mapping.layers[0].register_forward_hook(lambda _, x, __: inputs.append(x[0]))
    mapping(rgb, z)
    both = torch.cat([z, mapping.embed_rgb(F.adaptive_avg_pool2d(rgb, 8).flatten(1))], dim=1)

    assert torch.allclose(inputs[0], F.normalize(both) * 4, atol=1e-4)


def test_discriminator_downsamples_before_the_activation():
    block = make().discriminator.blocks[str(SIZE)]
    features = torch.randn(2, block[0].weight.shape[1], SIZE, SIZE)
    block[3].bias.data.normal_()
    blurred = Blur()(F.leaky_relu(block[0](features), 0.2))
    expected = F.leaky_relu(F.avg_pool2d(block[3](blurred), 2), 0.2)

    assert torch.allclose(block(features), expected, atol=1e-6)


def test_r1_of_a_linear_score_is_its_squared_gradient():
    gradient = torch.tensor([3.0, -4.0]).view(1, 1, 1, 2)
    real = torch.rand(6, 1, 1, 2, requires_grad=True)

    assert r1_penalty((gradient * real).sum((1, 2, 3)), real).item() == pytest.approx(25)


def test_penalty_is_proportional_to_gamma_and_trains_the_first_layer():
    def penalty(gamma):
        translator = make(r1_gamma=gamma)
        turn = next(translator.turns(random_batches()))
        turn.terms["penalty"].backward()
        assert translator.discriminator.from_image[str(SIZE)].weight.grad.abs().sum() > 0
        return turn.terms["penalty"].item()

    assert penalty(20.0) == pytest.approx(2 * penalty(10.0), rel=1e-4)


class Product(ProgressiveNetwork):
    """Scores a pair by the product of its red and half its squared thermal channel, so that the
    gradient with respect to the thermal image is the product of both channels."""

    def __init__(self):
        super().__init__(Growth(SIZE, 1.0))

    def forward(self, rgb, thermal):
        return (rgb[:, 0] * thermal[:, 0].square() / 2).sum((1, 2))


def test_penalty_is_the_gradient_at_real_images_with_respect_to_thermal():
    translator, batch = make(r1_gamma=3.0), next(random_batches())
    translator.discriminator = Product()
    turn = next(translator.turns(iter([batch])))
    gradient = (batch.rgb[:, 0] * batch.thermal[:, 0]).flatten(1)

    assert turn.terms["penalty"].item() == pytest.approx(
        3 / 2 * gradient.square().sum(1).mean().item(), rel=1e-4
    )


def test_penalty_is_computed_in_float32_under_bf16():
    translator, dtypes = make(), []
    translator.discriminator.from_image[str(SIZE)].register_forward_hook(
        lambda _, __, out: dtypes.append(out.dtype)
    )
    with torch.autocast("cpu", torch.bfloat16):
        next(translator.turns(random_batches()))

    assert dtypes == [torch.bfloat16, torch.float32]


def test_lazy_penalty_is_rarer_and_heavier():
    translator = make(r1_interval=4)
    has_penalty = []
    for step in range(5):
        translator.begin_step(990 + step, 1000)
        for turn in translator.turns(random_batches()):
            if turn.player == "discriminator":
                has_penalty.append("penalty" in turn.terms)
    every = next(make(r1_interval=1).turns(random_batches())).terms["penalty"]
    fourth = next(make(r1_interval=4).turns(random_batches())).terms["penalty"]

    assert has_penalty == [True, False, False, False, True]
    other = make(r1_interval=4)
    other.load_state_dict(translator.state_dict())
    assert other.steps == translator.steps == 5
    assert fourth.item() == pytest.approx(4 * every.item(), rel=1e-4)
    adam = build_optimizers(translator)["discriminator"].optimizer.defaults
    assert adam["lr"] == pytest.approx(1e-3 * 4 / 5)
    assert adam["betas"][1] == pytest.approx(0.99 ** (4 / 5))


def test_blur_is_binomial_and_used_by_both_networks():
    translator = make()
    assert any(isinstance(m, Blur) for m in translator.discriminator.modules())
    inside = Blur()(torch.ones(1, 2, 8, 8))[:, :, 1:-1, 1:-1]

    assert torch.allclose(inside, torch.ones_like(inside))
    point = torch.zeros(1, 1, 3, 3)
    point[0, 0, 1, 1] = 16
    assert Blur()(point)[0, 0].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    blurred = []
    for convolution in translator.generator.first_conv.values():
        convolution.blur.register_forward_hook(lambda _, x, __: blurred.append(x[0].shape[-1]))
    translator.translate(next(random_batches()).rgb)
    assert blurred == [8, 16, 32]


def test_bias_is_added_after_the_blur_so_that_it_is_equal_at_the_border():
    convolution = make().generator.first_conv["8"]
    convolution.bias.data.normal_()
    features = torch.randn(2, convolution.weight.shape[1], 8, 8)
    expected = convolution.bias[:, None, None].expand(2, -1, 8, 8)
    without = convolution(features) - expected

    assert torch.allclose(convolution(torch.zeros_like(features)), expected)
    convolution.bias.data.zero_()
    assert torch.allclose(convolution(features), without, atol=1e-6)
    weight = convolution.weight * convolution.scale
    assert torch.allclose(without, Blur()(F.conv2d(features, weight, padding=1)), atol=1e-6)


def test_blur_has_correct_first_and_second_derivatives():
    features = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    blur = Blur().double()

    def cubed(features):  # the second derivative of the blur alone is 0
        return blur(features) ** 3

    assert torch.autograd.gradcheck(cubed, features)
    assert torch.autograd.gradgradcheck(cubed, features)
    with torch.autocast("cpu", torch.bfloat16):  # float32 stays float32
        assert Blur()(torch.ones(1, 1, 4, 4)).dtype == torch.float32


def test_minibatch_std_has_groups_of_four():
    head = make().discriminator.head

    assert isinstance(head[0], MinibatchStd)
    assert head[0].group_size == 4


def test_new_resolution_starts_as_the_enlarged_old_one():
    translator = make().eval()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    translator.generator.growth = Growth(8, 1.0)
    old = translator.generator(rgb, z)
    translator.generator.growth = Growth(16, 0.0)

    assert torch.equal(translator.generator(rgb, z), F.interpolate(old, scale_factor=2))


def test_optimizers_are_reset_at_both_ends_of_a_fade():
    translator = build("stylegan", SIZE, TINY["stylegan"])

    assert sum(translator.begin_step(images, 1000) for images in range(0, 1000, 10)) == 6


def test_discriminator_has_no_norm_layers():
    assert not [m for m in make().discriminator.modules() if "Norm" in type(m).__name__]


def test_growing_decides_the_resolution_at_the_start():
    translator = build("stylegan", SIZE, TINY["stylegan"] | {"start_resolution": 8})
    assert translator.generator.growth == Growth(8, 1.0)
    full = build("stylegan", SIZE, TINY["stylegan"] | {"growing": False})
    assert full.generator.growth == Growth(SIZE, 1.0)
    assert full.config.batch_size_at(0.0) == BATCH
