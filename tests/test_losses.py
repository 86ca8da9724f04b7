import math

import pytest
import torch

from thermal_search.losses import OBJECTIVES, cross_entropy, least_squares, wasserstein


def test_cross_entropy_of_undecided_logits_is_log_two():
    zero = torch.zeros(3)

    assert cross_entropy.fool(zero).item() == pytest.approx(math.log(2))
    assert cross_entropy.judge(zero, zero).item() == pytest.approx(2 * math.log(2))


def test_least_squares_wants_one_for_real_and_zero_for_fake():
    assert least_squares.judge(torch.ones(2), torch.zeros(2)).item() == 0
    assert least_squares.fool(torch.ones(2)).item() == 0
    assert least_squares.judge(torch.zeros(2), torch.ones(2)).item() == 2


def test_wasserstein_is_a_difference_of_means():
    real, fake = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 1.0])

    assert wasserstein.judge(real, fake).item() == -3
    assert wasserstein.fool(fake).item() == -1


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_of_bf16_scores_are_float32(name):
    score = torch.zeros(2, dtype=torch.bfloat16)

    assert OBJECTIVES[name].judge(score, score).dtype == torch.float32
    assert OBJECTIVES[name].fool(score).dtype == torch.float32
