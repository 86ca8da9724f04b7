"""The Frechet distance equals pytorch-fid's and the closed forms."""

import pickle
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pytorch_fid.fid_score import calculate_frechet_distance
from two_workers import run_two_workers

from thermal_search.errors import MetricError, WeightsUnavailable
from thermal_search.metrics import (
    ClassStatistics,
    Extractor,
    FrechetReference,
    Moments,
    Statistics,
    build_extractor,
    cached_statistics_path,
    compute_statistics,
    frechet_distance,
    load_cached,
    metric_name,
    save_cached,
)
from thermal_search.metrics.inception import WEIGHTS_FILE


def features(count, dimensions, seed=0, shift=0.0, scale=1.0):
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.normal(shift, scale, (count, dimensions)))


def gaussian(mean, covariance):
    return Moments(np.array(mean), torch.as_tensor(covariance, dtype=torch.float64).numpy())


def test_equal_sets_have_distance_zero():
    same = features(50, 8)

    assert frechet_distance(Statistics.of(same), Statistics.of(same)) == pytest.approx(0, abs=1e-9)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3))
def test_distance_of_shifted_gaussians_is_the_squared_shift(shift):
    covariance = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    expected = sum(value**2 for value in shift)

    distance = frechet_distance(gaussian([0.0, 0, 0], covariance), gaussian(shift, covariance))
    assert distance == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.floats(0.1, 9), min_size=3, max_size=3))
def test_distance_of_scaled_gaussians_is_the_squared_difference_of_deviations(variances):
    distance = frechet_distance(
        gaussian([0.0, 0, 0], torch.ones(3).diag()),
        gaussian([0.0, 0, 0], torch.diag(torch.tensor(variances, dtype=torch.float64))),
    )

    assert distance == pytest.approx(sum((v**0.5 - 1) ** 2 for v in variances), abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(5, 60), st.integers(5, 60), st.integers(0, 1000))
# pytorch-fid passes scipy a deprecated argument, and takes roots of singular matrices.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_distance_equals_pytorch_fids_below_and_above_full_rank(n, m, seed):
    a, b = features(n, 20, seed), features(m, 20, seed + 1, shift=0.3, scale=1.5)
    expected = calculate_frechet_distance(
        a.mean(0).numpy(), np.cov(a, rowvar=False), b.mean(0).numpy(), np.cov(b, rowvar=False)
    )

    distance = frechet_distance(Statistics.of(a), Statistics.of(b))
    assert distance == pytest.approx(expected, rel=1e-3, abs=1e-3)


sizes = st.integers(2, 40)


def truth(a, b):
    """The distance from the singular values of the features themselves: no squares, no roots."""
    a, b = a.double().numpy(), b.double().numpy()
    centered = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    traces = sum(np.square(x).sum() for x in centered)
    norm = np.linalg.svd(centered[0] @ centered[1].T, compute_uv=False).sum()
    return np.square(a.mean(0) - b.mean(0)).sum() + traces - 2 * norm


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.integers(0, 1000), st.integers(1, 16))
@example(n=5, m=4, seed=0, rank=13)
def test_distance_is_exact_at_any_rank(n, m, seed, rank):
    # 16 dimensions that span only `rank`: dead features make singular covariances.
    mixing = features(rank, 16, 5000 + seed)
    a, b = features(n, rank, seed) @ mixing, features(m, rank, seed + 1, shift=0.5) @ mixing
    expected = truth(a, b)

    distance = frechet_distance(Statistics.of(a), Statistics.of(b))
    assert distance == pytest.approx(expected, abs=1e-6)
    assert frechet_distance(Statistics.of(b), Statistics.of(a)) == pytest.approx(distance, abs=2e-6)
    moments = [Moments(s.mean, s.covariance) for s in (Statistics.of(a), Statistics.of(b))]
    # A covariance has lost half of the features' digits to squares.
    assert frechet_distance(*moments) == pytest.approx(expected, rel=1e-8, abs=1e-6)


def steep(count, seed):
    """Variances from 100 down to 1e-9 of that: the smallest are lost in rounding if squared."""
    mixing = torch.linalg.qr(features(160, 160, 3)).Q
    return features(count, 160, seed) * torch.arange(160).mul(-0.1).exp() @ mixing * 10


def collapsed(count, seed):
    """Features of a generator with mode collapse: one of two images for any input."""
    return steep(2, seed)[torch.arange(count) % 2]


@pytest.mark.parametrize("generate", [steep, collapsed])
@pytest.mark.parametrize("count", [90, 400])
def test_rounding_errors_are_not_magnified_by_roots(generate, count):
    generated, real = generate(count, 1), steep(500, 2)
    expected = truth(generated, real)
    sides = [Statistics.of(rows) for rows in (generated, real)]

    assert frechet_distance(*sides) == pytest.approx(expected, abs=1e-7)
    assert frechet_distance(*reversed(sides)) == pytest.approx(expected, abs=1e-7)
    moments = [Moments(side.mean, side.covariance) for side in sides]
    assert frechet_distance(*moments) == pytest.approx(expected, abs=1e-7)


@settings(max_examples=20, deadline=None)
@given(sizes, st.integers(0, 1000), st.integers(1, 13))
def test_order_batches_and_dropped_rows_do_not_change_the_distance(n, seed, batch):
    reference = FrechetReference(Statistics.of(features(30, 12, 7)))
    rows = features(n, 12, seed, shift=0.3)
    expected = reference.distance(Statistics.of(rows))
    reversed_order, few_rows = Statistics(12), Statistics(12, max_rows=5)
    for features_batch in rows.flip(0).split(batch):
        reversed_order.add(features_batch)
        few_rows.add(features_batch)

    assert reference.distance(reversed_order) == pytest.approx(expected, abs=1e-9)
    assert reference.distance(few_rows) == pytest.approx(expected, abs=1e-6)
    assert len(few_rows.rows) == min(n, 5)


def test_indices_alone_decide_which_rows_are_sampled():
    indices = torch.arange(3000.0)[:, None]
    samples = {}
    for batch in (1, 64, 3000):
        statistics = Statistics(1, max_rows=300)
        for rows in indices.split(batch):
            statistics.add(rows)
        samples[batch] = statistics.rows.flatten()

    assert torch.equal(samples[1], samples[64])
    assert torch.equal(samples[1], samples[3000])
    sample = samples[1]
    assert len(sample) == len(sample.unique()) == 300
    assert torch.equal(sample, sample.sort().values)
    # About 30 from each tenth of the images, within five standard deviations.
    assert torch.histc(sample, 10, 0, 3000).sub(30).abs().max() < 26


def test_features_that_are_not_finite_are_refused():
    with_nan = features(5, 4)
    with_nan[2, 1] = float("nan")
    with pytest.raises(MetricError, match="must be finite numbers, but some are not"):
        Statistics.of(with_nan)


def test_features_of_two_networks_are_refused():
    with pytest.raises(MetricError, match="one has 4 dimensions and the other 6"):
        frechet_distance(Statistics.of(features(5, 4)), Statistics.of(features(5, 6)))


def test_streamed_moments_equal_those_of_all_features():
    whole = features(100, 16, shift=3.0)
    streamed = Statistics(16)
    for batch in whole.split(7):
        streamed.add(batch)

    np.testing.assert_allclose(streamed.mean, whole.mean(0), rtol=1e-12)
    np.testing.assert_allclose(streamed.covariance, np.cov(whole, rowvar=False), atol=1e-12)


def test_one_image_is_refused():
    one = Statistics.of(features(1, 4))
    with pytest.raises(MetricError, match="at least 2 images on each side, but got 1"):
        FrechetReference(one)


def test_cached_statistics_are_loaded_unchanged(tmp_path):
    file = tmp_path / "statistics" / "cached.npz"
    statistics = Statistics.of(features(10, 4))
    assert load_cached(file) is None
    save_cached(statistics, file)

    loaded = load_cached(file)
    assert loaded is not None
    assert loaded.count == 10
    assert torch.equal(loaded.outer, statistics.outer)
    assert list(file.parent.iterdir()) == [file]


def test_damaged_caches_are_ignored_and_pickles_never_opened(tmp_path):
    (tmp_path / "cached.npz").write_bytes(b"PK\x03\x04 cut off")
    assert load_cached(tmp_path / "cached.npz") is None

    (tmp_path / "evil.npz").write_bytes(pickle.dumps({"sum": 1}))
    assert load_cached(tmp_path / "evil.npz") is None


def reduce_on_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    whole = features(101, 24)
    for max_rows in (1000, 60):
        statistics = Statistics(24, max_rows=max_rows, first_index=40 * rank)
        statistics.add(whole[:40] if rank == 0 else whole[40:])
        statistics.all_reduce()
        if rank == 1:
            statistics.save(Path(folder, f"{max_rows}.npz"))
    dist.destroy_process_group()


def test_two_workers_have_the_statistics_of_one(tmp_path):
    run_two_workers(reduce_on_rank, str(tmp_path))
    reference = FrechetReference(Statistics.of(features(60, 24, 7, shift=0.5)))
    whole = features(101, 24)
    expected = reference.distance(Statistics.of(whole))
    for max_rows in (1000, 60):
        two = Statistics.load(tmp_path / f"{max_rows}.npz")

        assert two.count == 101
        assert two.holds_all_rows == (max_rows == 1000)
        one = Statistics(24, max_rows=max_rows)
        one.add(whole)
        assert torch.equal(two.rows, one.rows)
        assert reference.distance(two) == pytest.approx(expected, abs=1e-9)


def thermal_images(count, seed, low, high):
    random = np.random.default_rng(seed)
    coarse = random.integers(low, high, (count, 9, 9), np.uint8)
    return [np.asarray(Image.fromarray(c).resize((48, 48))) for c in coarse]


def test_efficientnet_needs_no_download_and_separates_dark_from_bright():
    extractor = build_extractor("efficientnet-lite0")
    dark, dark_too, bright = (
        torch.from_numpy(np.stack(thermal_images(12, seed, *span))[:, None])
        for seed, span in ((0, (0, 90)), (1, (0, 90)), (2, (90, 255)))
    )
    reference = FrechetReference(compute_statistics(extractor, dark.split(5)))

    assert extractor(dark).shape == (12, 1280)
    assert torch.equal(extractor(dark), extractor(dark.expand(-1, 3, -1, -1)))
    near = reference.distance(compute_statistics(extractor, [dark_too]))
    far = reference.distance(compute_statistics(extractor, [bright]))
    assert near < far


def test_metric_names_its_features():
    assert metric_name("inception") == "fid"
    assert metric_name("efficientnet-lite0") == "fd_efficientnet_lite0"
    with pytest.raises(MetricError, match=r"Unknown features 'vgg'.*inception"):
        metric_name("vgg")


def test_cached_statistics_file_names_the_weights(tmp_path):
    def file_name(seed):
        torch.manual_seed(seed)
        network = torch.nn.Linear(2, 2)
        extractor = Extractor("efficientnet-lite0", 2, network, lambda x: x)
        return cached_statistics_path(tmp_path, extractor, "val", 9).name

    assert file_name(0) == file_name(0) != file_name(1)


def test_weights_in_torch_home_are_loaded(inception_weights, tmp_path, monkeypatch):
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / WEIGHTS_FILE).symlink_to(inception_weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    assert build_extractor("inception").dimensions == 2048


def test_missing_weights_are_one_sentence(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    with pytest.raises(WeightsUnavailable) as raised:
        build_extractor("inception")

    message = str(raised.value)
    for part in (WEIGHTS_FILE, "--inception-weights FILE", "efficientnet-lite0", "no route"):
        assert part in message
    assert "\n" not in message


def test_file_without_weights_is_refused(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"not weights")
    with pytest.raises(WeightsUnavailable, match=r"--inception-weights must be .*weights\.pth"):
        build_extractor("inception", inception_weights=file)
    with pytest.raises(WeightsUnavailable, match="no such file"):
        build_extractor("inception", inception_weights=tmp_path / "absent.pth")


def test_inception_score_is_the_papers_formula():
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 3
    statistics = ClassStatistics(7)
    for batch in logits.split(8):
        statistics.add(batch)
    p = logits.double().softmax(1)
    divergence = (p * (p.log() - p.mean(0).log())).sum(1)

    assert statistics.score == pytest.approx(divergence.mean().exp().item(), rel=1e-9)


@pytest.mark.parametrize(
    ("logits", "score"), [(torch.zeros(6, 6), 1.0), (torch.ones(6).diag() * 1e3, 6.0)]
)
def test_inception_score_ranges_from_one_to_the_number_of_classes(logits, score):
    statistics = ClassStatistics(6)
    statistics.add(logits)

    assert statistics.score == pytest.approx(score)


def test_classes_of_efficientnet_are_those_of_the_whole_network():
    extractor = build_extractor("efficientnet-lite0")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    whole = extractor.network.network(extractor.preprocess(images.float()))

    assert torch.allclose(extractor.classify(extractor(images)), whole, atol=1e-4)
