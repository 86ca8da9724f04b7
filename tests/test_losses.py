import math

import pytest
import torch

from thermal_search.losses import ADVERSARIAL_LOSSES, cross_entropy, least_squares, wasserstein


def test_cross_entropy_of_zero_logits_is_log_two():
    zero = torch.zeros(3)

    assert cross_entropy.generator(zero).item() == pytest.approx(math.log(2))
    assert cross_entropy.discriminator(zero, zero).item() == pytest.approx(2 * math.log(2))


def test_least_squares_targets_are_one_for_real_and_zero_for_fake():
    assert least_squares.discriminator(torch.ones(2), torch.zeros(2)).item() == 0
    assert least_squares.generator(torch.ones(2)).item() == 0
    assert least_squares.discriminator(torch.zeros(2), torch.ones(2)).item() == 2


def test_wasserstein_loss_is_a_difference_of_means():
    real, fake = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 1.0])

    assert wasserstein.discriminator(real, fake).item() == -3
    assert wasserstein.generator(fake).item() == -1


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_losses_of_bf16_scores_are_float32(name):
    score = torch.zeros(2, dtype=torch.bfloat16)

    assert ADVERSARIAL_LOSSES[name].discriminator(score, score).dtype == torch.float32
    assert ADVERSARIAL_LOSSES[name].generator(score).dtype == torch.float32
