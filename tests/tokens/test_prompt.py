import pytest

from batched_whisper.errors import OptionError
from batched_whisper.tokens.prompt import PreviousText, prompt_tokens, sot_sequence
from batched_whisper.types import Task


def test_a_multilingual_model_is_told_language_and_task(base_model):
    t = base_model.tokenizer
    german = t.language_tokens["de"]
    assert sot_sequence(t, "de", "transcribe", True) == (t.sot, german, t.transcribe)
    assert sot_sequence(t, "de", Task.TRANSLATE, False) == (
        t.sot,
        german,
        t.translate,
        t.no_timestamps,
    )


def test_an_english_only_model_is_told_neither(tiny_en_model):
    t = tiny_en_model.tokenizer
    for language in ("en", None):
        assert sot_sequence(t, language, "transcribe", True) == (t.sot,)
        assert sot_sequence(t, language, "transcribe", False) == (t.sot, t.no_timestamps)


@pytest.mark.parametrize(("language", "task"), [("de", "transcribe"), ("en", "translate")])
def test_an_english_only_model_refuses_what_it_cannot_do(tiny_en_model, language, task):
    with pytest.raises(OptionError, match="English only"):
        sot_sequence(tiny_en_model.tokenizer, language, task, False)


@pytest.mark.parametrize(
    ("language", "task", "says"),
    [("yue", "transcribe", "cantonese"), (None, "transcribe", "detect"), ("en", "sing", "task=")],
)
def test_a_multilingual_model_refuses_what_it_cannot_do(base_model, language, task, says):
    with pytest.raises(OptionError, match=says):
        sot_sequence(base_model.tokenizer, language, task, False)


def test_a_prompt_is_marked_as_previous_text(base_model):
    t = base_model.tokenizer
    assert prompt_tokens(t, "  Ada Lovelace ", 448) == (t.sot_prev, *t.encode(" Ada Lovelace"))


def test_of_a_long_prompt_the_end_is_kept_in_half_the_context(base_model):
    t = base_model.tokenizer
    text = " ".join(str(n) for n in range(1000))
    tokens = prompt_tokens(t, text, 448)
    assert len(tokens) == 224
    assert list(tokens[1:]) == t.encode(" " + text)[-223:]


@pytest.mark.parametrize("text", [None, "", "  \n"])
def test_no_prompt_is_no_tokens(base_model, text):
    assert prompt_tokens(base_model.tokenizer, text, 448) == ()


def test_earlier_text_follows_the_prompt_and_its_end_is_kept(base_model):
    t = base_model.tokenizer
    text = PreviousText(t, "Ada", 12)
    ada = tuple(t.encode(" Ada"))
    assert text.prefix() == (t.sot_prev, *ada)
    text.add((1, 2, 3), 0.0)
    assert text.prefix() == (t.sot_prev, *ada, 1, 2, 3)
    text.add((4, 5, 6), 0.5)
    assert text.prefix() == (t.sot_prev, *(*ada, 1, 2, 3, 4, 5, 6)[-5:])


def test_earlier_text_is_forgotten_after_a_high_temperature_and_not_after_silence(base_model):
    text = PreviousText(base_model.tokenizer, None, 448)
    assert text.prefix() == ()
    text.add((1, 2), 0.0)
    text.add((), 1.0)
    assert text.prefix()[1:] == (1, 2)
    text.add((3,), 0.6)
    assert text.prefix() == ()
    text.add((4,), 0.0)
    assert text.prefix()[1:] == (4,)
