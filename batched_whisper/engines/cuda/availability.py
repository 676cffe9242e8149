"""Whether this machine has what the GPU engine needs; PyTorch is imported only if it is there."""

from __future__ import annotations

import logging
import warnings
from functools import cache
from importlib.util import find_spec

from batched_whisper.errors import EngineError, MissingExtra

log = logging.getLogger(__name__)

INSTALL = "pip install 'batched-whisper[cuda]'"


def has_pytorch() -> bool:
    """Whether PyTorch is installed; it is not imported to find out."""
    return find_spec("torch") is not None


def has_gpu() -> bool:
    """Whether PyTorch is installed and sees a GPU."""
    if not has_pytorch():
        return False
    import torch

    return bool(torch.cuda.is_available())


def count_gpus() -> int:
    """How many GPUs PyTorch sees; 0 where it is not installed."""
    if not has_gpu():
        return 0
    import torch

    return int(torch.cuda.device_count())


@cache
def why_unusable(gpu: int) -> str:
    """Why PyTorch cannot compute on a GPU that it sees, in words; nothing where it can.

    One that is older, or newer, than those PyTorch was built for is such a GPU. Warns, once.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is told in our words
            torch.ones(1, device=f"cuda:{gpu}").add_(1).item()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        why = f"a CPU, because PyTorch sees GPU {gpu} and cannot compute on it: {reason}"
        log.warning("%s", why)
        return why
    return ""


def require_gpu(device: str) -> None:
    """Raises MissingExtra without PyTorch, EngineError where it sees no GPU.

    ``device`` is what was asked for, for the message.
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
