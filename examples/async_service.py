"""A service with many independent calls: python examples/async_service.py a.wav b.wav ..."""

from __future__ import annotations

import asyncio
import sys

from batched_whisper import BatchedWhisperError, Whisper


async def answer(whisper: Whisper, path: str) -> str:
    """Answer one request; knows only its own recording."""
    try:
        transcript = await whisper.transcribe.aio(path)
    except BatchedWhisperError as error:
        return f"{error.http_status}: {error}"
    return f"200: {transcript.text}"


async def main(paths: list[str]) -> None:
    async with Whisper("base") as whisper:
        # Concurrent calls share decoder steps.
        for line in await asyncio.gather(*(answer(whisper, path) for path in paths)):
            print(line)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
