import pytest
import torch
from tiny_settings import SIZE, TINY, random_batches
from torch import nn

from thermal_search.architectures import build
from thermal_search.networks import PatchDiscriminator, UNet
from thermal_search.networks.unet import Dropout


def make(**parameters):
    torch.manual_seed(0)
    return build("pix2pix", SIZE, TINY["pix2pix"] | parameters)


@pytest.mark.parametrize("is_on", [True, False])
def test_noise_at_test_comes_from_dropout_alone(is_on):
    translator = make(test_dropout=is_on).eval()
    rgb = next(random_batches()).rgb

    same = torch.equal(translator.translate(rgb), translator.translate(rgb))

    assert same != is_on


def test_three_decoder_layers_drop_out_or_fewer_where_there_are_fewer():
    def dropping(size):
        with torch.device("meta"):
            network = UNet(size=size, width=4)
        return sum(isinstance(m, Dropout) for m in network.modules())

    assert [dropping(size) for size in (32, 64, 256)] == [3, 3, 3]


def test_no_normalization_first_at_the_bottleneck_and_at_the_output():
    network = UNet(size=64, width=4)
    normed = [isinstance(layer[-1], nn.BatchNorm2d) for layer in network.encoder]

    assert normed == [False, True, True, True, True, False]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.output)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_trains_one_picture_at_a_time(norm):
    translator = make(norm=norm, batch_size=1).train()

    assert translator.translate(torch.zeros(1, 3, SIZE, SIZE)).isfinite().all()


@pytest.mark.parametrize(("layers", "field"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_patch_is_as_large_as_the_paper_says(layers, field):
    torch.manual_seed(0)
    judge = PatchDiscriminator(in_channels=4, width=2, layers=layers, norm="none").double()
    images = torch.zeros(1, 4, 256, 256, dtype=torch.float64, requires_grad=True)
    scores = judge(images)
    middle = scores.shape[-1] // 2
    scores[0, 0, middle, middle].backward()

    seen = images.grad[0].abs().sum(0)
    assert int((seen.sum(1) > 0).sum()) == field
    assert int((seen.sum(0) > 0).sum()) == field


def test_the_discriminator_judges_30_x_30_pairs_of_patches_at_256():
    with torch.device("meta"):
        translator = build("pix2pix", 256, {})
        scores = translator.discriminator(torch.zeros(1, 4, 256, 256))

    assert scores.shape == (1, 1, 30, 30)


def test_the_discriminator_has_fewer_layers_on_small_pictures():
    with torch.device("meta"):
        assert build("pix2pix", 32, {}).discriminator(torch.zeros(1, 4, 32, 32)).shape[-1] == 6
        assert build("pix2pix", 64, {}).discriminator(torch.zeros(1, 4, 64, 64)).shape[-1] == 6


def test_the_discriminator_moves_first_and_its_loss_is_halved():
    translator = make()
    nn.init.zeros_(translator.discriminator.layers[-1].weight)
    turns = translator.turns(random_batches())
    first = next(turns)

    assert first.player == "discriminator"
    # Undecided logits: -log(1/2) for the real and for the fake, halved.
    assert first.loss.item() == pytest.approx(torch.tensor(2.0).log().item())
    assert next(turns).player == "generator"
    assert next(turns, None) is None


def test_l1_has_its_weight():
    translator = make(l1_weight=7.0, dropout=0.0)
    batch = next(random_batches())
    *_, generator = translator.turns(iter([batch]))

    expected = 7 * (translator.generator(batch.rgb) - batch.thermal).abs().mean()
    assert generator.terms["l1"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_learning_rates_are_constant_then_fall_to_zero():
    translator = make(decay_start=0.5)

    assert [translator.learning_rate_factor(n, 100) for n in (0, 50, 75, 100)] == [1, 1, 0.5, 0]
    assert make(decay_start=1.0).learning_rate_factor(100, 100) == 1


def test_adam_with_the_published_settings():
    for player in build("pix2pix", SIZE, {}).players().values():
        assert player.optimizer.algorithm == "adam"
        assert (player.optimizer.lr, player.optimizer.betas) == (2e-4, (0.5, 0.999))


def test_weights_start_small():
    torch.manual_seed(0)
    weights = build("pix2pix", SIZE, {}).generator.encoder[2][1].weight

    assert weights.std().item() == pytest.approx(0.02, rel=0.02)


def test_layers_from_the_bottleneck_up_drop_out():
    drops = [isinstance(layer[-1], Dropout) for layer in UNet(size=64, width=2).decoder]

    assert drops == [True, True, True, False, False]


def test_leaky_rectifiers_on_the_way_down_and_plain_ones_on_the_way_up():
    network = UNet(size=32, width=2)
    slopes = [m.negative_slope for m in network.encoder.modules() if isinstance(m, nn.LeakyReLU)]

    assert slopes == [0.2] * 4
    assert [type(layer[0]) for layer in network.decoder] == [nn.ReLU] * 4
    assert isinstance(network.output[0], nn.ReLU)
    judge = make().discriminator
    kinds = [m for m in judge.modules() if isinstance(m, (nn.ReLU, nn.LeakyReLU))]
    assert [m.negative_slope for m in kinds] == [0.2] * 3


def test_levels_learn_through_their_mirrors_where_the_way_through_the_bottleneck_is_cut():
    network = UNet(size=32, width=2, dropout=0.0)
    for cut in range(len(network.decoder)):
        network.zero_grad()
        kept = network.decoder[cut][1].weight.detach().clone()
        nn.init.zeros_(network.decoder[cut][1].weight)
        network(torch.randn(2, 3, 32, 32)).sum().backward()
        network.decoder[cut][1].weight.data = kept
        learns = [bool(layer[1].weight.grad.any()) for layer in network.encoder]
        assert learns == [True] * (4 - cut) + [False] * (cut + 1)


def test_the_discriminator_is_normalised_between_its_first_and_its_last_layer():
    judge = PatchDiscriminator(in_channels=4, width=2)
    kinds = [type(m) for m in judge.layers if not isinstance(m, nn.LeakyReLU)]

    assert kinds == [nn.Conv2d] + [nn.Conv2d, nn.BatchNorm2d] * 3 + [nn.Conv2d]
