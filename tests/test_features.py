"""Extractors compute the features of the original networks; encoders are loaded from files."""

import os

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch
from onnx import TensorProto, helper
from pytorch_fid.inception import InceptionV3
from torch import nn

from thermal_search.errors import MetricError, WeightsUnavailable
from thermal_search.metrics import build_extractor, metric_name
from thermal_search.metrics.efficientnet import build_efficientnet
from thermal_search.metrics.extractor import Extractor, fold_batch_norm
from thermal_search.metrics.inception import WEIGHTS_FILE


def random_images(count, size=64, channels=1):
    random = torch.Generator().manual_seed(0)
    shape = (count, channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)


@pytest.fixture
def original_inception(inception_weights, tmp_path, monkeypatch):
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / WEIGHTS_FILE).symlink_to(inception_weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return InceptionV3([3]).eval()


@torch.no_grad()
def test_folded_inception_has_pytorch_fids_features(inception_weights, original_inception):
    images = random_images(2, channels=3)
    expected = original_inception(images.float() / 255)[0].flatten(1)
    exact = build_extractor("inception", inception_weights=inception_weights)
    coarse = build_extractor("inception", inception_weights=inception_weights, precision="bf16")

    assert not any(isinstance(module, nn.BatchNorm2d) for module in exact.network.modules())
    assert (exact(images) - expected).norm() <= 1e-5 * expected.norm()
    assert 1e-5 < (coarse(images) - expected).norm() / expected.norm() < 0.05
    # The same weights, but not the same protocol.
    assert exact.digest == coarse.digest
    one, other = (extractor.protocol(images=2, size=64) for extractor in (exact, coarse))
    assert (one.precision, other.precision) == ("fp32", "bf16")
    assert one != other


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("bf16", True)])
def test_fp32_features_are_computed_without_tf32(precision, allowed):
    """TF32 exists on GPUs only; the setting is the same on a CPU."""
    settings, network = [], nn.Flatten()
    network.register_forward_hook(lambda *_: settings.append(torch.backends.cudnn.allow_tf32))
    Extractor("flat", 27, network, lambda pixels: pixels, precision=precision)(
        random_images(1, size=3)
    )

    assert settings == [allowed]
    assert torch.backends.cudnn.allow_tf32


def test_folding_batch_norm_changes_no_output():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5))
    for value in block[1].state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 2)
    block.eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = block(images)
        fold_batch_norm(block, "0", "1")
        assert torch.allclose(block(images), expected, atol=1e-5)


def test_efficientnet_in_bf16_is_close_to_fp32():
    images = random_images(2)
    exact, coarse = (
        build_efficientnet(None, "fp32")(images),
        build_efficientnet(None, "bf16")(images),
    )

    assert coarse.dtype == torch.float32
    assert 1e-5 < (coarse - exact).norm() / exact.norm() < 0.1


class Small(nn.Module):
    """Mean colors of the quarters: 12 features."""

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


@pytest.fixture(params=["any batch size", "batches of three"])
def program(request, tmp_path):
    is_any = request.param == "any batch size"
    shapes = ({0: torch.export.Dim.AUTO},) if is_any else None
    exported = torch.export.export(Small(), (torch.rand(3, 3, 32, 32),), dynamic_shapes=shapes)
    file = tmp_path / "DINO v2-small.pt2"
    torch.export.save(exported, file)
    return file


def save_onnx(file, returned, rank):
    """The mean over the image: three features; with `rank` 4, of shape [batch, 3, 1, 1]."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, returned)
    node = helper.make_node("ReduceMean", ["image", "axes"], ["features"], keepdims=int(rank == 4))
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    graph = helper.make_graph([node], "mean", [image], [features], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, file)


def test_exported_program_is_an_encoder(program):
    images = random_images(5, size=32)
    extractor = build_extractor(str(program))

    assert extractor.metric == metric_name(str(program)) == "fd_dino_v2_small"
    assert extractor.dimensions == 12
    expected = Small()(images.expand(-1, 3, -1, -1).float() / 255)
    assert torch.allclose(extractor(images), expected, atol=1e-6)
    assert extractor(random_images(2, size=80)).shape == (2, 12)
    assert extractor.protocol(images=5, size=80).resize == "80 px, antialiased to 32 x 32 px"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_onnx_file_is_an_encoder(tmp_path):
    images = random_images(5, size=32, channels=3)
    save_onnx(tmp_path / "clip.onnx", ["n", 3], rank=2)
    extractor = build_extractor(str(tmp_path / "clip.onnx"))

    assert (extractor.metric, extractor.dimensions) == ("fd_clip", 3)
    expected = images.float().mean((2, 3)) / 255
    assert torch.allclose(extractor(images), expected, atol=1e-5)


def test_another_file_of_the_same_name_has_another_protocol(tmp_path):
    save_onnx(tmp_path / "clip.onnx", ["n", 3], rank=2)
    before = build_extractor(str(tmp_path / "clip.onnx")).protocol(images=1, size=32)
    save_onnx(tmp_path / "clip.onnx", ["m", 3], rank=2)

    assert build_extractor(str(tmp_path / "clip.onnx")).protocol(images=1, size=32) != before


def test_encoder_without_vectors_as_output_is_refused(tmp_path):
    save_onnx(tmp_path / "flat.onnx", ["n", 3, 1, 1], rank=4)
    with pytest.raises(
        WeightsUnavailable, match=r"\[batch, dimensions\], but returned \[1, 3, 1, 1\]"
    ):
        build_extractor(str(tmp_path / "flat.onnx"))


def test_encoder_with_weights_in_another_file_is_refused(tmp_path):
    """Their changes would not change the digest."""
    file = tmp_path / "clip.onnx"
    save_onnx(file, ["n", 3], rank=2)
    model = onnx.load(file)
    weights = np.ones((3, 3), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    model.graph.node.append(helper.make_node("MatMul", ["features", "weights"], ["end"]))
    model.graph.output[0].name = "end"
    onnx.save(model, file, save_as_external_data=True, location="clip.data", size_threshold=0)
    assert (tmp_path / "clip.data").exists()
    with pytest.raises(WeightsUnavailable, match="save it again, as one file"):
        build_extractor(str(file))
    onnx.save(onnx.load(file), file)
    assert build_extractor(str(file)).dimensions == 3


@pytest.mark.parametrize("name", ["dino.pt2", "clip.onnx"])
def test_file_that_is_no_encoder_is_refused(tmp_path, name):
    file = tmp_path / name
    with pytest.raises(WeightsUnavailable, match=f"{name} is not there"):
        build_extractor(str(file))
    file.write_bytes(b"not an encoder")
    with pytest.raises(WeightsUnavailable, match=f"{name} cannot be used as that") as raised:
        build_extractor(str(file))
    assert "\n" not in str(raised.value)


def test_precision_of_an_encoder_file_cannot_be_set(tmp_path):
    with pytest.raises(MetricError, match="its own precision, but bf16 was requested"):
        build_extractor(str(tmp_path / "dino.pt2"), precision="bf16")


def test_missing_onnxruntime_is_one_sentence(tmp_path, monkeypatch):
    save_onnx(tmp_path / "clip.onnx", ["n", 3], rank=2)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsUnavailable, match=r"onnxruntime, .*thermal-search\[onnx\]"):
        build_extractor(str(tmp_path / "clip.onnx"))
