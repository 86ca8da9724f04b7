"""An error in a trial: a result of the trial, or a fault of its machine."""

import errno
import os
import socket

import pytest
import torch
from ray.exceptions import ActorDiedError, OutOfMemoryError

from thermal_search.errors import SearchError, StorageError
from thermal_search.tuning.slots.worker_loop import failure_of
from thermal_search.tuning.summary import OUT_OF_SHARED_MEMORY


def of_system(number, file="/out/state.pt"):
    return OSError(number, os.strerror(number), file)


@pytest.mark.parametrize(
    ("error", "status", "stops_search", "reason"),
    [
        (of_system(errno.ENOSPC), "interrupted", True, "No space left on device (/out/state.pt)"),
        (of_system(errno.ENOMEM, None), "interrupted", True, "Cannot allocate memory"),
        (of_system(errno.ESTALE), "interrupted", True, "Stale file handle (/out/state.pt)"),
        (StorageError("s3://b: access is denied."), "interrupted", True, "access is denied"),
        (OutOfMemoryError("the node runs low on memory"), "interrupted", False, "low on memory"),
        (ActorDiedError(), "interrupted", False, "died"),
        # Too large a network for a machine that has memory: another try would fail in the same way.
        (MemoryError(), "failed", False, "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "failed", False, "out of memory"),
        (SearchError("Unknown parameters of wgan: x"), "failed", False, "Unknown parameters"),
        (ZeroDivisionError("division by zero"), "failed", False, "ZeroDivisionError"),
    ],
)
def test_what_a_machine_refuses_interrupts_a_trial(error, status, stops_search, reason):
    report = failure_of(error)

    assert (report.status, report.stops_search) == (status, stops_search)
    assert reason in report.reason
    assert (socket.gethostname() in report.reason) == (status == "interrupted")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "interrupted"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "interrupted"),
        (RuntimeError("CUDNN_BACKEND: could not alloc a workspace"), "interrupted"),
        (RuntimeError("CUDA error: out of memory"), "interrupted"),
        (ZeroDivisionError("division by zero"), "failed"),
    ],
)
def test_what_does_not_fit_a_share_of_a_gpu_waits_for_a_whole_one(error, status):
    report = failure_of(error, gpu_share=0.25)

    assert (report.status, report.stops_search) == (status, False)
    assert report.reason.startswith(OUT_OF_SHARED_MEMORY) == (status == "interrupted")
