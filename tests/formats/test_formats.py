"""What is written can be read back."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from subtitle_readers import read_srt, read_vtt
from transcripts import segment, transcript

from batched_whisper import formats
from batched_whisper.errors import OptionError, OutputError
from batched_whisper.types import DecodedWindow, Segment, Word

ANYTHING = st.text(
    st.one_of(st.characters(), st.sampled_from("\n\r\t-> <&>\x0b\x85\u2028\x00")), max_size=30
)
TIMES_S = st.one_of(
    st.floats(-5, 4_000_000), st.sampled_from([0.9996, 59.9999, 3599.9999, 359_999.9999])
)
FIGURES = st.floats(width=32)  # NaN and infinities too


@st.composite
def segments(draw: st.DrawFn) -> tuple[Segment, ...]:
    return tuple(
        Segment(
            id=number,
            start=draw(TIMES_S),
            end=draw(TIMES_S),
            text=draw(ANYTHING),
            tokens=(1, 2),
            temperature=0.0,
            avg_logprob=draw(FIGURES),
            compression_ratio=draw(FIGURES),
            no_speech_prob=draw(FIGURES),
        )
        for number in range(draw(st.integers(0, 4)))
    )


def words_of(text: str) -> list[str]:
    """The text without what the subtitle formats cannot carry: control characters and arrows."""
    return re.sub("-{2,}>", "->", re.sub("[\x00-\x1f\x7f]", " ", text)).split()


def expected(parts: tuple[Segment, ...]) -> list[tuple[int, int, list[str]]]:
    return [
        (
            max(0, round(part.start * 1000)),
            max(0, round(max(part.start, part.end) * 1000)),
            words_of(part.text),
        )
        for part in parts
        if words_of(part.text)
    ]


@given(segments())
def test_subtitles_read_back_as_the_segments_that_say_something(
    parts: tuple[Segment, ...],
) -> None:
    for read, write in ((read_srt, formats.srt), (read_vtt, formats.vtt)):
        found = read(write(transcript(*parts)))
        assert [(start, end, words_of(text)) for start, end, text in found] == expected(parts)
        assert all(0 <= start <= end for start, end, _ in found)


@given(segments())
def test_a_table_has_a_row_of_three_columns_for_each_segment_that_says_something(
    parts: tuple[Segment, ...],
) -> None:
    header, *rows = formats.tsv(transcript(*parts)).removesuffix("\n").split("\n")
    assert header == "start\tend\ttext"
    assert [len(row.split("\t")) for row in rows] == [3] * len(expected(parts))
    assert [tuple(map(int, row.split("\t")[:2])) for row in rows] == [
        (start, end) for start, end, _ in expected(parts)
    ]


@given(segments(), st.text(), FIGURES)
def test_json_is_strict_and_round_trips(
    parts: tuple[Segment, ...], name: str, probability: float
) -> None:
    whole = transcript(*parts, name=name, language_probability=probability)
    document = json.loads(formats.json_document(whole), parse_constant=pytest.fail)
    assert document["name"] == name and document["text"] == whole.text
    assert document["language_probability"] == (probability if math.isfinite(probability) else None)
    assert [(s["id"], s["start"], s["end"], s["text"]) for s in document["segments"]] == [
        (s.id, s.start, s.end, s.text) for s in parts
    ]


@given(segments(), st.text())
def test_a_json_line_is_one_line_for_every_reader_and_the_same_document(
    parts: tuple[Segment, ...], name: str
) -> None:
    whole = transcript(*parts, name=name)
    line = formats.json_line(whole)
    assert line.encode("utf-8") and len(line.splitlines()) == 1 and line.endswith("\n")
    assert json.loads(line) == json.loads(formats.json_document(whole))


def test_json_survives_names_that_are_no_utf_8() -> None:
    whole = transcript(name="caf\udce9.wav")
    assert json.loads(formats.json_line(whole).encode("utf-8"))["name"] == "caf\udce9.wav"


def test_segments_have_whispers_field_names() -> None:
    part = segment("a", words=(Word(0.0, 0.5, "a", 0.9),), channel=1)
    (written,) = formats.as_document(transcript(part))["segments"]
    assert list(written) == [
        *("id", "start", "end", "text", "tokens", "temperature"),
        *("avg_logprob", "compression_ratio", "no_speech_prob", "words", "channel"),
    ]
    assert written["words"] == [{"word": "a", "start": 0.0, "end": 0.5, "probability": 0.9}]


def test_json_windows_contain_the_quality_measures() -> None:
    window = DecodedWindow(0.0, 5.0, "a", (1,), "de", 0.75, -0.5, 0.25, 1.5, 0.5, 400, 2)
    (written,) = formats.as_document(transcript(windows=(window,)))["windows"]
    assert written == {
        "start": 0.0,
        "end": 5.0,
        "language": "de",
        "language_probability": 0.75,
        "temperature": 0.5,
        "avg_logprob": -0.5,
        "compression_ratio": 1.5,
        "no_speech_prob": 0.25,
        "audio_context": 400,
        "decodes": 2,
    }


def test_formats_equal_the_output_of_openai_whisper() -> None:
    whole = transcript(segment(" Hello --> there.", 0.0, 2.5), segment(" Bye.", 2.5, 3725.04))
    assert formats.text(whole) == "Hello --> there.\nBye.\n"
    assert formats.tsv(whole) == (
        "start\tend\ttext\n0\t2500\tHello --> there.\n2500\t3725040\tBye.\n"
    )
    assert formats.srt(whole) == (
        "1\n00:00:00,000 --> 00:00:02,500\nHello -> there.\n\n"
        "2\n00:00:02,500 --> 01:02:05,040\nBye.\n\n"
    )
    assert formats.vtt(whole) == (
        "WEBVTT\n\n00:00.000 --> 00:02.500\nHello -&gt; there.\n\n"
        "00:02.500 --> 01:02:05.040\nBye.\n\n"
    )


@pytest.mark.parametrize("arrow", ["-->", "--->", "---------->", "-->-->"])
def test_arrows_of_any_length_are_removed_from_subtitles(arrow: str) -> None:
    for write in (formats.srt, formats.vtt):
        timing = write(transcript(segment(f"a {arrow} b"))).splitlines()
        assert sum("-->" in line for line in timing) == 1


def test_times_above_99_hours_are_supported() -> None:
    assert "100:00:00,000 --> 100:00:01,000" in formats.srt(
        transcript(segment("late", 360_000, 360_001))
    )


def test_an_unknown_format_raises_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match="'docx': choose from text, json, jsonl, srt, vtt, tsv"):
        formats.format_named("docx")
    assert formats.format_named("txt") is formats.FORMATS["text"]


def test_write_atomically_writes_the_file_completely_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    formats.write_atomically(path, "first")

    def full_disk(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", full_disk)
        with pytest.raises(OutputError, match=r"a\.txt cannot be written \(No space left"):
            formats.write_atomically(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]  # and no temporary file stays behind
    formats.write_atomically(path, "third")
    assert path.read_text() == "third"


def test_write_atomically_to_a_missing_folder_raises_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        formats.write_atomically(tmp_path / "none" / "a.txt", "x")


def test_every_format_contains_the_channel() -> None:
    whole = transcript(segment(" Hello.", channel=0), segment(" Yes?", channel=1))
    assert formats.text(whole) == "[channel 0] Hello.\n[channel 1] Yes?\n"
    assert [text for *_, text in read_srt(formats.srt(whole))] == [
        *("[channel 0] Hello.", "[channel 1] Yes?"),
    ]
    assert [text for *_, text in read_vtt(formats.vtt(whole))] == [
        *("<v channel 0>Hello.", "<v channel 1>Yes?"),
    ]
    assert formats.tsv(whole) == (
        "start\tend\ttext\tchannel\n0\t1000\tHello.\t0\n0\t1000\tYes?\t1\n"
    )
    assert [part["channel"] for part in formats.as_document(whole)["segments"]] == [0, 1]
