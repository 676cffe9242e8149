"""Layouts of subtitles: what is shown at once, and when."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from subtitle_readers import read_srt, read_vtt
from transcripts import segment, timed, transcript

from batched_whisper import formats
from batched_whisper.config.options import CueLayout
from batched_whisper.errors import OptionError
from batched_whisper.formats.cues import PAUSE_S, Cue, lay_out
from batched_whisper.types import Segment, Word

FEW = settings(max_examples=40)
"""Enough: each example has some dozen words."""

SPELLED = st.one_of(
    st.from_regex(r" [a-z]{1,8}[.,]?", fullmatch=True),  # languages with spaces
    st.sampled_from(["今日", "は", "晴れ。", "了"]),  # and without
    st.sampled_from([" --", ">", "->", " <u>", " &", "\n", " a\u2028b", "\x00", " "]),
)
LIMITS = st.one_of(st.none(), st.integers(1, 30))
SMALL_LIMITS = st.one_of(st.none(), st.integers(1, 4))


@st.composite
def segments(draw: st.DrawFn) -> tuple[Segment, ...]:
    """Words one after the other, some with pauses before them, some of no length."""
    found, now_s = [], 0.0
    for number in range(draw(st.integers(1, 3))):
        words = []
        for spelled in draw(st.lists(SPELLED, min_size=1, max_size=12)):
            start_s = now_s + draw(st.sampled_from([0, 0, 0, 0.1, 2.9, 3.5]))
            now_s = start_s + draw(st.sampled_from([0, 0.02, 0.3, 1.0]))
            words.append(Word(start_s, now_s, spelled, 0.5))
        channel = draw(st.sampled_from([None, number]))
        found.append(timed(*words, channel=channel))
    return tuple(found)


@st.composite
def layouts(draw: st.DrawFn, *, highlight_words: bool = False) -> CueLayout:
    width, words = draw(LIMITS), draw(SMALL_LIMITS)
    return CueLayout(
        max_line_width=width,
        max_lines=draw(SMALL_LIMITS) if width or words else None,
        max_words_per_line=words,
        highlight_words=highlight_words,
    )


def prefix(part: Segment) -> str:
    return "" if part.channel is None else f"[channel {part.channel}] "


def cues(parts: tuple[Segment, ...], layout: CueLayout) -> list[Cue]:
    return list(lay_out(transcript(*parts), layout, prefix))


def lines(cue: Cue) -> list[str]:
    return ["".join(piece.text for piece in line) for line in cue.lines]


def shown(parts: tuple[Segment, ...], layout: CueLayout) -> list[list[str]]:
    return [lines(cue) for cue in cues(parts, layout)]


def squeezed(text: str) -> str:
    """The text without space, labels and what cannot be written."""
    return re.sub(r"\[channel \d\]|[\s\x00-\x1f]", "", text)


@FEW
@given(segments(), layouts())
def test_every_word_is_shown_once_and_in_order(
    parts: tuple[Segment, ...], layout: CueLayout
) -> None:
    said = "".join(part.text for part in parts)
    assert squeezed("".join("".join(each) for each in shown(parts, layout))) == squeezed(said)


@FEW
@given(segments(), layouts())
def test_no_limit_is_exceeded_but_by_a_single_word(
    parts: tuple[Segment, ...], layout: CueLayout
) -> None:
    if layout == CueLayout():
        return
    words = {
        squeezed(word.word) for part in parts for word in part.words or () if word.word.strip()
    }
    for cue in cues(parts, layout):
        for line in lines(cue):
            single = squeezed(line) in words
            assert line.removeprefix(prefix(cue.segment)).strip()
            assert single or len(line) <= (layout.max_line_width or 10_000)
        if layout.max_lines is not None:
            assert len(cue.lines) <= layout.max_lines


@FEW
@given(st.lists(st.from_regex(r" [a-z]{1,8}", fullmatch=True), min_size=1), layouts())
def test_a_line_is_full_where_another_follows(words: list[str], layout: CueLayout) -> None:
    found = [line.split() for each in shown((timed(*words),), layout) for line in each]
    width, count = layout.max_line_width or 10_000, layout.max_words_per_line or 10_000
    for line, following in pairwise(found):
        assert len(line) == count or len(" ".join([*line, following[0]])) > width
        assert len(line) <= count


@FEW
@given(segments(), layouts())
def test_a_cue_lasts_from_its_first_word_to_its_last_and_none_overlap(
    parts: tuple[Segment, ...], layout: CueLayout
) -> None:
    found = cues(parts, layout)
    times = [time for cue in found for time in (cue.start_ms, cue.end_ms)]
    assert times == sorted(times)
    if layout == CueLayout():
        return
    spoken = [word for part in parts for word in part.words or () if word.word.strip(" \n\x00")]
    assert {cue.start_ms for cue in found} <= {round(1000 * word.start) for word in spoken}
    assert {cue.end_ms for cue in found} <= {round(1000 * word.end) for word in spoken}


@FEW
@given(segments(), layouts(highlight_words=True))
def test_highlighting_shows_the_same_text_for_the_same_time_a_word_underlined_in_turn(
    parts: tuple[Segment, ...], layout: CueLayout
) -> None:
    calm = layout.replace(highlight_words=False)
    if calm == CueLayout():
        calm = CueLayout(max_line_width=10_000)
    highlighted = iter(cues(parts, layout))
    for cue in cues(parts, calm):
        now_ms = cue.start_ms
        while True:
            turn = next(highlighted)
            assert lines(turn) == lines(cue) and turn.start_ms == now_ms
            assert turn.start_ms < turn.end_ms or cue.start_ms == cue.end_ms
            assert len(_underlined(turn)) <= 1
            now_ms = turn.end_ms
            if now_ms >= cue.end_ms:
                break
        assert now_ms == cue.end_ms
    assert next(highlighted, None) is None


def _underlined(cue: Cue) -> list[str]:
    return [piece.text for line in cue.lines for piece in line if piece.is_underlined]


@FEW
@given(segments(), layouts(highlight_words=True))
def test_every_word_that_lasts_is_underlined_while_it_is_said(
    parts: tuple[Segment, ...], layout: CueLayout
) -> None:
    found = [
        (cue.start_ms, cue.end_ms, squeezed(marked))
        for cue in cues(parts, layout)
        for marked in _underlined(cue)
    ]
    assert found == [
        (round(1000 * word.start), round(1000 * word.end), squeezed(word.word))
        for part in parts
        for word in part.words or ()
        if squeezed(word.word) and word.end > word.start
    ]


@FEW
@given(segments(), st.one_of(layouts(), layouts(highlight_words=True)))
def test_subtitles_with_a_layout_can_be_parsed(
    parts: tuple[Segment, ...], layout: CueLayout
) -> None:
    whole = transcript(*parts)
    srt, vtt = read_srt(formats.srt(whole, layout)), read_vtt(formats.vtt(whole, layout))
    times = [(cue.start_ms, cue.end_ms) for cue in cues(parts, layout)]
    assert [(start, end) for start, end, _ in srt] == times
    labelled = [part for part in parts if part.channel is not None]
    if not labelled:  # without a prefix both formats break lines alike
        assert [(start, end) for start, end, _ in vtt] == times


def test_without_a_layout_a_segment_is_a_cue_with_its_own_lines() -> None:
    parts = (segment(" One\ntwo"), timed(" three", " four", start_s=2.0))
    assert shown(parts, CueLayout()) == [["One", "two"], ["three four"]]
    assert formats.srt(transcript(*parts), CueLayout()) == formats.srt(transcript(*parts))


FOX = timed(" The", " quick", " brown", " fox", " jumps.")


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (CueLayout(max_line_width=10), [["The quick", "brown fox", "jumps."]]),
        (CueLayout(max_line_width=10, max_lines=2), [["The quick", "brown fox"], ["jumps."]]),
        (CueLayout(max_words_per_line=2), [["The quick"], ["brown fox"], ["jumps."]]),
        (
            CueLayout(max_words_per_line=2, max_lines=2),
            [["The quick", "brown fox"], ["jumps."]],
        ),
        (
            CueLayout(max_line_width=9, max_words_per_line=1, max_lines=1),
            [["The"], ["quick"], ["brown"], ["fox"], ["jumps."]],
        ),
        (CueLayout(max_line_width=2), [["The", "quick", "brown", "fox", "jumps."]]),
    ],
)
def test_lines_and_cues_are_as_full_as_they_may_be(
    layout: CueLayout, expected: list[list[str]]
) -> None:
    assert shown((FOX,), layout) == expected


def test_lines_break_between_words_in_languages_without_spaces() -> None:
    part = timed("今日", "は", "晴れ", "です。")
    assert shown((part,), CueLayout(max_line_width=4)) == [["今日は", "晴れ", "です。"]]


def test_a_cue_ends_at_a_long_pause_and_with_its_segment() -> None:
    before = Word(0.0, 1.0, " Before", 1.0)
    late = Word(1.1 + PAUSE_S, 5.0, " after.", 1.0)
    soon = Word(1.0 + PAUSE_S, 5.0, " after.", 1.0)
    wide = CueLayout(max_line_width=80, max_lines=2)
    assert shown((timed(before, late),), wide) == [["Before"], ["after."]]
    assert shown((timed(before, soon),), wide) == [["Before after."]]
    assert shown((timed(" One."), timed(" Two.", start_s=0.5)), wide) == [["One."], ["Two."]]


def test_the_prefix_counts_where_it_stands() -> None:
    part = timed(" Hello", " there", " you", channel=1)
    layout = CueLayout(max_line_width=18)
    assert shown((part,), layout) == [["[channel 1] Hello", "there you"]]
    vtt = read_vtt(formats.vtt(transcript(part), layout))
    assert [text for *_, text in vtt] == ["<v channel 1>Hello there you"]


def test_highlight_words_equals_the_output_of_openai_whisper() -> None:
    part = timed(Word(0.0, 0.4, " Hi,", 1.0), Word(0.6, 1.0, " A&B!", 1.0))
    layout = CueLayout(highlight_words=True)
    assert formats.srt(transcript(part), layout) == (
        "1\n00:00:00,000 --> 00:00:00,400\n<u>Hi,</u> A&B!\n\n"
        "2\n00:00:00,400 --> 00:00:00,600\nHi, A&B!\n\n"
        "3\n00:00:00,600 --> 00:00:01,000\nHi, <u>A&B!</u>\n\n"
    )
    assert formats.vtt(transcript(part), layout).endswith(
        "00:00.600 --> 00:01.000\nHi, <u>A&amp;B!</u>\n\n"
    )


WRITERS = (formats.srt, formats.vtt)


@pytest.mark.parametrize("write", WRITERS)
def test_a_layout_without_word_timestamps_raises_with_the_remedy(write: Callable[..., str]) -> None:
    with pytest.raises(OptionError, match="word_timestamps=True"):
        write(transcript(segment(" Hello.")), CueLayout(max_line_width=40))
    assert write(transcript(segment(" ")), CueLayout(max_line_width=40)) in ("", "WEBVTT\n\n")


def test_a_text_that_could_not_be_aligned_is_shown_whole() -> None:
    part = segment(" Hello there.", words=())
    assert shown((part,), CueLayout(max_line_width=5)) == [["Hello there."]]


def test_max_lines_needs_a_limit_of_the_line_length() -> None:
    for use in (
        lambda layout: formats.srt(transcript(), layout),
        formats.FORMATS["srt"].laid_out,
    ):
        with pytest.raises(OptionError, match=r"max_lines=2 needs .* max_line_width"):
            use(CueLayout(max_lines=2))


@pytest.mark.parametrize("name", ["max_line_width", "max_lines", "max_words_per_line"])
def test_cue_layout_rejects_limits_of_zero(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name}=0 is out of range"):
        CueLayout(**{name: 0})


def test_laid_out_applies_to_formats_with_cues_only() -> None:
    layout = CueLayout(max_words_per_line=1)
    for form in formats.FORMATS.values():
        written = form.laid_out(layout).write(transcript(FOX))
        assert (written == form.write(transcript(FOX))) is not form.has_cues
    vtt = formats.FORMATS["vtt"].laid_out(layout)
    assert vtt.write(transcript(FOX)) == formats.vtt(transcript(FOX), layout)
