"""Partitions a GPU into streams with multiprocessors of their own, by the driver's green contexts.

Work launched on such a stream, recorded graphs included, runs on its multiprocessors only. PyTorch
can create green contexts too, but not two that are disjoint.

Off (`CudaEngine`'s ``n_step_sms=0``), and not run on a GPU yet. The next run decides:
``python -m benchmarks.cuda_bench --parts overlap`` has to give, with 40 multiprocessors for steps,
10 % more ``packed, full`` windows per second than with 0. If it does not, this file goes, and with
it ``n_step_sms`` and the second slot of each stream (docs/lab-log.md, "The first runs").
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from typing import Any

import torch

SPLIT_ERRORS = (ImportError, AttributeError, TypeError, ValueError, RuntimeError)
"""What NVIDIA's bindings and PyTorch raise if the GPU cannot be partitioned."""

_SOURCE = "NVIDIA's driver, which cannot partition this GPU"


def split_gpu(
    device: torch.device, n_first: int, priorities: tuple[int, int]
) -> tuple[tuple[Any, int], tuple[Any, int]]:
    """Return two streams with disjoint multiprocessors, each with its number of multiprocessors.

    The first gets about ``n_first``, the second all others. Both last as long as the process.
    Raises ImportError without NVIDIA's bindings for Python, and RuntimeError if the driver has no
    green contexts or too few multiprocessors.
    """
    from cuda.bindings import driver

    def checked(result: tuple[Any, ...]) -> Any:
        status, *found = result
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"{status.name} of {_SOURCE}")
        return found[0] if len(found) == 1 else found

    torch.cuda.current_stream(device)  # creates PyTorch's own context first
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
    """Let the streams wait for each other, since they belong to different contexts of the driver.

    Raises RuntimeError if one cannot.
    """
    for one, other in permutations(streams, 2):
        one.wait_stream(other)
    torch.cuda.synchronize(device)


_DEFAULT_STREAM = 1
"""A flag that every green context needs."""
_NON_BLOCKING = 1
"""Does not synchronise with the legacy default stream."""


@contextmanager
def excluding_sms(n_multiprocessors: int) -> Iterator[None]:
    """Within the context, plan matrix products for a GPU with that many fewer multiprocessors.

    On GPUs of 2022 and later, such a product occupies all multiprocessors until it is done, and
    other kernels wait. With some left out, both run concurrently. Does nothing if PyTorch
    cannot pass the limit to its libraries.
    """
    limit = getattr(torch._C, "_set_sm_carveout_experimental", None)
    if not n_multiprocessors or limit is None or not torch.cuda.is_available():
        yield
        return
    library = torch.backends.cuda.preferred_blas_library()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that both are experimental; without them no limit is set
        torch.backends.cuda.preferred_blas_library(
            "cublaslt"
        )  # cuBLAS itself does not get the limit
        limit(n_multiprocessors)
    try:
        yield
    finally:
        limit(None)
        torch.backends.cuda.preferred_blas_library(library)
