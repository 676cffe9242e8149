"""Batch a function of your own: callers pass single items, the function gets lists."""

from __future__ import annotations

import asyncio
import math

from batched_whisper import batched, enter, exit, running


class LoudnessMeter:
    """Represents any model that is faster on many inputs than on one."""

    @enter()
    def load(self) -> None:
        self.reference = 1.0  # once per instance, before its first batch: load weights here

    @batched(max_batch_size=64, wait_ms=20)
    def decibels(self, recordings: list[list[float]]) -> list[float]:
        energies = [sum(x * x for x in samples) / len(samples) for samples in recordings]
        return [round(10 * math.log10(energy / self.reference), 1) for energy in energies]

    @exit()
    def unload(self) -> None:
        print("unloaded")


async def main() -> None:
    recordings = [[10 ** (-n / 20)] * 16 for n in range(1000)]
    async with running(LoudnessMeter()) as meter:
        print("one call:", await meter.decibels.aio(recordings[6]), "dB")
        loudness = [level async for level in meter.decibels.map.aio(recordings)]
        print("a thousand:", loudness[0], "to", loudness[-1], "dB")
        print(f"{meter.decibels.stats.mean_batch_size:.0f} items to a batch")


if __name__ == "__main__":
    asyncio.run(main())
