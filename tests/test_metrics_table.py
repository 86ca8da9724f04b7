"""KID, PSNR, SSIM, L1 and LPIPS equal torchmetrics'."""

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
    KIDReference,
    PairedMetrics,
    PerceptualDistance,
    Statistics,
    psnr,
    ssim,
)


def features(count, seed, shift=0.0, dimensions=24):
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.normal(shift, 1, (count, dimensions)).astype(np.float32))


def kid(generated, real):
    return KIDReference(Statistics.of(real)).distance(Statistics.of(generated))


def images(count, seed, channels=1, size=48):
    """Smooth images, and noisy copies of them."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.integers(0, 256, (count, channels, 6, 6)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic")
    noise = torch.from_numpy(random.normal(0, 20, smooth.shape))
    return tuple(image.clamp(0, 255).to(torch.uint8) for image in (smooth, smooth + noise))


def test_kid_equals_torchmetrics_over_all_images_at_once():
    generated, real = features(40, 0), features(40, 1, shift=0.4)

    assert kid(generated, real).value == pytest.approx(poly_mmd(generated, real).item(), rel=1e-4)


def test_order_and_exchanged_sides_do_not_change_kid():
    generated, real = features(30, 0), features(45, 1, shift=0.4)
    expected = kid(generated, real)
    exchanged = kid(real.flip(0), generated[torch.randperm(30)])

    assert exchanged.value == pytest.approx(expected.value, rel=1e-9)
    assert exchanged.std == pytest.approx(expected.std, rel=1e-9)


def test_kid_of_one_distribution_is_zero_on_average():
    values = [kid(features(20, seed), features(25, 1000 + seed)).value for seed in range(200)]

    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)


def test_kid_std_is_the_deviation_over_samples():
    distances = [kid(features(60, s), features(60, 1000 + s, shift=0.5)) for s in range(200)]
    estimated = np.mean([distance.std for distance in distances])

    deviation = np.std([distance.value for distance in distances])
    assert estimated == pytest.approx(deviation, rel=0.2)


def test_kid_of_two_images_has_no_std_and_of_one_is_refused():
    assert kid(features(2, 0), features(9, 1)).std is None
    with pytest.raises(MetricError, match="at least 2 images on each side, but got 1"):
        kid(features(1, 0), features(9, 1))


def test_kid_of_other_features_is_refused():
    with pytest.raises(MetricError, match="24 dimensions and the other 8"):
        kid(features(5, 0, dimensions=8), features(5, 0))


def test_psnr_and_ssim_equal_torchmetrics():
    real, generated = images(5, 0)
    arguments = {"data_range": 255.0, "reduction": "none"}
    expected_psnr = peak_signal_noise_ratio(
        generated.float(), real.float(), dim=(1, 2, 3), **arguments
    )
    # In float64: in float32 torchmetrics' own cancellation changes the fourth digit.
    expected_ssim = structural_similarity_index_measure(
        generated.double(), real.double(), **arguments
    )

    assert torch.allclose(psnr(generated, real), expected_psnr, rtol=1e-5)
    assert torch.allclose(ssim(generated, real), expected_ssim.float(), atol=1e-5)


def test_equal_images_have_the_best_ssim_and_psnr():
    real, _ = images(3, 0)

    assert ssim(real, real).tolist() == pytest.approx([1, 1, 1])
    assert psnr(real, real).tolist() == [100, 100, 100]


def test_paired_metrics_are_means_over_images_for_any_batches():
    real, generated = images(7, 1)
    metrics = PairedMetrics()
    for start in (0, 3, 6):
        metrics.add(generated[start : start + 3], real[start : start + 3])

    assert metrics.means["l1"] == pytest.approx(
        (generated.float() - real.float()).abs().mean().item()
    )
    assert metrics.means["psnr"] == pytest.approx(psnr(generated, real).mean().item(), rel=1e-6)
    assert metrics.means["ssim"] == pytest.approx(ssim(generated, real).mean().item(), rel=1e-6)


BACKBONES = {
    "alexnet": (torchvision.models.alexnet, "alex"),
    "vgg16": (torchvision.models.vgg16, "vgg"),
}


@pytest.fixture(scope="session", params=BACKBONES)
def lpips_weights(request, tmp_path_factory):
    """In torchvision's format, with random values: the real ones are a download. Only the
    convolutions, which alone are compared."""
    torch.manual_seed(0)
    network, _ = BACKBONES[request.param]
    state = network(weights=None).state_dict()
    file = tmp_path_factory.mktemp("lpips") / f"{request.param}.pth"
    torch.save({name: v for name, v in state.items() if name.startswith("features.")}, file)
    return file


@pytest.mark.parametrize("channels", [1, 3])
def test_lpips_equals_torchmetrics_on_the_same_backbone(lpips_weights, channels):
    theirs = _LPIPS(pnet_rand=True, net=BACKBONES[lpips_weights.stem][1])
    weights = torch.load(lpips_weights, weights_only=True).values()
    for parameter, value in zip(theirs.net.parameters(), weights, strict=True):
        parameter.data.copy_(value)
    real, generated = images(3, 2, channels, size=64)
    inputs = [(image.float() / 127.5 - 1).expand(-1, 3, -1, -1) for image in (generated, real)]

    distance = PerceptualDistance(lpips_weights)
    assert distance.backbone == lpips_weights.stem
    expected = theirs(*inputs).flatten()
    assert expected.min() > 1e-6
    assert torch.allclose(distance(generated, real), expected, rtol=1e-4, atol=1e-7)
    metrics = PairedMetrics(distance)
    metrics.add(generated, real)
    assert metrics.means["lpips"] == pytest.approx(expected.mean().item(), rel=1e-4)


def test_lpips_is_computed_without_tf32(lpips_weights):
    """TF32 exists on GPUs only; the setting is the same on a CPU."""
    real, generated = images(1, 0)
    distance, allowed = PerceptualDistance(lpips_weights), []
    distance.layers[0].register_forward_hook(
        lambda *_: allowed.append(torch.backends.cudnn.allow_tf32)
    )
    distance(generated, real)

    assert allowed == [False]
    assert torch.backends.cudnn.allow_tf32


def test_file_that_is_no_backbone_is_refused(tmp_path):
    file = tmp_path / "weights.pth"
    with pytest.raises(WeightsUnavailable, match=r"--lpips-weights must be .*weights\.pth"):
        PerceptualDistance(file)
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, file)
    with pytest.raises(WeightsUnavailable, match=r"AlexNet or VGG-16, but .*Missing key"):
        PerceptualDistance(file)


def test_lpips_of_too_small_images_is_refused(lpips_weights):
    real, generated = images(2, 0, size=16)
    with pytest.raises(MetricError, match="at least 32 pixels a side, but these have 16"):
        PerceptualDistance(lpips_weights)(generated, real)
