import pytest
import torch
from tiny_settings import BATCH, SIZE, TINY, random_batches
from torch import nn

from thermal_search.architectures import build
from thermal_search.architectures.wgan_gp import DownBlock, UpBlock
from thermal_search.losses import gradient_penalty
from thermal_search.training.step import build_optimizers


def make(**parameters):
    torch.manual_seed(0)
    return build("wgan_gp", SIZE, TINY["wgan_gp"] | parameters)


def test_a_linear_critics_penalty_is_known():
    slope = torch.tensor([0.3, -2.0, 1.1, 0.7]).view(1, 1, 2, 2)
    real, fake = torch.rand(5, 1, 2, 2), torch.rand(5, 1, 2, 2)
    penalty = gradient_penalty(lambda y: (slope * y).sum((1, 2, 3)), real, fake)

    assert penalty.item() == pytest.approx((slope.norm().item() - 1) ** 2, rel=1e-5)


@pytest.mark.parametrize(("steepness", "two", "one"), [(0.5, 0.25, 0.0), (3.0, 4.0, 4.0)])
def test_one_sided_leaves_gentle_slopes_alone(steepness, two, one):
    def critic(y):
        return steepness * y.flatten(1)[:, 0]

    images = torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2)

    assert gradient_penalty(critic, *images).item() == pytest.approx(two, abs=1e-4)
    assert gradient_penalty(critic, *images, one_sided=True).item() == pytest.approx(one, abs=1e-4)


def test_each_image_has_its_own_place_between_real_and_painted():
    seen = []

    def critic(y):
        seen.append(y.detach())
        return y.sum((1, 2, 3))

    gradient_penalty(critic, torch.zeros(64, 1, 2, 2), torch.ones(64, 1, 2, 2))
    places = seen[0]

    assert (places == places[:, :, :1, :1]).all()
    assert places[:, 0, 0, 0].unique().numel() == 64
    assert 0 <= places.min() < 0.2
    assert 0.8 < places.max() <= 1


def test_a_flat_critic_has_a_finite_gradient():
    weight = torch.zeros(1, requires_grad=True)
    gradient_penalty(
        lambda y: (weight * y).sum((1, 2, 3)), torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2)
    ).backward()

    assert weight.grad.isfinite()


def test_the_penalty_teaches_the_critics_first_layer():
    translator = make()
    turn = next(translator.turns(random_batches()))
    turn.terms["penalty"].backward()

    assert translator.critic.layers[0].weight.grad.abs().sum() > 0


class Product(nn.Module):
    """Scores a pair by the product of its red and its thermal channel: with the RGB image held
    fixed, its slope is the red channel."""

    def forward(self, pair):
        return (pair[:, 0] * pair[:, 3]).sum((1, 2))


def test_the_penalty_moves_the_thermal_picture_only():
    translator, batch = make(penalty_weight=3.0), next(random_batches())
    translator.critic = Product()
    turn = next(translator.turns(iter([batch])))
    slope = batch.rgb[:, 0].flatten(1).norm(dim=1)

    assert turn.terms["penalty"].item() == pytest.approx(
        3 * (slope - 1).square().mean().item(), rel=1e-4
    )


def test_the_penalty_is_taken_in_float32_under_bf16():
    translator = make()
    dtypes = []
    translator.critic.layers[0].register_forward_hook(lambda _, __, out: dtypes.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        next(translator.turns(random_batches()))

    assert dtypes == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_the_critic_never_couples_images(norm):
    translator = make(critic_norm=norm)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in translator.critic.modules())
    pairs = torch.randn(BATCH, 4, SIZE, SIZE, requires_grad=True)
    translator.critic(pairs)[0].backward()

    assert pairs.grad[0].abs().sum() > 0
    assert pairs.grad[1:].abs().sum() == 0


def test_layers_are_normalised_over_the_whole_image():
    norms = [m for m in make().critic.modules() if isinstance(m, nn.GroupNorm)]

    assert norms
    assert all(norm.num_groups == 1 for norm in norms)


def test_five_critic_turns_on_fresh_images_then_one_of_the_generator():
    drawn = []

    def counted():
        for batch in random_batches():
            drawn.append(batch)
            yield batch

    turns = [turn.player for turn in make(n_critic=5).turns(counted())]

    assert turns == ["critic"] * 5 + ["generator"]
    assert len(drawn) == 6


def test_published_game():
    translator = build("wgan_gp", SIZE, {"width": 4})

    assert translator.config.n_critic == 5
    assert translator.config.penalty_weight == 10
    for player_optimizer in build_optimizers(translator).values():
        assert isinstance(player_optimizer.optimizer, torch.optim.Adam)
        assert player_optimizer.optimizer.defaults["betas"] == (0.0, 0.9)
        assert player_optimizer.optimizer.defaults["lr"] == 1e-4


def test_nothing_is_clipped():
    translator = make()
    largest = max(p.abs().max().item() for p in translator.critic.parameters())
    list(translator.turns(random_batches()))

    assert max(p.abs().max().item() for p in translator.critic.parameters()) == largest > 0.1


def test_rates_fall_only_when_asked_to():
    assert make().learning_rate_factor(70, 100) == 1
    assert make(decay=True).learning_rate_factor(70, 100) == pytest.approx(0.3)


def test_blocks_normalise_then_rectify_then_convolve():
    kinds = [type(module) for module in DownBlock(4, 6, "layer").layers]
    assert kinds == [nn.GroupNorm, nn.ReLU, nn.Conv2d, nn.GroupNorm, nn.ReLU, nn.Conv2d]
    block = UpBlock(4, 6)
    kinds = [type(module) for module in (*block.first, block.convolution, *block.second)]
    assert kinds == [nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]


def test_residual_convolutions_start_with_hes_spread_the_others_with_glorots():
    torch.manual_seed(0)
    critic = build("wgan_gp", 64, {"width": 16}).critic
    block = critic.layers[2]
    fan_in = block.layers[2].weight[0].numel()

    assert block.layers[2].weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
    ends = sum(block.shortcut.weight.shape[:2])
    assert block.shortcut.weight.std().item() == pytest.approx((2 / ends) ** 0.5, rel=0.1)
