"""Laws of putting a transcript together: in order, each once, and no later than it is ready."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from batched_whisper.transcript.assembly import Assembly
from batched_whisper.transcript.stitching import Stitched
from batched_whisper.types import DecodedWindow, Segment


def window(start_s: float, *said: tuple[float, str]) -> DecodedWindow:
    """What is said in it, at seconds after its start."""
    text = ";".join(f"{start_s + at_s} {word}" for at_s, word in said)
    return DecodedWindow(start_s, start_s + 10, text, (1,), "en", 1.0, -0.1, 0.0, 1.0)


def segments_of(window: DecodedWindow) -> Iterator[Segment]:
    for part in filter(None, window.text.split(";")):
        at_s, text = part.split()
        yield Segment(0, float(at_s), float(at_s) + 1, text, (1,), 0.0, -0.1, 1.0, 0.0)


def stitch(earlier: DecodedWindow, later: DecodedWindow) -> Stitched:
    """Without the words that the later one has as well; they meet in the middle of the overlap."""
    seam_s = (earlier.end + later.start) / 2
    assert later.start < earlier.end
    known = set(later.text.split(";"))
    kept = ";".join(part for part in earlier.text.split(";") if part not in known)
    return Stitched(replace(earlier, text=kept, end=seam_s), replace(later, start=seam_s))


def texts(segments: list[Segment]) -> list[str]:
    return [segment.text for segment in segments]


@dataclass(frozen=True)
class Speech:
    """The windows of each channel."""

    channels: list[list[DecodedWindow]]

    def assembly(self) -> Assembly:
        assembly = Assembly(segments_of, stitch, is_split=True)
        for channel, windows in enumerate(self.channels):
            for each in windows:
                assembly.expect(channel, each.start)
        assembly.advance([0.0] * len(self.channels))
        assembly.end()
        return assembly


@st.composite
def speeches(draw: st.DrawFn) -> Speech:
    words = iter(f"word{n}" for n in range(10_000))
    channels = []
    for _ in range(draw(st.integers(1, 3))):
        starts = sorted(draw(st.lists(st.integers(0, 8), max_size=5, unique=True)))
        windows = []
        for start in starts:
            at = sorted(draw(st.lists(st.sampled_from([0.0, 2.0, 9.0]), max_size=3)))
            windows.append(window(10.0 * start, *((at_s, next(words)) for at_s in at)))
        channels.append(windows)
    return Speech(channels)


@settings(max_examples=150, deadline=None)
@given(speech=speeches(), chance=st.randoms(use_true_random=False))
def test_assembly_does_not_depend_on_the_order_of_windows(speech: Speech, chance: object) -> None:
    places = [(c, i) for c, windows in enumerate(speech.channels) for i in range(len(windows))]
    in_order, shuffled = speech.assembly(), speech.assembly()
    for channel, index in places:
        in_order.decoded(channel, index, speech.channels[channel][index])
    expected = in_order.ready()
    chance.shuffle(places)  # type: ignore[attr-defined]
    given = list[Segment]()
    for channel, index in places:
        shuffled.decoded(channel, index, speech.channels[channel][index])
        given += shuffled.ready()
    assert given == expected == shuffled.segments
    assert shuffled.windows == in_order.windows
    assert [segment.id for segment in given] == list(range(len(given)))
    assert [s.start for s in given] == sorted(s.start for s in given)
    assert len(given) == sum(len(list(segments_of(w))) for ws in speech.channels for w in ws)


@settings(max_examples=150, deadline=None)
@given(speech=speeches(), chance=st.randoms(use_true_random=False))
def test_a_segment_is_ready_when_no_earlier_one_is_possible(speech: Speech, chance: object) -> None:
    places = [(c, i) for c, windows in enumerate(speech.channels) for i in range(len(windows))]
    chance.shuffle(places)  # type: ignore[attr-defined]
    assembly, todo = speech.assembly(), set(places)
    for channel, index in places:
        assembly.decoded(channel, index, speech.channels[channel][index])
        todo.remove((channel, index))
        assembly.ready()
        undecided_s = min((speech.channels[c][i].start for c, i in todo), default=math.inf)
        given = texts(assembly.segments)
        for ready_channel, windows in enumerate(speech.channels):
            for i, each in enumerate(windows):
                if (ready_channel, i) not in todo:
                    early = [s.text for s in segments_of(each) if s.start < undecided_s]
                    assert set(early) <= set(given)


def test_later_windows_wait_for_earlier_ones() -> None:
    assembly = Assembly(segments_of, stitch, is_split=False)
    assembly.expect(0, 0.0)
    assembly.expect(0, 10.0)
    assembly.end()
    assembly.decoded(0, 1, window(10, (0, "b")))
    assert assembly.ready() == []
    assembly.decoded(0, 0, window(0, (0, "a")))
    assert texts(assembly.ready()) == ["a", "b"]
    assert assembly.ready() == []
    assert [segment.channel for segment in assembly.segments] == [None, None]


def test_a_silent_channel_holds_back_no_more_than_is_unread_of_it() -> None:
    assembly = Assembly(segments_of, stitch, is_split=True)
    assembly.expect(0, 0.0)
    assembly.advance([10.0, 0.0])
    assembly.decoded(0, 0, window(0, (1, "a"), (5, "b")))
    assert assembly.ready() == []
    assembly.advance([10.0, 4.0])
    assert texts(assembly.ready()) == ["a"]
    assembly.advance([10.0, 8.0])
    assert texts(assembly.ready()) == ["b"]
    assert [segment.channel for segment in assembly.segments] == [0, 0]


def test_of_two_at_the_same_time_the_first_channels_comes_first() -> None:
    assembly = Assembly(segments_of, stitch, is_split=True)
    for channel in (1, 0):
        assembly.expect(channel, 0.0)
    assembly.advance([10.0, 10.0])
    assembly.decoded(1, 0, window(0, (0, "second")))
    assert assembly.ready() == []
    assembly.decoded(0, 0, window(0, (0, "first")))
    assert texts(assembly.ready()) == ["first", "second"]


def test_a_channel_never_speaks_out_of_its_own_order() -> None:
    """Where word times put a later segment before an earlier one."""
    assembly = Assembly(segments_of, stitch, is_split=False)
    assembly.expect(0, 0.0)
    assembly.end()
    assembly.decoded(0, 0, window(0, (5, "said first"[:4]), (3, "then")))
    assert texts(assembly.ready()) == ["said", "then"]


def test_a_window_that_overlaps_with_the_next_one_waits_for_it() -> None:
    assembly = Assembly(segments_of, stitch, is_split=False)
    assembly.expect(0, 0.0)
    assembly.advance([8.0])  # of ten seconds
    assembly.decoded(0, 0, window(0, (0, "a"), (8, "b")))
    assert assembly.ready() == []
    assembly.expect(0, 8.0)
    assembly.advance([18.0])
    assert assembly.ready() == []
    assembly.decoded(0, 1, window(8, (0, "b"), (5, "c")))
    assert texts(assembly.ready()) == ["a", "b", "c"]
    assert [(each.start, each.end) for each in assembly.windows] == [(0, 9), (9, 18)]


def test_a_window_is_given_as_soon_as_nothing_can_overlap_with_it() -> None:
    assembly = Assembly(segments_of, stitch, is_split=False)
    assembly.expect(0, 0.0)
    assembly.advance([9.9])
    assembly.decoded(0, 0, window(0, (0, "a")))
    assert assembly.ready() == []
    assembly.advance([10.0])
    assert texts(assembly.ready()) == ["a"]


def test_the_last_window_is_given_at_the_end() -> None:
    assembly = Assembly(segments_of, stitch, is_split=False)
    assembly.expect(0, 0.0)
    assembly.decoded(0, 0, window(0, (0, "a")))
    assert assembly.ready() == []
    assembly.end()
    assert texts(assembly.ready()) == ["a"]


@settings(max_examples=60, deadline=None)
@given(order=st.permutations(range(6)))
def test_of_windows_in_any_order_those_that_overlap_are_stitched_from_the_first_on(
    order: list[int],
) -> None:
    words = [(8.0 * i, (0, f"{i}"), (4, f"{i}+"), (8, f"{i + 1}")) for i in range(6)]
    windows = [window(*each) for each in words]
    assembly = Assembly(segments_of, stitch, is_split=False)
    for each in windows:
        assembly.expect(0, each.start)
    assembly.end()
    given = list[Segment]()
    for index in order:
        assembly.decoded(0, index, windows[index])
        given += assembly.ready()
    assert texts(given) == [f"{i}{mark}" for i in range(6) for mark in ("", "+")] + ["6"]
