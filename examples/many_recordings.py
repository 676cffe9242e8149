"""Transcribe a folder: python examples/many_recordings.py talks/."""

from __future__ import annotations

import sys
from pathlib import Path

from batched_whisper import Whisper


def main(folder: Path) -> None:
    paths = sorted(folder.glob("*.wav"))
    with Whisper("base") as whisper:
        # Inputs are read lazily and decoded together; results keep the input order. A recording
        # that cannot be read gives an error as its result and does not stop the others.
        results = whisper.transcribe.map(paths, return_exceptions=True)
        for path, result in zip(paths, results, strict=True):
            print(f"{path.name}: {result if isinstance(result, Exception) else result.text}")
        stats = whisper.stats
    print(f"{stats.n_windows} windows, {stats.mean_batch_size:.1f} of them in an average step")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
