"""Laws of matching: what two texts share is found, wherever they were cut."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from batched_whisper.transcript.matching import SHIFT_PENALTY, Match, match, normalised

texts = st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=2, max_size=30, unique=True)


def words(text: str) -> list[str]:
    return text.split()


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[list[str], int, int]:
    """A text, where the later of its two parts begins, and where the earlier one ends."""
    text = draw(texts)
    later = draw(st.integers(0, len(text) - 1))
    return text, later, draw(st.integers(later + 1, len(text)))


@given(cut_texts())
def test_match_finds_the_whole_common_text(cut: tuple[list[str], int, int]) -> None:
    text, begin, end = cut
    found = match(text[:end], text[begin:], end - begin)
    assert found == Match(earlier=begin, later=0, length=end - begin)


@given(cut_texts(), st.sampled_from([0.5, 2.0]))
def test_the_overlap_may_hold_half_or_twice_as_much_as_was_thought(
    cut: tuple[list[str], int, int], off: float
) -> None:
    text, begin, end = cut
    assert match(text[:end], text[begin:], (end - begin) * off) == Match(begin, 0, end - begin)


@settings(max_examples=1000)
@given(st.lists(st.sampled_from(["no", "yes"]), min_size=2, max_size=30), st.data())
def test_of_words_that_are_said_again_and_again_as_many_match_as_are_expected(
    text: list[str], data: st.DataObject
) -> None:
    n_shared = data.draw(st.integers(1, len(text)))
    begin = data.draw(st.integers(0, len(text) - n_shared))
    end = begin + n_shared
    found = match(text[:end], text[begin:], n_shared)
    assert found is not None
    n_written = found.earlier + len(text) - begin - found.later
    # Both words are worth one more than one of them, and that outweighs two that are off.
    assert abs(n_written - len(text)) <= 1 / SHIFT_PENALTY
    if set(text) == {"no"}:
        assert n_written == len(text)


@given(cut_texts(), st.integers(0, 3), st.integers(0, 3))
def test_match_excludes_errors_at_the_borders(
    cut: tuple[list[str], int, int], n_ending: int, n_beginning: int
) -> None:
    text, begin, end = cut
    assume(n_ending + n_beginning <= end - begin)
    earlier = [*text[:end], *["XX"] * n_ending]
    later = [*["YY"] * n_beginning, *text[begin:]]
    found = match(earlier, later, end - begin)
    assert found == Match(begin, n_beginning, end - begin)


def test_match_ignores_text_far_from_the_border() -> None:
    earlier = words("the same again and then something else that goes on for a while")
    later = words("nothing of it here until at last comes the same again")
    assert match(earlier, later, 2) is None


@pytest.mark.parametrize(("earlier", "later"), [([], ["a"]), (["a"], []), (["a"], ["b"]), ([], [])])
def test_texts_without_a_common_word_do_not_match(earlier: list[str], later: list[str]) -> None:
    assert match(earlier, later, 3) is None


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("in the early Middle Ages.", "The earliest book, printed"),
        ("printed in Germany and France.", "Unless to be rather cold-hearted and rather"),
    ],
)
def test_a_small_word_that_both_have_by_chance_is_no_match(earlier: str, later: str) -> None:
    assert match(words(earlier), words(later), 4) is None


def test_match_allows_more_similar_text_outside() -> None:
    ends = "in relief for centuries before the wood cutters of the Netherlands by"
    begins = "centuries before the woodcutters of the Netherlands by a similar process"
    assert match(words(ends), words(begins), 7) == Match(8, 4, 4)
    begins = "something that nobody said of the Netherlands by a similar process"
    assert match(words(ends), words(begins), 7) == Match(8, 4, 4)
    begins = "something that nobody ever said of the Dutch by a similar process"
    assert match(words(ends), words(begins), 7) is None


def test_match_ignores_case_and_punctuation() -> None:
    assert match([" of", " the", " Type."], [" the", " type,", " which"], 2) == Match(1, 0, 2)
    assert normalised(" \"Don't,") == "dont"
    assert normalised("ﬁ") == normalised("FI")


def test_punctuation_alone_is_no_match() -> None:
    assert match(["a", "-"], ["-", "b"], 1) is None
