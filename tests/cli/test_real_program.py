"""The program on real speech with a real model says what the library says."""

from __future__ import annotations

import json

import pytest

from batched_whisper.cli.app import run_program
from batched_whisper.whisper import Whisper


@pytest.mark.usefixtures("base_model")
def test_the_command_line_says_what_the_library_says(folder, speech, capsys):
    recording = speech / "jfk" / "jfk.flac"
    with Whisper("base", device="cpu") as whisper:
        expected = whisper.transcribe(recording, timestamps=True)
    with pytest.raises(SystemExit) as ended:
        run_program(
            [
                *("transcribe", str(recording), str(speech / "broken" / "text_named.wav")),
                *("--model", "base", "--device", "cpu", "--format", "json,srt"),
                *("--output-dir", "out", "--output", "out.jsonl"),
            ]
        )
    assert ended.value.code == 1  # of the one that is no sound
    told = capsys.readouterr().err
    assert "1 recording failed:" in told and "1 recording, 11.0 s of audio in" in told
    (line,) = (folder / "out.jsonl").read_text().splitlines()
    document = json.loads((folder / "out/jfk.json").read_text())
    assert json.loads(line) == document
    assert (document["text"], document["language"]) == (expected.text, "en")
    assert "ask not what your country can do for you" in (folder / "out/jfk.srt").read_text()
