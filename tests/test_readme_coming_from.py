"""The table for those who come from other programs names what there is, here and there."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from batched_whisper import formats
from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.types import Segment, Transcript, Word

README = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
SECTION = README.split("## Coming from")[1].split("\n## ")[0]
NAMES = " ".join(SECTION.split("\n|")[0].split()).split("These options have the same names:")[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in SECTION.splitlines()
    if line.startswith("|")
][2:]
SAME = re.findall(r"`(\w+)`", NAMES)
OPTIONS = {
    field.name for owner in (DecodingOptions, Settings) for field in dataclasses.fields(owner)
}
RESULTS = {"transcript": Transcript, "segment": Segment, "word": Word}


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_name_of_ours_is_one() -> None:
    assert len(ROWS) > 10
    for told in (name for row in ROWS for name in quoted(row[2])):
        owner, dot, field = told.partition(".")
        if owner in RESULTS:
            assert field in {each.name for each in dataclasses.fields(RESULTS[owner])}
        elif owner == "formats":
            assert callable(getattr(formats, field.partition("(")[0]))
        elif not told.startswith("Whisper("):
            assert not dot and told.partition("=")[0] in OPTIONS


def test_what_is_called_the_same_is_an_option_here() -> None:
    assert len(SAME) > 5 and set(SAME) <= OPTIONS


def test_every_name_of_faster_whispers_is_one() -> None:
    theirs = pytest.importorskip("faster_whisper", reason="pip install faster-whisper")
    from faster_whisper import transcribe

    arguments = set(inspect.signature(theirs.WhisperModel.transcribe).parameters)
    arguments |= set(inspect.signature(theirs.BatchedInferencePipeline.transcribe).parameters)
    arguments |= set(inspect.signature(theirs.WhisperModel).parameters)
    assert set(SAME) <= arguments
    results = {
        "info": transcribe.TranscriptionInfo,
        "segment": transcribe.Segment,
        "word": transcribe.Word,
    }
    for told in (name for row in ROWS for name in quoted(row[1])):
        owner, _, field = told.partition(".")
        if owner in results:
            assert field in {each.name for each in dataclasses.fields(results[owner])}
        else:
            name = re.split(r"[=(]", told)[0]
            assert name in arguments or hasattr(theirs, name)


def test_segments_and_words_have_all_fields_of_faster_whispers_but_seek() -> None:
    pytest.importorskip("faster_whisper", reason="pip install faster-whisper")
    from faster_whisper import transcribe

    for theirs, ours in ((transcribe.Segment, Segment), (transcribe.Word, Word)):
        named = {each.name for each in dataclasses.fields(theirs)}
        assert named - {each.name for each in dataclasses.fields(ours)} <= {"seek"}
