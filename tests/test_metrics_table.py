"""KID, PSNR, SSIM, L1 and LPIPS agree with torchmetrics."""

import numpy as np
import pytest
import torch
import torchvision
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from torchmetrics.functional.image.lpips import _LPIPS
from torchmetrics.image.kid import poly_mmd

from thermal_search.errors import MetricError, WeightsUnavailable
from thermal_search.metrics import (
    KernelReference,
    PairedMeasures,
    PerceptualDistance,
    Statistics,
    psnr,
    ssim,
)


def features(count, seed, shift=0.0, dimensions=24):
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.normal(shift, 1, (count, dimensions)).astype(np.float32))


def kid(painted, real):
    return KernelReference(Statistics.of(real)).distance(Statistics.of(painted))


def images(count, seed, channels=1, size=48):
    """Coarse images with some noise, and noisier copies of them."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.integers(0, 256, (count, channels, 6, 6)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic")
    noise = torch.from_numpy(random.normal(0, 20, smooth.shape))
    return tuple(image.clamp(0, 255).to(torch.uint8) for image in (smooth, smooth + noise))


def test_kid_is_torchmetrics_over_all_images_at_once():
    painted, real = features(40, 0), features(40, 1, shift=0.4)

    assert kid(painted, real).value == pytest.approx(poly_mmd(painted, real).item(), rel=1e-4)


def test_kid_does_not_depend_on_the_order_or_on_which_side_is_real():
    painted, real = features(30, 0), features(45, 1, shift=0.4)
    found = kid(painted, real)
    turned = kid(real.flip(0), painted[torch.randperm(30)])

    assert turned.value == pytest.approx(found.value, rel=1e-9)
    assert turned.std == pytest.approx(found.std, rel=1e-9)


def test_kid_of_two_samples_of_one_distribution_is_zero_on_average():
    found = [kid(features(20, seed), features(25, 1000 + seed)).value for seed in range(200)]

    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(200)


def test_the_spread_of_kid_is_how_much_it_scatters_over_samples():
    found = [kid(features(60, s), features(60, 1000 + s, shift=0.5)) for s in range(200)]
    told = np.mean([distance.std for distance in found])

    assert told == pytest.approx(np.std([distance.value for distance in found]), rel=0.2)


def test_two_images_have_a_kernel_distance_and_no_spread():
    assert kid(features(2, 0), features(9, 1)).std is None
    with pytest.raises(MetricError, match="at least 2 images on each side, but got 1"):
        kid(features(1, 0), features(9, 1))


def test_kid_of_other_features_is_refused():
    with pytest.raises(MetricError, match="24 dimensions and the other 8"):
        kid(features(5, 0, dimensions=8), features(5, 0))


def test_psnr_and_ssim_are_torchmetrics():
    real, painted = images(5, 0)
    arguments = {"data_range": 255.0, "reduction": "none"}
    expected_psnr = peak_signal_noise_ratio(
        painted.float(), real.float(), dim=(1, 2, 3), **arguments
    )
    # In float64: in float32 its own cancellation shows in the fourth digit.
    expected_ssim = structural_similarity_index_measure(
        painted.double(), real.double(), **arguments
    )

    assert torch.allclose(psnr(painted, real), expected_psnr, rtol=1e-5)
    assert torch.allclose(ssim(painted, real), expected_ssim.float(), atol=1e-5)


def test_equal_images_are_as_close_as_can_be():
    real, _ = images(3, 0)

    assert ssim(real, real).tolist() == pytest.approx([1, 1, 1])
    assert psnr(real, real).tolist() == [100, 100, 100]


def test_paired_measures_are_means_over_images_however_they_are_batched():
    real, painted = images(7, 1)
    measures = PairedMeasures()
    for start in (0, 3, 6):
        measures.add(painted[start : start + 3], real[start : start + 3])

    assert measures.means["l1"] == pytest.approx(
        (painted.float() - real.float()).abs().mean().item()
    )
    assert measures.means["psnr"] == pytest.approx(psnr(painted, real).mean().item(), rel=1e-6)
    assert measures.means["ssim"] == pytest.approx(ssim(painted, real).mean().item(), rel=1e-6)


BACKBONES = {
    "alexnet": (torchvision.models.alexnet, "alex"),
    "vgg16": (torchvision.models.vgg16, "vgg"),
}


@pytest.fixture(scope="session", params=BACKBONES)
def lpips_weights(request, tmp_path_factory):
    """Of torchvision's form, with random numbers: the real ones are a download. Nothing but the
    convolutions, which is all that is compared."""
    torch.manual_seed(0)
    network, _ = BACKBONES[request.param]
    state = network(weights=None).state_dict()
    file = tmp_path_factory.mktemp("lpips") / f"{request.param}.pth"
    torch.save({name: v for name, v in state.items() if name.startswith("features.")}, file)
    return file


@pytest.mark.parametrize("channels", [1, 3])
def test_lpips_is_torchmetrics_on_the_same_backbone(lpips_weights, channels):
    theirs = _LPIPS(pnet_rand=True, net=BACKBONES[lpips_weights.stem][1])
    given = torch.load(lpips_weights, weights_only=True).values()
    for own, value in zip(theirs.net.parameters(), given, strict=True):
        own.data.copy_(value)
    real, painted = images(3, 2, channels, size=64)
    inputs = [(image.float() / 127.5 - 1).expand(-1, 3, -1, -1) for image in (painted, real)]

    distance = PerceptualDistance(lpips_weights)
    assert distance.backbone == lpips_weights.stem
    expected = theirs(*inputs).flatten()
    assert expected.min() > 1e-6
    assert torch.allclose(distance(painted, real), expected, rtol=1e-4, atol=1e-7)
    measures = PairedMeasures(distance)
    measures.add(painted, real)
    assert measures.means["lpips"] == pytest.approx(expected.mean().item(), rel=1e-4)


def test_lpips_is_measured_in_full_float32(lpips_weights):
    """On a GPU, whose convolutions would round it (TF32); what is asked for is the same here."""
    real, painted = images(1, 0)
    distance, rounds = PerceptualDistance(lpips_weights), []
    distance.layers[0].register_forward_hook(
        lambda *_: rounds.append(torch.backends.cudnn.allow_tf32)
    )
    distance(painted, real)

    assert rounds == [False]
    assert torch.backends.cudnn.allow_tf32


def test_a_file_that_is_no_backbone_is_refused(tmp_path):
    file = tmp_path / "weights.pth"
    with pytest.raises(WeightsUnavailable, match=r"--lpips-weights must be .*weights\.pth"):
        PerceptualDistance(file)
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, file)
    with pytest.raises(WeightsUnavailable, match=r"AlexNet or VGG-16, but .*Missing key"):
        PerceptualDistance(file)


def test_lpips_of_images_too_small_for_it_is_refused(lpips_weights):
    real, painted = images(2, 0, size=16)
    with pytest.raises(MetricError, match="at least 32 pixels a side, but these have 16"):
        PerceptualDistance(lpips_weights)(painted, real)
