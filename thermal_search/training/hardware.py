"""Choices that depend on the device: precision, memory format, cudnn's benchmark, and the memory of
a process that shares a GPU."""

import functools
import time
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from thermal_search.architectures.translator import Translator

ComputePrecision = Literal["bf16", "fp32"]
"""Precision of the forward pass in training; weights and optimizers are float32."""

CONTEXT_BYTES = 3 * 2**28
"""Of a GPU's memory, what each process takes beside torch's allocator: CUDA's context and the
kernels of cuDNN and cuBLAS (about half a GiB)."""


def limit_memory(device: torch.device, share: float) -> None:
    """Keeps this process to a share (above 0 .. 1) of its GPU, so that it cannot take the memory of
    others.

    The allocator then raises OutOfMemoryError where it would have grown; the pools of CUDA graphs
    are its own, and count.
    """
    if device.type == "cuda" and share < 1:
        # By its number, or the current one: torch limits no device that is only "cuda".
        fraction = memory_fraction(share, torch.cuda.mem_get_info(device.index)[1])
        torch.cuda.set_per_process_memory_fraction(fraction, device.index)


def memory_fraction(share: float, device_bytes: int) -> float:
    """The fraction of a GPU's memory that the allocator may use: the share without the context, but
    at least half of it."""
    return max(share - CONTEXT_BYTES / device_bytes, share / 2)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of its GPU, in torch or in a library below it."""
    is_named = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    text = str(error).lower()  # cuBLAS says CUBLAS_STATUS_ALLOC_FAILED
    return is_named or "alloc" in text or "cuda error: out of memory" in text


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

    Channels last is faster on a GPU with batch normalization. torch's instance normalization
    converts it back, so with that it is slower.
    """
    has_batch_norm = any(isinstance(m, nn.BatchNorm2d) for m in translator.modules())
    use_channels_last = device.type == "cuda" and has_batch_norm
    return torch.channels_last if use_channels_last else torch.contiguous_format


def use_cudnn_benchmark(translator: Translator, device: torch.device) -> bool:
    """Whether cudnn benchmarks its algorithms for each new shape and keeps the fastest.

    A benchmark costs seconds per shape, which only thousands of steps repay. A translator that
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
