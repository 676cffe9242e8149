"""Speech as 16 kHz WAV files, for a machine that has nothing to read other formats with.

    python -m benchmarks.gpu.wav_clips SPEECH OUT      English clips, up to OUT's 40 MB

``SPEECH`` and ``OUT`` have a ``manifest.jsonl`` each, as `accuracy.clips_of` reads it.
"""

from __future__ import annotations

import json
import sys
import wave
from pathlib import Path

import numpy as np

from batched_whisper.audio.decode import open_audio

MOST_BYTES = 40_000_000
COLLECTIONS = ("ljspeech", "librivox", "librispeech", "languages", "jfk")


def main(speech: Path, out: Path) -> None:
    """Write the clips that have a text, the collections in turn, until there is enough."""
    out.mkdir(parents=True, exist_ok=True)
    kept, n_bytes = [], 0
    for line in map(json.loads, (speech / "manifest.jsonl").read_text("utf-8").splitlines()):
        if line["collection"] not in COLLECTIONS or not line.get("text") or line["duration_s"] > 30:
            continue
        with open_audio(speech / line["audio"]) as stream:
            samples = np.concatenate(list(stream))
        name = line["audio"].replace("/", "-").rpartition(".")[0] + ".wav"
        n_bytes += 2 * len(samples)
        if n_bytes > MOST_BYTES:
            break
        with wave.open(str(out / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
        kept.append({**line, "audio": name})
    (out / "manifest.jsonl").write_text("".join(json.dumps(each) + "\n" for each in kept), "utf-8")
    print(f"{len(kept)} clips, {n_bytes / 1e6:.0f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
