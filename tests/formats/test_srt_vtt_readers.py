"""Libraries that many programs read subtitles with understand ours, laid out or not."""

from __future__ import annotations

import html
from collections.abc import Callable

import pytest
from transcripts import segment, timed, transcript

from batched_whisper import formats
from batched_whisper.config.options import CueLayout
from batched_whisper.formats.cues import lay_out
from batched_whisper.formats.text_lines import prefix
from batched_whisper.types import Segment, Word

WORDS = (" A&B", " <said>", " --> \n", " it", " {\\an8}", " -", "->", " 你好。")
PARTS = (
    timed(*WORDS, channel=0),
    timed(Word(3599.9996, 3600.2, " late", 1.0), channel=1),
    segment(" One\n\ntwo 1\n2", 7200.5, 7201.0, words=(Word(7200.5, 7201, " One two 1 2", 1.0),)),
)
LAYOUTS = [
    CueLayout(),
    CueLayout(max_line_width=8, max_lines=2),
    CueLayout(max_words_per_line=1),
    CueLayout(max_line_width=12, highlight_words=True),
]


def times(layout: CueLayout, label: Callable[[Segment], str]) -> list[tuple[int, int]]:
    return [(cue.start_ms, cue.end_ms) for cue in lay_out(transcript(*PARTS), layout, label)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_pysubs2_reads_the_cues_of_both_formats(layout: CueLayout) -> None:
    pysubs2 = pytest.importorskip("pysubs2", reason="pip install pysubs2")
    whole = transcript(*PARTS)
    srt = pysubs2.SSAFile.from_string(formats.srt(whole, layout), format_="srt")
    vtt = pysubs2.SSAFile.from_string(formats.vtt(whole, layout), format_="vtt")
    assert [(cue.start, cue.end) for cue in srt] == times(layout, prefix)
    assert [(cue.start, cue.end) for cue in vtt] == times(layout, lambda part: "")
    assert "late" in srt[-2].plaintext and "late" in vtt[-2].plaintext


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_webvtt_py_reads_texts_times_and_voices(layout: CueLayout) -> None:
    webvtt = pytest.importorskip("webvtt", reason="pip install webvtt-py")
    found = list(webvtt.from_string(formats.vtt(transcript(*PARTS), layout)))
    said = [" ".join(html.unescape(cue.text).split()) for cue in found]
    assert [cue.voice for cue in found[-2:]] == ["channel 1", None]
    assert said[-2:] == ["late", "One two 1 2"]
    assert found[-2].start == "01:00:00.000"
    if layout == CueLayout():
        assert said[0] == "A&B <said> -> it {\\an8} -> 你好。"
