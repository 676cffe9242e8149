"""A model class and a dataset: python examples/batched_model.py a.wav b.wav ...

The shape of programs for Modal. A `Whisper` batches by itself and needs no such class.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from datasets import Audio, Dataset

from batched_whisper import Transcript, Whisper, batched, enter


class Model:
    @enter()
    def load(self) -> None:
        self.whisper = Whisper("base").load()

    @batched(max_batch_size=64, wait_ms=1000)
    def transcribe(self, audio_samples: Sequence[Any]) -> list[Transcript]:
        return self.whisper.transcribe_batch(audio_samples)


async def main(paths: list[str]) -> None:
    # decode=False returns the encoded files; the engine decodes them.
    dataset = Dataset.from_dict({"audio": paths}).cast_column("audio", Audio(decode=False))
    async for transcript in Model().transcribe.map.aio(dataset["audio"]):
        print(transcript.text)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
