"""Which processors and GPUs an engine may run on: how that is written, and what it comes to.

It knows spellings and numbers. Which GPUs a machine has is asked elsewhere (`engines.factory`),
and told to `chosen`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from batched_whisper.errors import EngineError, OptionError

SPELLINGS = "auto, cpu, cuda, cuda:1 (that GPU), cuda:0,2 (those) or cuda:all"
"""What ``device`` may be, in words."""


class Wanted(Enum):
    """What kind of device is asked for."""

    BEST = "auto"  # a GPU if there is one, else the processor
    PROCESSOR = "cpu"
    EVERY_GPU = "cuda:all"
    THESE_GPUS = "cuda"  # the first, or after a colon which


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

    ``numbers`` are those of the GPUs named; of `Wanted.BEST` the one that it would be.
    """

    spelled: str
    wanted: Wanted
    numbers: tuple[int, ...] = ()

    def chosen(self, n_gpus: int) -> Devices:
        """What it comes to where PyTorch sees so many GPUs.

        Raises:
            EngineError: GPUs are asked for that are not there.
        """
        if self.wanted is Wanted.PROCESSOR or (self.wanted is Wanted.BEST and not n_gpus):
            return Devices()
        there = tuple(range(n_gpus))
        if self.wanted is Wanted.EVERY_GPU:
            return Devices(there)
        for number in self.numbers:
            if number not in there:
                raise EngineError(
                    f"device={self.spelled}: there is no GPU {number}: PyTorch sees {n_gpus} here "
                    f"({listed(there)}); CUDA_VISIBLE_DEVICES, where it is set, hides others"
                )
        return Devices(self.numbers)

    def n_gpus(self, count: Callable[[], int]) -> int:
        """How many GPUs are asked for; whether they are there is not looked at.

        ``count`` tells how many PyTorch sees, if that matters.
        """
        if self.wanted is Wanted.EVERY_GPU:
            return max(1, count())
        if self.wanted is Wanted.BEST:
            return min(1, count())
        return len(self.numbers)


_WORDS = (
    DeviceOption("auto", Wanted.BEST, (0,)),
    DeviceOption("cpu", Wanted.PROCESSOR),
    DeviceOption("cuda", Wanted.THESE_GPUS, (0,)),
    DeviceOption("cuda:all", Wanted.EVERY_GPU),
)


def read_device(spelled: str) -> DeviceOption:
    """Read the option ``device``. Raises OptionError for what it cannot be."""
    for option in _WORDS:
        if spelled == option.spelled:
            return option
    kind, _, numbers = spelled.partition(":")
    if kind != Wanted.THESE_GPUS.value:
        raise OptionError(f"device={spelled!r}: use {SPELLINGS}")
    return DeviceOption(spelled, Wanted.THESE_GPUS, _numbers(spelled, numbers.split(",")))


def _numbers(spelled: str, parts: Sequence[str]) -> tuple[int, ...]:
    parts = [part.strip() for part in parts]
    if not all(part.isascii() and part.isdecimal() and len(part) < 5 for part in parts):
        raise OptionError(
            f"device={spelled!r}: after cuda: come the numbers of GPUs, from 0 on and with commas "
            f"between them, or the word all; use {SPELLINGS}"
        )
    numbers = tuple(int(part) for part in parts)
    twice = [number for i, number in enumerate(numbers) if number in numbers[:i]]
    if twice:
        raise OptionError(f"device={spelled!r}: GPU {twice[0]} stands there twice; name it once")
    return numbers


def check_device(name: str, value: str) -> None:
    """Whether the option can be read: the declaration's check. Raises OptionError."""
    read_device(value)


def listed(numbers: Sequence[int]) -> str:
    """Numbers with commas between them."""
    return ", ".join(map(str, numbers))
