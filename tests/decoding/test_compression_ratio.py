"""The compression ratio of texts, as openai/whisper measures it."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batched_whisper.decoding.fallback import compression_ratio


@given(st.text(min_size=1))
def test_it_is_the_length_of_the_text_by_the_length_of_its_stream(text: str) -> None:
    packed = zlib.compress(text.encode())
    assert zlib.decompress(packed).decode() == text
    assert compression_ratio(text) == pytest.approx(len(text.encode()) / len(packed))


def test_loops_are_above_and_speech_is_below_the_threshold() -> None:
    speech = "And so my fellow Americans ask not what your country can do for you."
    assert compression_ratio(speech) < 2.4 < compression_ratio(" for you" * 40)


def test_a_text_counts_in_bytes() -> None:
    assert compression_ratio("ю" * 50) > compression_ratio("u" * 50)


def test_silence_has_a_ratio() -> None:
    assert compression_ratio("") == 0
