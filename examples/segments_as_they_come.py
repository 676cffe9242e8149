"""Print what is said as soon as it is sure: python examples/segments_as_they_come.py talk.mp3."""

from __future__ import annotations

import sys

from batched_whisper import Whisper


def main(path: str) -> None:
    with Whisper("base") as whisper:
        # Each segment comes as soon as nothing earlier can come any more; they are exactly those
        # of the transcript. Leaving the loop early gives the rest of the recording up.
        for segment in whisper.transcribe.segments(path, timestamps=True, vad=True):
            print(f"{segment.start:7.2f} to {segment.end:7.2f} {segment.text}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
