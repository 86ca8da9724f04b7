"""What the device at hand computes fastest with: precision, memory format, cudnn's algorithms."""

import functools
import time
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from thermal_search.architectures.translator import Translator

ComputePrecision = Literal["bf16", "fp32"]
"""Of the forward pass in training; weights and optimizers are float32."""


def autocast_for(device: torch.device, precision: ComputePrecision) -> torch.autocast:
    """A context in which forward passes run in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@functools.cache
def fastest_precision(device: torch.device) -> ComputePrecision:
    """bf16 if the hardware is faster with it.

    A GPU that supports bf16 is. CPUs that have the instructions may still be slower with them, so
    there a convolution of the common shape is timed in both.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    if not (capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")):
        return "fp32"
    return "bf16" if _time_convolution(torch.bfloat16) < _time_convolution(None) else "fp32"


def fastest_memory_format(translator: nn.Module, device: torch.device) -> torch.memory_format:
    """The memory format for the weights of convolutions; their features follow it.

    A GPU's matrix units take channels last without a transposition, which pays off beside batch
    normalization. torch's instance normalization transposes them itself, and costs more.
    """
    has_batch_norm = any(isinstance(m, nn.BatchNorm2d) for m in translator.modules())
    is_last = device.type == "cuda" and has_batch_norm
    return torch.channels_last if is_last else torch.contiguous_format


def use_cudnn_benchmark(translator: Translator, device: torch.device) -> bool:
    """Whether cudnn benchmarks its algorithms for each new shape and keeps the fastest.

    A benchmark takes seconds for each shape, which thousands of steps give back. A translator that
    grows has new shapes at each resolution.
    """
    return device.type == "cuda" and not translator.grows


def _time_convolution(dtype: torch.dtype | None) -> float:
    """The shortest of four times in seconds; `dtype` None computes in float32."""
    images, weights = torch.ones(1, 256, 32, 32), torch.ones(256, 256, 3, 3)
    times: list[float] = []
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype is not None):
        for _ in range(4):
            started = time.perf_counter()
            F.conv2d(images, weights)
            times.append(time.perf_counter() - started)
    return min(times)
