import pytest
import torch
from tiny_settings import SIZE, TINY, random_batches
from torch import nn

from thermal_search.architectures import build
from thermal_search.architectures.cyclegan import forward_batched
from thermal_search.images import Batch
from thermal_search.networks import ImagePool, ResidualBlock
from thermal_search.networks.padding import ReflectionPad


def make(**parameters):
    torch.manual_seed(0)
    return build("cyclegan", SIZE, TINY["cyclegan"] | parameters)


class FirstChannels(nn.Module):
    """Returns the first channels of its input."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, images):
        return images[:, : self.channels]


def test_discriminators_play_second_on_the_generators_fakes():
    translator = make(pool_size=50)
    scored = []
    translator.thermal_discriminator.register_forward_hook(
        lambda _, inputs, __: scored.append(inputs[0])
    )
    turns = translator.turns(random_batches())

    assert next(turns).player == "generators"
    fake = scored[-1]
    for p in translator.generator.parameters():
        p.data.add_(1.0)
    assert next(turns).player == "discriminators"
    # Real images come first; the pool is not full yet and returns its input.
    assert torch.equal(scored[-1][len(fake) :], fake)
    assert not scored[-1].requires_grad


def test_loss_does_not_depend_on_which_frames_are_paired():
    batch = next(random_batches())
    swapped = Batch(batch.rgb, batch.thermal.flip(0))
    one = next(make().turns(iter([batch]))).loss
    other = next(make().turns(iter([swapped]))).loss

    assert one.item() == pytest.approx(other.item(), rel=1e-5)
    assert not make().needs_pairs


def test_generators_that_change_nothing_have_zero_identity_and_cycle_loss():
    translator = make()
    translator.generator, translator.rgb_generator = FirstChannels(1), FirstChannels(3)
    thermal = next(random_batches()).thermal
    batch = Batch(thermal.expand(-1, 3, -1, -1), thermal)
    terms = next(translator.turns(iter([batch]))).terms

    for name in ("identity_thermal", "identity_rgb", "cycle_rgb", "cycle_thermal"):
        assert terms[name].item() == 0


def test_cycle_and_identity_terms_have_their_weights():
    batch = next(random_batches())
    light = next(make(cycle_weight=1.0).turns(iter([batch]))).terms
    heavy = next(make(cycle_weight=10.0, identity_ratio=0.5).turns(iter([batch]))).terms

    assert heavy["cycle_rgb"].item() == pytest.approx(10 * light["cycle_rgb"].item(), rel=1e-4)
    expected = (make().generator(batch.thermal.expand(-1, 3, -1, -1)) - batch.thermal).abs().mean()
    assert heavy["identity_thermal"].item() == pytest.approx(5 * expected.item(), rel=1e-4)


def test_batched_forward_equals_separate_forwards():
    translator = make()
    batch = next(random_batches())
    thermal = batch.thermal.expand(-1, 3, -1, -1)[:1]
    for network in (translator.generator, translator.rgb_generator):
        outputs = forward_batched(network, batch.rgb, thermal)
        for output, images in zip(outputs, (batch.rgb, thermal), strict=True):
            assert torch.allclose(output, network(images), atol=1e-5)


def test_identity_ratio_of_zero_leaves_the_identity_terms_out():
    terms = next(make(identity_ratio=0.0).turns(random_batches())).terms

    assert not any(name.startswith("identity") for name in terms)


def test_instance_normalization_has_no_gain_and_borders_are_reflected():
    modules = list(make().modules())

    assert not any(isinstance(m, nn.BatchNorm2d) for m in modules)
    assert not any(m.affine for m in modules if isinstance(m, nn.InstanceNorm2d))
    assert any(isinstance(m, ReflectionPad) for m in modules)


def test_generator_has_nine_blocks_from_256_pixels_and_six_below():
    def blocks(size):
        with torch.device("meta"):
            generator = build("cyclegan", size, {"generator_width": 4}).generator
        return sum(isinstance(m, ResidualBlock) for m in generator.modules())

    assert (blocks(128), blocks(256)) == (6, 9)


def images(values):
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


def test_pool_returns_its_input_until_it_is_full():
    pool = ImagePool(50)
    for value in range(50):
        assert pool.swap(images([value])).item() == value
    assert len(pool.images) == 50


def test_full_pool_swaps_about_half_and_never_grows():
    torch.manual_seed(0)
    pool = ImagePool(50)
    pool.swap(images(range(50)))
    returned = pool.swap(images(range(50, 1050))).flatten().tolist()
    old = sum(value != new for value, new in zip(returned, range(50, 1050), strict=True))

    assert 430 < old < 570
    assert len(pool.images) == 50
    assert len(set(returned)) == len(returned)


def test_pool_of_size_zero_returns_its_input():
    assert ImagePool(0).swap(images([3])).item() == 3


def test_restored_pool_continues_exactly():
    torch.manual_seed(0)
    pool, other = ImagePool(3), ImagePool(3)
    pool.swap(images(range(6)))
    other.load_state_dict(pool.state_dict())
    random = torch.get_rng_state()
    expected = pool.swap(images(range(10, 30)))
    torch.set_rng_state(random)

    assert torch.equal(other.swap(images(range(10, 30))), expected)


def test_both_players_use_adam_with_published_settings():
    players = build("cyclegan", SIZE, {}).players()

    assert set(players) == {"generators", "discriminators"}
    for player in players.values():
        assert player.optimizer.algorithm == "adam"
        assert (player.optimizer.lr, player.optimizer.betas) == (2e-4, (0.5, 0.999))


def test_each_cycle_term_trains_both_generators():
    terms = next((translator := make()).turns(random_batches())).terms
    for name in ("cycle_rgb", "cycle_thermal"):
        for generator in (translator.generator, translator.rgb_generator):
            weight = generator.layers[1].weight
            (gradient,) = torch.autograd.grad(terms[name], weight, retain_graph=True)
            assert gradient.any(), name


def test_each_image_enters_both_generators_with_thermal_repeated_to_three_channels():
    translator, batch, inputs = make(), next(random_batches()), []
    for generator in (translator.rgb_generator, translator.generator):
        generator.register_forward_hook(lambda _, x, __: inputs.extend(x[0]))
    next(translator.turns(iter([batch])))

    # Once to be translated, once for the identity loss.
    for image in (*batch.thermal.expand(-1, 3, -1, -1), *batch.rgb):
        assert sum(torch.equal(image, other) for other in inputs) == 2


def test_both_discriminators_score_images_from_their_pools():
    translator = make(pool_size=3)
    list(translator.turns(random_batches()))

    assert len(translator.thermal_pool.images) == len(translator.rgb_pool.images) == 3
    for discriminator, pool in (
        (translator.thermal_discriminator, translator.thermal_pool),
        (translator.rgb_discriminator, translator.rgb_pool),
    ):
        old, scored = list(pool.images), []
        discriminator.register_forward_hook(lambda _, x, __, scored=scored: scored.extend(x[0]))
        torch.manual_seed(1)
        list(translator.turns(random_batches(5)))
        assert any(torch.equal(a, b) for a in old for b in scored)


def test_only_strided_convolutions_are_zero_padded():
    generator = make().generator
    padded = [m for m in generator.modules() if isinstance(m, nn.Conv2d) and m.padding != (0, 0)]

    assert all(m.stride == (2, 2) for m in padded)
    assert len(padded) == 2
    assert not any("Zero" in type(m).__name__ for m in generator.modules())
    reflected = [m.width for m in generator.modules() if isinstance(m, ReflectionPad)]
    assert reflected == [3, 1, 1, 3]


def test_residual_block_adds_to_its_input():
    block, features = ResidualBlock(4), torch.randn(2, 4, 8, 8)
    for convolution in (block.layers[1], block.layers[5]):
        nn.init.zeros_(convolution.weight)

    assert torch.allclose(block(features), features, atol=1e-3)


def test_discriminators_use_instance_normalization():
    translator = build("cyclegan", 64, {"discriminator_width": 2, "generator_width": 2})
    for network in (translator.thermal_discriminator, translator.rgb_discriminator):
        norms = [m for m in network.modules() if isinstance(m, nn.InstanceNorm2d)]
        assert len(norms) == 3


def test_discriminators_score_augmented_images_if_switched_on():
    translator, batch, scored = make(diff_augment=True), next(random_batches()), []
    for discriminator in (translator.thermal_discriminator, translator.rgb_discriminator):
        discriminator.register_forward_hook(lambda _, x, __: scored.append(x[0]))
    list(translator.turns(iter([batch])))

    # The square that is cut out is empty in all channels.
    assert len(scored) == 4
    assert all((images == 0).all(1).float().mean() > 0.15 for images in scored)
