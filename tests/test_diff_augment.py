"""Differentiable augmentation of what a discriminator scores."""

import torch
from tiny_settings import SIZE

from thermal_search.networks.diff_augment import diff_augment

LIMIT = SIZE // 8


def test_condition_is_translated_with_the_image_and_keeps_its_colors():
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(
        torch.arange(1.0, SIZE + 1), torch.arange(1.0, SIZE + 1), indexing="ij"
    )
    condition = torch.stack([rows, columns]).expand(50, -1, -1, -1)
    augmented = diff_augment(torch.cat([condition, torch.ones(50, 1, SIZE, SIZE)], 1), 1)
    middle = augmented[:, :2, SIZE // 2, SIZE // 2] - (SIZE // 2 + 1)

    shifts = {tuple(shift) for shift in middle.int().tolist()}
    assert len(shifts) > 20
    assert all(abs(shift) <= LIMIT for pair in shifts for shift in pair)
    for pair, (down, right) in zip(augmented, middle.int().tolist(), strict=True):
        inside = pair[:2, LIMIT:-LIMIT, LIMIT:-LIMIT]
        expected = condition[
            0, :, LIMIT + down : SIZE - LIMIT + down, LIMIT + right : SIZE - LIMIT + right
        ]
        assert torch.equal(inside, expected)
        # What moves in from beyond the border is empty in all channels alike.
        if down > 0:
            assert not pair[:, -down:].any()


def test_colors_of_the_image_change_and_a_square_is_cut_out():
    torch.manual_seed(0)
    images = torch.rand(50, 1, SIZE, SIZE) + 1
    augmented = diff_augment(images, 1)
    values = augmented.flatten(1)
    kept = [image[image != 0] for image in values]

    means = torch.stack([image.mean() for image in kept])
    assert means.max() - means.min() > 0.5  # brightness
    stds = torch.stack([image.std() for image in kept]) / images.std()
    assert stds.min() < 0.7 < 1.3 < stds.max()  # contrast
    empty = (values == 0).float().mean(1)
    assert empty.max() > 0.25
    assert empty.min() > 1 / 16


def test_saturation_changes_the_colors_of_three_channels():
    torch.manual_seed(0)
    gray = torch.rand(8, 1, SIZE, SIZE).expand(-1, 3, -1, -1)
    color = gray * torch.tensor([1.0, 0.5, 0.2]).view(1, 3, 1, 1)

    def spread(images):
        return images.std(1).amax((1, 2))

    assert spread(diff_augment(gray, 3)).max() < 1e-6
    ratios = spread(diff_augment(color, 3)) / spread(color)
    assert ratios.min() < 0.7 < 1.3 < ratios.max()


def test_gradients_pass_through_to_the_pixels_that_are_scored():
    torch.manual_seed(0)
    images = torch.rand(4, 1, SIZE, SIZE, requires_grad=True)
    diff_augment(images, 1).sum().backward()

    assert (images.grad != 0).float().mean() > 0.5
