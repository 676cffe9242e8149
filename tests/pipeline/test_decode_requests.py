"""What is asked of the engine about a window follows from the options and the checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from batched_whisper.batching.decode_request import DecodeRequest
from batched_whisper.config.options import DecodingOptions
from batched_whisper.pipeline.decode_requests import RequestBuilder
from batched_whisper.pipeline.model_tokens import ModelTokens
from batched_whisper.tokens.prompt import sot_sequence
from batched_whisper.types import Window

if TYPE_CHECKING:
    from conftest import LoadedModel


def request(model: LoadedModel, options: DecodingOptions) -> DecodeRequest:
    builder = RequestBuilder(ModelTokens(model.checkpoint, model.tokenizer), options)
    window = Window(np.zeros(16_000, np.float32), 0)
    return builder.request(window, builder.position(window, channel=0))


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_sot_sequence_is_the_start_of_a_request(
    base_model: LoadedModel, task: str, timestamps: bool
) -> None:
    options = DecodingOptions.of(task=task, timestamps=timestamps, language="de")
    found = request(base_model, options)
    expected = sot_sequence(base_model.tokenizer, "de", task, timestamps)
    assert found.language is not None
    assert (found.sot, found.language, *found.after_language) == expected


@pytest.mark.parametrize("timestamps", [False, True])
def test_word_timestamps_align_the_text_without_timestamps(
    base_model: LoadedModel, tiny_en_model: LoadedModel, timestamps: bool
) -> None:
    """As openai/whisper does, whether or not segments have timestamps."""
    options = DecodingOptions(timestamps=timestamps, word_timestamps=True)
    for model, language in ((base_model, "en"), (tiny_en_model, None)):
        alignment = request(model, options).alignment
        start = sot_sequence(model.tokenizer, language)
        assert alignment is not None
        assert alignment.after_language == start[1 if language is None else 2 :]


def test_a_request_without_word_timestamps_aligns_nothing(base_model: LoadedModel) -> None:
    assert request(base_model, DecodingOptions()).alignment is None
