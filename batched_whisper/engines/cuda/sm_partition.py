"""Divides a GPU: streams with multiprocessors of their own, by the driver's green contexts.

What is launched on such a stream, recorded graphs included, runs on its multiprocessors alone.
PyTorch makes such contexts too, but not two that have nothing in common.

Off (`CudaEngine`'s ``n_step_sms=0``), and not run on a GPU yet. The next run decides:
``python -m benchmarks.cuda_bench --parts overlap`` has to give, with 40 multiprocessors for steps,
10 % more ``packed, full`` windows per second than with 0. If it does not, this file goes, and with
it ``n_step_sms`` and the second place of each stream (docs/lab-log.md, "The first runs").
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from typing import Any

import torch

SPLIT_ERRORS = (ImportError, AttributeError, TypeError, ValueError, RuntimeError)
"""What NVIDIA's bindings and PyTorch raise where they cannot."""

_SOURCE = "NVIDIA's driver, which cannot split_gpu this GPU"


def split_gpu(
    device: torch.device, n_first: int, priorities: tuple[int, int]
) -> tuple[tuple[Any, int], tuple[Any, int]]:
    """Two streams of PyTorch's and the multiprocessors of each: about ``n_first``, and the others.

    Both last as long as the process. Raises ImportError without NVIDIA's bindings for Python, and
    RuntimeError where the driver has no such contexts or not so many multiprocessors.
    """
    from cuda.bindings import driver

    def checked(result: tuple[Any, ...]) -> Any:
        status, *found = result
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"{status.name} of {_SOURCE}")
        return found[0] if len(found) == 1 else found

    torch.cuda.current_stream(device)  # PyTorch's own context is there before
    gpu = checked(driver.cuDeviceGet(device.index))
    kind = driver.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM
    everything = checked(driver.cuDeviceGetDevResource(gpu, kind))
    groups, _, others = checked(driver.cuDevSmResourceSplitByCount(1, everything, 0, n_first))

    def stream(resource: Any, priority: int) -> tuple[Any, int]:
        description = checked(driver.cuDevResourceGenerateDesc([resource], 1))
        context = checked(driver.cuGreenCtxCreate(description, gpu, _DEFAULT_STREAM))
        made = checked(driver.cuGreenCtxStreamCreate(context, _NON_BLOCKING, priority))
        return torch.cuda.ExternalStream(int(made), device), int(resource.sm.smCount)

    return stream(groups[0], priorities[0]), stream(others, priorities[1])


def check_streams(device: torch.device, streams: Sequence[Any]) -> None:
    """Let streams wait for each other. Raises RuntimeError where one may not.

    That one may is not a matter of constraints: they belong to different contexts of the driver.
    """
    for one, other in permutations(streams, 2):
        one.wait_stream(other)
    torch.cuda.synchronize(device)


_DEFAULT_STREAM = 1
"""What every such context has to have."""
_NON_BLOCKING = 1
"""Without ado for the stream that everything without a stream goes to."""


@contextmanager
def excluding_sms(n_multiprocessors: int) -> Iterator[None]:
    """Within it, products of matrices are made for a GPU that has so many multiprocessors fewer.

    On GPUs of 2022 and later such a product takes every multiprocessor there is until it is done,
    and what runs beside it waits. With some left out both run at the same time. Where PyTorch
    cannot say so to its libraries, nothing is left.
    """
    limit = getattr(torch._C, "_set_sm_carveout_experimental", None)
    if not n_multiprocessors or limit is None or not torch.cuda.is_available():
        yield
        return
    library = torch.backends.cuda.preferred_blas_library()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that both may be gone one day: then nothing is left
        torch.backends.cuda.preferred_blas_library("cublaslt")  # the other one is not told
        limit(n_multiprocessors)
    try:
        yield
    finally:
        limit(None)
        torch.backends.cuda.preferred_blas_library(library)
