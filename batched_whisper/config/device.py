"""Which processors and GPUs an engine may run on: how that is written, and what it comes to.

It knows spellings and numbers. Which GPUs a machine has is asked elsewhere (`engines.factory`),
and told to `resolve`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from batched_whisper.errors import EngineError, OptionError

DEVICE_SYNTAX = "auto, cpu, cuda, cuda:1 (that GPU), cuda:0,2 (those) or cuda:all"
"""What ``device`` may be, in words."""


class DeviceKind(Enum):
    """What kind of device is asked for."""

    AUTO = "auto"  # a GPU if there is one, else the processor
    CPU = "cpu"
    ALL_GPUS = "cuda:all"
    GPU_LIST = "cuda"  # the first, or after a colon which


@dataclass(frozen=True)
class Devices:
    """Where engines run: one on each of these GPUs, or on the processor where there is none.

    ``gpus`` are PyTorch's numbers of those that it sees, which is after CUDA_VISIBLE_DEVICES.
    ``why`` says why, where they are not those that one would think.
    """

    gpus: tuple[int, ...] = ()
    why: tuple[str, ...] = ()

    @property
    def on_gpu(self) -> bool:
        """Whether it is GPUs."""
        return bool(self.gpus)

    def __str__(self) -> str:
        if not self.gpus:
            return "a CPU"
        return "a GPU" if len(self.gpus) == 1 else f"{len(self.gpus)} GPUs"


@dataclass(frozen=True)
class DeviceOption:
    """The option ``device``, read.

    ``numbers`` are those of the GPUs named; of `DeviceKind.AUTO` the one that it would be.
    """

    text: str
    kind: DeviceKind
    numbers: tuple[int, ...] = ()

    def resolve(self, n_gpus: int) -> Devices:
        """What it comes to where PyTorch sees so many GPUs.

        Raises:
            EngineError: GPUs are asked for that are not there.
        """
        if self.kind is DeviceKind.CPU or (self.kind is DeviceKind.AUTO and not n_gpus):
            return Devices()
        there = tuple(range(n_gpus))
        if self.kind is DeviceKind.ALL_GPUS:
            return Devices(there)
        for number in self.numbers:
            if number not in there:
                raise EngineError(
                    f"device={self.text}: there is no GPU {number}: PyTorch sees {n_gpus} here "
                    f"({listed(there)}); CUDA_VISIBLE_DEVICES, where it is set, hides others"
                )
        return Devices(self.numbers)

    def n_gpus(self, count: Callable[[], int]) -> int:
        """How many GPUs are asked for; whether they are there is not looked at.

        ``count`` tells how many PyTorch sees, if that matters.
        """
        if self.kind is DeviceKind.ALL_GPUS:
            return max(1, count())
        if self.kind is DeviceKind.AUTO:
            return min(1, count())
        return len(self.numbers)


_WORDS = (
    DeviceOption("auto", DeviceKind.AUTO, (0,)),
    DeviceOption("cpu", DeviceKind.CPU),
    DeviceOption("cuda", DeviceKind.GPU_LIST, (0,)),
    DeviceOption("cuda:all", DeviceKind.ALL_GPUS),
)


def read_device(text: str) -> DeviceOption:
    """Read the option ``device``. Raises OptionError for what it cannot be."""
    for option in _WORDS:
        if text == option.text:
            return option
    kind, _, numbers = text.partition(":")
    if kind != DeviceKind.GPU_LIST.value:
        raise OptionError(f"device={text!r}: use {DEVICE_SYNTAX}")
    return DeviceOption(text, DeviceKind.GPU_LIST, _numbers(text, numbers.split(",")))


def _numbers(text: str, parts: Sequence[str]) -> tuple[int, ...]:
    parts = [part.strip() for part in parts]
    if not all(part.isascii() and part.isdecimal() and len(part) < 5 for part in parts):
        raise OptionError(
            f"device={text!r}: after cuda: come the numbers of GPUs, from 0 on and with commas "
            f"between them, or the word all; use {DEVICE_SYNTAX}"
        )
    numbers = tuple(int(part) for part in parts)
    twice = [number for i, number in enumerate(numbers) if number in numbers[:i]]
    if twice:
        raise OptionError(f"device={text!r}: GPU {twice[0]} stands there twice; name it once")
    return numbers


def check_device(name: str, value: str) -> None:
    """Whether the option can be read: the declaration's check. Raises OptionError."""
    read_device(value)


def listed(numbers: Sequence[int]) -> str:
    """Numbers with commas between them."""
    return ", ".join(map(str, numbers))
