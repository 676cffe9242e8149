"""Speech as 16 kHz WAV files, for a machine that has nothing to read other formats with.

    python -m benchmarks.gpu.wav_clips SPEECH OUT [--most-mb 40]

``SPEECH`` and ``OUT`` have a ``manifest.jsonl`` each, as `accuracy.clips_of` reads it. Where not
all clips fit, those that are taken are spread evenly over the durations of all.
"""

from __future__ import annotations

import argparse
import json
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np

from batched_whisper.audio.decode import open_audio
from batched_whisper.types import SAMPLING_RATE, Samples

MOST_MB = 40.0
COLLECTIONS = ("ljspeech", "librivox", "librispeech", "languages", "jfk")
LONGEST_S = 30
GOLDEN = (5**0.5 - 1) / 2


def main(arguments: list[str] | None = None) -> int:
    """Write the clips that have a text, until there is enough."""
    given = _parse(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    lines = (given.speech / "manifest.jsonl").read_text("utf-8").splitlines()
    kept = choose(list(map(json.loads, lines)), given.most_mb * 1e6)
    n_bytes = 0
    for line in kept:
        with open_audio(given.speech / line["audio"]) as stream:
            samples = np.concatenate(list(stream))
        line["audio"] = line["audio"].replace("/", "-").rpartition(".")[0] + ".wav"
        n_bytes += _write(given.out / line["audio"], samples)
    manifest = "".join(json.dumps(line) + "\n" for line in kept)
    (given.out / "manifest.jsonl").write_text(manifest, "utf-8")
    total_s = sum(line["duration_s"] for line in kept)
    mean_s = total_s / max(1, len(kept))
    print(f"{len(kept)} clips, {n_bytes / 1e6:.1f} MB, {total_s:.0f} s, {mean_s:.1f} s each")
    return 0


def choose(lines: list[dict[str, Any]], most_bytes: float) -> list[dict[str, Any]]:
    """Those of a manifest that have a text and fit, in its order.

    In the order of their durations they are visited at steps of the golden section, so that any
    number of them has short, middling and long ones as all have.
    """
    usable = [
        line
        for line in lines
        if line["collection"] in COLLECTIONS
        and line.get("text")
        and line["duration_s"] <= LONGEST_S
    ]
    by_length = sorted(usable, key=lambda line: line["duration_s"])
    visits = sorted(range(len(by_length)), key=lambda i: i * GOLDEN % 1)
    chosen, n_bytes = set[str](), 0.0
    for line in (by_length[i] for i in visits):
        needed = 2 * SAMPLING_RATE * line["duration_s"] + 1000
        if n_bytes + needed > most_bytes:
            break
        n_bytes += needed
        chosen.add(line["audio"])
    return [line for line in usable if line["audio"] in chosen]


def _write(path: Path, samples: Samples) -> int:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLING_RATE)
        file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return path.stat().st_size


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("speech", type=Path, help="a folder with manifest.jsonl")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--most-mb", type=float, default=MOST_MB, help="of all files together")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
