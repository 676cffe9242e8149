"""Transcribe one recording: python examples/one_recording.py talk.mp3."""

from __future__ import annotations

import sys

from batched_whisper import Whisper


def main(path: str) -> None:
    with Whisper("base") as whisper:  # loads here, closes at the end
        transcript = whisper.transcribe(path, timestamps=True)
    print(f"{transcript.duration:.1f} s of {transcript.language}: {transcript.text}")
    for segment in transcript.segments:
        print(f"{segment.start:7.2f} to {segment.end:7.2f} {segment.text}")


if __name__ == "__main__":
    main(sys.argv[1])
