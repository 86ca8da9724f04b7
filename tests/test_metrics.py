"""The distance is what pytorch-fid computes, and what the closed forms say."""

import pickle
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pytorch_fid.fid_score import calculate_frechet_distance

from thermal_search.errors import MetricError, WeightsUnavailable
from thermal_search.metrics import (
    ClassStatistics,
    Extractor,
    Moments,
    Reference,
    Statistics,
    build_extractor,
    cached_statistics_path,
    frechet_distance,
    keep,
    load_cached,
    measure,
    metric_name,
)
from thermal_search.metrics.inception import WEIGHTS_FILE


def features(count, dimensions, seed=0, shift=0.0, scale=1.0):
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.normal(shift, scale, (count, dimensions)))


def gaussian(mean, covariance):
    return Moments(np.array(mean), torch.as_tensor(covariance, dtype=torch.float64).numpy())


def test_equal_sets_have_no_distance():
    same = features(50, 8)

    assert frechet_distance(Statistics.of(same), Statistics.of(same)) == pytest.approx(0, abs=1e-9)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3))
def test_shifted_gaussians_are_apart_by_the_square_of_the_shift(shift):
    covariance = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    expected = sum(value**2 for value in shift)

    found = frechet_distance(gaussian([0.0, 0, 0], covariance), gaussian(shift, covariance))
    assert found == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.floats(0.1, 9), min_size=3, max_size=3))
def test_gaussians_of_other_width_are_apart_by_the_difference_of_deviations(variances):
    found = frechet_distance(
        gaussian([0.0, 0, 0], torch.eye(3)),
        gaussian([0.0, 0, 0], torch.diag(torch.tensor(variances, dtype=torch.float64))),
    )

    assert found == pytest.approx(sum((v**0.5 - 1) ** 2 for v in variances), abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(5, 60), st.integers(5, 60), st.integers(0, 1000))
# pytorch-fid passes scipy an argument that is on its way out, and roots singular matrices.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_agrees_with_pytorch_fid_below_and_above_full_rank(n, m, seed):
    a, b = features(n, 20, seed), features(m, 20, seed + 1, shift=0.3, scale=1.5)
    expected = calculate_frechet_distance(
        a.mean(0).numpy(), np.cov(a, rowvar=False), b.mean(0).numpy(), np.cov(b, rowvar=False)
    )

    found = frechet_distance(Statistics.of(a), Statistics.of(b))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)


sizes = st.integers(2, 40)


def truth(a, b):
    """By the singular values of the features themselves: nothing is squared, nothing rooted."""
    a, b = a.double().numpy(), b.double().numpy()
    centered = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    traces = sum(np.square(x).sum() for x in centered)
    norm = np.linalg.svd(centered[0] @ centered[1].T, compute_uv=False).sum()
    return np.square(a.mean(0) - b.mean(0)).sum() + traces - 2 * norm


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.integers(0, 1000), st.integers(1, 16))
def test_the_distance_is_exact_at_any_rank(n, m, seed, rank):
    # 16 dimensions of which only `rank` are filled: dead features make singular covariances.
    mixing = features(rank, 16, 5000 + seed)
    a, b = features(n, rank, seed) @ mixing, features(m, rank, seed + 1, shift=0.5) @ mixing
    expected = truth(a, b)

    found = frechet_distance(Statistics.of(a), Statistics.of(b))
    assert found == pytest.approx(expected, abs=1e-6)
    assert frechet_distance(Statistics.of(b), Statistics.of(a)) == pytest.approx(found, abs=2e-6)
    moments = [Moments(s.mean, s.covariance) for s in (Statistics.of(a), Statistics.of(b))]
    assert frechet_distance(*moments) == pytest.approx(expected, abs=1e-6)


def steep(count, seed):
    """Variances from 100 down to 1e-9 of it: squared, the least are lost in rounding."""
    mixing = torch.linalg.qr(features(160, 160, 3)).Q
    return features(count, 160, seed) * torch.arange(160).mul(-0.1).exp() @ mixing * 10


def collapsed(count, seed):
    """A generator that paints one of two images whatever it is shown."""
    return steep(2, seed)[torch.arange(count) % 2]


@pytest.mark.parametrize("paint", [steep, collapsed])
@pytest.mark.parametrize("count", [90, 400])
def test_rounding_is_not_rooted(paint, count):
    painted, real = paint(count, 1), steep(500, 2)
    expected = truth(painted, real)
    sides = [Statistics.of(rows) for rows in (painted, real)]

    assert frechet_distance(*sides) == pytest.approx(expected, abs=1e-7)
    assert frechet_distance(*reversed(sides)) == pytest.approx(expected, abs=1e-7)
    moments = [Moments(side.mean, side.covariance) for side in sides]
    assert frechet_distance(*moments) == pytest.approx(expected, abs=1e-7)


@settings(max_examples=20, deadline=None)
@given(sizes, st.integers(0, 1000), st.integers(1, 13))
def test_neither_order_nor_batches_nor_forgotten_rows_change_the_distance(n, seed, batch):
    reference = Reference(Statistics.of(features(30, 12, 7)))
    rows = features(n, 12, seed, shift=0.3)
    expected = reference.distance(Statistics.of(rows))
    turned, few_kept = Statistics(12), Statistics(12, kept=5)
    for part in rows.flip(0).split(batch):
        turned.add(part)
        few_kept.add(part)

    assert reference.distance(turned) == pytest.approx(expected, abs=1e-9)
    assert reference.distance(few_kept) == pytest.approx(expected, abs=1e-6)
    assert len(few_kept.rows) == min(n, 5)


def test_of_many_rows_a_random_choice_is_kept_by_their_numbers_alone():
    numbers = torch.arange(3000.0)[:, None]
    batches = {}
    for batch in (1, 64, 3000):
        statistics = Statistics(1, kept=300)
        for part in numbers.split(batch):
            statistics.add(part)
        batches[batch] = statistics.rows.flatten()

    assert torch.equal(batches[1], batches[64])
    assert torch.equal(batches[1], batches[3000])
    chosen = batches[1]
    assert len(chosen) == len(chosen.unique()) == 300
    assert torch.equal(chosen, chosen.sort().values)
    # Of every tenth of the images about as many: 30, within five standard deviations.
    assert torch.histc(chosen, 10, 0, 3000).sub(30).abs().max() < 26


def test_features_that_are_not_finite_are_refused():
    broken = features(5, 4)
    broken[2, 1] = float("nan")
    with pytest.raises(MetricError, match="must be finite numbers, but some are not"):
        Statistics.of(broken)


def test_features_of_two_networks_have_no_distance():
    with pytest.raises(MetricError, match="one has 4 dimensions and the other 6"):
        frechet_distance(Statistics.of(features(5, 4)), Statistics.of(features(5, 6)))


def test_batches_add_up_to_the_whole():
    whole = features(100, 16, shift=3.0)
    streamed = Statistics(16)
    for batch in whole.split(7):
        streamed.add(batch)

    np.testing.assert_allclose(streamed.mean, whole.mean(0), rtol=1e-12)
    np.testing.assert_allclose(streamed.covariance, np.cov(whole, rowvar=False), atol=1e-12)


def test_one_image_has_no_covariance():
    one = Statistics.of(features(1, 4))
    with pytest.raises(MetricError, match="at least 2 images on each side, but got 1"):
        Reference(one)


def test_statistics_are_kept_and_found_again(tmp_path):
    file = tmp_path / "statistics" / "kept.npz"
    statistics = Statistics.of(features(10, 4))
    assert load_cached(file) is None
    keep(statistics, file)

    found = load_cached(file)
    assert found is not None
    assert found.count == 10
    assert torch.equal(found.outer, statistics.outer)
    assert list(file.parent.iterdir()) == [file]


def test_damaged_statistics_are_measured_again(tmp_path):
    (tmp_path / "kept.npz").write_bytes(b"PK\x03\x04 cut off")
    assert load_cached(tmp_path / "kept.npz") is None

    # A pickle is never opened.
    (tmp_path / "evil.npz").write_bytes(pickle.dumps({"sum": 1}))
    assert load_cached(tmp_path / "evil.npz") is None


def sum_in_two_processes(rank, place):
    dist.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=2)
    whole = features(101, 24)
    for kept in (1000, 60):
        statistics = Statistics(24, kept=kept, start=40 * rank)
        statistics.add(whole[:40] if rank == 0 else whole[40:])
        statistics.all_reduce()
        if rank == 1:
            statistics.save(Path(place, f"{kept}.npz"))
    dist.destroy_process_group()


def test_two_workers_find_the_same_number_as_one(tmp_path):
    multiprocessing.spawn(sum_in_two_processes, (str(tmp_path),), nprocs=2)
    reference = Reference(Statistics.of(features(60, 24, 7, shift=0.5)))
    whole = features(101, 24)
    expected = reference.distance(Statistics.of(whole))
    for kept in (1000, 60):
        two = Statistics.load(tmp_path / f"{kept}.npz")

        assert two.count == 101
        assert two.holds_all_rows == (kept == 1000)
        one = Statistics(24, kept=kept)
        one.add(whole)
        assert torch.equal(two.rows, one.rows)
        assert reference.distance(two) == pytest.approx(expected, abs=1e-9)


def thermal_pictures(count, seed, low, high):
    random = np.random.default_rng(seed)
    coarse = random.integers(low, high, (count, 9, 9), np.uint8)
    return [np.asarray(Image.fromarray(c).resize((48, 48))) for c in coarse]


def test_efficientnet_needs_no_download_and_tells_pictures_apart():
    extractor = build_extractor("efficientnet-lite0")
    dark, dark_too, bright = (
        torch.from_numpy(np.stack(thermal_pictures(12, seed, *span))[:, None])
        for seed, span in ((0, (0, 90)), (1, (0, 90)), (2, (90, 255)))
    )
    reference = Reference(measure(extractor, dark.split(5)))

    assert extractor(dark).shape == (12, 1280)
    assert torch.equal(extractor(dark), extractor(dark.expand(-1, 3, -1, -1)))
    near = reference.distance(measure(extractor, [dark_too]))
    far = reference.distance(measure(extractor, [bright]))
    assert near < far


def test_the_metrics_name_tells_its_features():
    assert metric_name("inception") == "fid"
    assert metric_name("efficientnet-lite0") == "fd_efficientnet_lite0"
    with pytest.raises(MetricError, match=r"Unknown features 'vgg'.*inception"):
        metric_name("vgg")


def test_the_file_of_kept_statistics_tells_the_weights(tmp_path):
    def named(seed):
        torch.manual_seed(seed)
        network = torch.nn.Linear(2, 2)
        extractor = Extractor("efficientnet-lite0", 2, network, lambda x: x)
        return cached_statistics_path(tmp_path, extractor, "val", 9).name

    assert named(0) == named(0) != named(1)


def test_weights_in_torch_home_are_found(inception_weights, tmp_path, monkeypatch):
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / WEIGHTS_FILE).symlink_to(inception_weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    assert build_extractor("inception").dimensions == 2048


def test_missing_weights_are_explained_in_one_sentence(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    with pytest.raises(WeightsUnavailable) as raised:
        build_extractor("inception")

    message = str(raised.value)
    for told in (WEIGHTS_FILE, "--inception-weights FILE", "efficientnet-lite0", "no route"):
        assert told in message
    assert "\n" not in message


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsUnavailable, match=r"--inception-weights must be .*weights\.pth"):
        build_extractor("inception", inception_weights=file)
    with pytest.raises(WeightsUnavailable, match="no such file"):
        build_extractor("inception", inception_weights=tmp_path / "absent.pth")


def test_the_inception_score_is_the_papers_formula():
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 3
    statistics = ClassStatistics(7)
    for batch in logits.split(8):
        statistics.add(batch)
    said = logits.double().softmax(1)
    divergence = (said * (said.log() - said.mean(0).log())).sum(1)

    assert statistics.score == pytest.approx(divergence.mean().exp().item(), rel=1e-9)


@pytest.mark.parametrize(("logits", "score"), [(torch.zeros(6, 6), 1.0), (torch.eye(6) * 1e3, 6.0)])
def test_the_inception_score_goes_from_one_to_the_number_of_classes(logits, score):
    statistics = ClassStatistics(6)
    statistics.add(logits)

    assert statistics.score == pytest.approx(score)


def test_efficientnet_names_its_classes_as_the_whole_network_does():
    extractor = build_extractor("efficientnet-lite0")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    whole = extractor.network.network(extractor.prepare(images.float()))

    assert torch.allclose(extractor.classify(extractor(images)), whole, atol=1e-4)
