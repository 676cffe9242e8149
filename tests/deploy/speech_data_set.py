"""Real speech as a dataset of the Hub, in the layout of ``librispeech_asr_dummy``."""

from __future__ import annotations

import io
import json
from pathlib import Path

import datasets
from hub_stand_in import StandInHub

NAME = "hf-internal-testing/librispeech_asr_dummy"
CARD = """---
configs:
- config_name: clean
  data_files:
  - split: validation
    path: clean/validation-*
---
"""


def rows_of(speech: Path, n: int) -> list[dict[str, object]]:
    """``n`` rows of English clips with the columns of LibriSpeech; clips come again if need be."""
    lines = (speech / "manifest.jsonl").read_text("utf-8").splitlines()
    clips = [clip for clip in map(json.loads, lines) if clip["duration_s"] < 30]
    clips = [clip for clip in clips if clip["language"] == "en" and clip["audio"].endswith("flac")]
    return [
        {
            "file": clip["audio"],
            "audio": {"path": clip["audio"], "bytes": (speech / clip["audio"]).read_bytes()},
            "text": clip["text"].upper(),
            "speaker_id": 1272,
            "chapter_id": 128104,
            "id": f"1272-128104-{number:04d}",
        }
        for number, clip in enumerate((clips * (1 + n // len(clips)))[:n])
    ]


def data_set_hub(rows: list[dict[str, object]]) -> StandInHub:
    """A Hub that has these rows as the dataset's configuration ``clean``, split validation."""
    table = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio())
    parquet = io.BytesIO()
    table.to_parquet(parquet)
    files = {
        "README.md": CARD.encode(),
        "clean/validation-00000-of-00001.parquet": parquet.getvalue(),
    }
    return StandInHub(NAME, files=files, kind="datasets")
