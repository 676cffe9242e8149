"""Checks whether this machine can run the GPU engine; imports PyTorch only if it is installed."""

from __future__ import annotations

import logging
import warnings
from functools import cache
from importlib.util import find_spec

from batched_whisper.errors import EngineError, MissingExtra

log = logging.getLogger(__name__)

INSTALL = "pip install 'batched-whisper[cuda]'"


def has_pytorch() -> bool:
    """Return whether PyTorch is installed, without importing it."""
    return find_spec("torch") is not None


def has_gpu() -> bool:
    """Return whether PyTorch is installed and sees a GPU."""
    if not has_pytorch():
        return False
    import torch

    return bool(torch.cuda.is_available())


def count_gpus() -> int:
    """Return the number of GPUs that PyTorch sees; 0 without PyTorch."""
    if not has_gpu():
        return 0
    import torch

    return int(torch.cuda.device_count())


@cache
def why_unusable(gpu: int) -> str:
    """Return why PyTorch cannot compute on a GPU that it sees; an empty string if it can.

    It cannot on GPUs older or newer than those it was built for. Logs a warning, once.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's own; the reason is logged below
            torch.ones(1, device=f"cuda:{gpu}").add_(1).item()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        why = f"a CPU, because PyTorch sees GPU {gpu} and cannot compute on it: {reason}"
        log.warning("%s", why)
        return why
    return ""


def require_gpu(device: str) -> None:
    """Raise MissingExtra without PyTorch, and EngineError if it sees no GPU.

    ``device`` is the requested device, for the message.
    """
    if not has_pytorch():
        raise MissingExtra(
            f"device={device} needs PyTorch, which is not installed: {INSTALL}, or use device=cpu"
        )
    if not has_gpu():
        raise EngineError(
            f"device={device}: PyTorch sees no NVIDIA GPU here. Check that nvidia-smi lists one, "
            "that PyTorch was installed with CUDA, and that the driver is not too old for it, or "
            "use device=cpu"
        )
