"""`thermal-search fid` equals `python -m pytorch_fid`, and refuses files that it cannot read."""

import numpy as np
import pytest
from PIL import Image
from pytorch_fid.fid_score import calculate_fid_given_paths, save_fid_stats

from thermal_search.cli import main
from thermal_search.errors import MetricError
from thermal_search.evaluation.fid import distance_between
from thermal_search.metrics.inception import WEIGHTS_FILE

FAST = {"features": "efficientnet-lite0"}


def draw_images(folder, count, low, high, size=40, seed=0):
    random = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(count):
        coarse = random.integers(low, high, (7, 7, 3), np.uint8)
        Image.fromarray(coarse).resize((size, size)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def folders(tmp_path):
    return draw_images(tmp_path / "dark", 5, 0, 120), draw_images(
        tmp_path / "bright", 4, 60, 255, seed=1
    )


# pytorch-fid passes scipy a deprecated argument, and takes roots of singular matrices.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_fid_equals_pytorch_fids_of_folders_and_of_its_statistics(
    folders, inception_weights, tmp_path, monkeypatch, capsys
):
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / WEIGHTS_FILE).symlink_to(inception_weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    first, second = map(str, folders)
    expected = calculate_fid_given_paths([first, second], 4, "cpu", 2048, num_workers=0)
    assert expected > 0.1
    statistics = str(tmp_path / "theirs.npz")
    save_fid_stats([second, statistics], 4, "cpu", 2048, num_workers=0)

    weights = ["--inception-weights", str(inception_weights)]
    for other in (second, statistics):
        capsys.readouterr()
        main(["fid", first, other, *weights])
        key, number = capsys.readouterr().out.split()
        assert key == "fid"
        assert float(number) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_saved_statistics_give_the_distance_of_their_folder(folders, tmp_path):
    first, second = folders
    saved = tmp_path / "saved.npz"
    expected = distance_between(first, second, save=saved, **FAST)

    assert expected[0] == "fd_efficientnet_lite0"
    assert distance_between(saved, second, **FAST) == pytest.approx(expected)
    assert distance_between(first, saved, **FAST)[1] == pytest.approx(0, abs=1e-6)


def test_statistics_of_other_features_are_refused(folders, tmp_path):
    first, second = folders
    saved = tmp_path / "saved.npz"
    distance_between(first, second, save=saved, **FAST)
    with pytest.raises(MetricError, match=r"saved\.npz was measured on .* fp32, but .* bf16"):
        distance_between(saved, second, precision="bf16", **FAST)
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(2048), sigma=np.identity(2048))
    with pytest.raises(MetricError, match=r"of pytorch-fid's Inception features in fp32, but this"):
        distance_between(first, tmp_path / "theirs.npz", **FAST)
    with np.load(saved) as content:
        np.savez(tmp_path / "nan.npz", **{**content, "sum": content["sum"] * np.nan})
    with pytest.raises(MetricError, match=r"nan\.npz must hold finite numbers"):
        distance_between(first, tmp_path / "nan.npz", **FAST)


def test_unwritable_save_file_is_one_sentence(folders, tmp_path):
    first, second = folders
    (tmp_path / "file").touch()
    for name, message in (
        ("saved", "must name a .npz file"),
        ("file/saved.npz", "cannot be written"),
    ):
        with pytest.raises(MetricError, match=message):
            distance_between(first, second, save=tmp_path / name, **FAST)


def test_images_of_several_sizes_are_measured_together(tmp_path):
    folder = draw_images(tmp_path / "mixed", 3, 0, 200, size=40)
    draw_images(tmp_path / "larger", 2, 0, 200, size=56, seed=1)
    for path in (tmp_path / "larger").iterdir():
        path.rename(folder / f"larger-{path.name}")
    _, distance = distance_between(
        folder, draw_images(tmp_path / "other", 4, 0, 200, seed=2), **FAST
    )

    assert distance > 0


def test_unreadable_images_are_named(folders):
    first, second = folders
    (second / "damaged.jpg").write_bytes(b"no image")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(second / "deep.png")
    with pytest.raises(MetricError) as raised:
        distance_between(first, second, **FAST)

    message = str(raised.value)
    for part in ("2 of 6 images in", "damaged.jpg", "deep.png: 16 bits per pixel", "repair or"):
        assert part in message
    assert "\n" not in message


def test_path_that_is_no_folder_and_no_statistics_is_refused(folders, tmp_path):
    first, _ = folders
    empty = tmp_path / "empty"
    empty.mkdir()
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"PK\x03\x04 cut off")
    single, odd = tmp_path / "single.npz", tmp_path / "odd.npz"
    with single.open("wb") as file:
        np.save(file, np.zeros(3))
    np.savez(odd, mu=np.zeros(3), sigma=np.identity(2))
    for other, message in (
        (tmp_path / "absent", "must be a folder of images or a .npz file"),
        (empty, "at least 2 images on each side, but .*empty holds 0"),
        (damaged, "must be statistics that thermal-search or pytorch-fid saved"),
        (single, "must be statistics that thermal-search or pytorch-fid saved"),
        (odd, r"mu \(3,\) and sigma \(2, 2\)"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["fid", str(first), str(other), "--features", "efficientnet-lite0"])


def test_features_that_are_not_finite_are_refused(folders, monkeypatch):
    first, second = folders
    monkeypatch.setattr(
        "thermal_search.metrics.efficientnet._preprocess", lambda pixels: pixels * float("nan")
    )
    with pytest.raises(MetricError, match="Features must be finite numbers, but some are not"):
        distance_between(first, second, **FAST)
