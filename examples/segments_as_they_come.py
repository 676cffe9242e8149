"""Print segments as soon as they are final: python examples/segments_as_they_come.py talk.mp3."""

from __future__ import annotations

import sys

from batched_whisper import Whisper


def main(path: str) -> None:
    with Whisper("base") as whisper:
        # A segment comes as soon as no earlier one can follow. The segments equal those of the
        # transcript. Leaving the loop early cancels the rest of the recording.
        for segment in whisper.transcribe.segments(path, timestamps=True, vad=True):
            print(f"{segment.start:7.2f} to {segment.end:7.2f} {segment.text}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
