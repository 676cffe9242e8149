import pytest

from batched_whisper.errors import OptionError
from batched_whisper.tokens.prompt import PreviousText, sot_sequence
from batched_whisper.types import Task


def test_sot_sequence_of_a_multilingual_model_has_language_and_task(base_model):
    t = base_model.tokenizer
    german = t.language_tokens["de"]
    assert sot_sequence(t, "de", "transcribe", True) == (t.sot, german, t.transcribe)
    assert sot_sequence(t, "de", Task.TRANSLATE, False) == (
        t.sot,
        german,
        t.translate,
        t.no_timestamps,
    )


def test_sot_sequence_of_an_english_only_model_has_no_language_or_task(tiny_en_model):
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


def prompt_tokens(tokenizer, text, n_text_ctx):
    return PreviousText(tokenizer, text, n_text_ctx).prefix()


def test_a_prompt_is_marked_as_previous_text(base_model):
    t = base_model.tokenizer
    assert prompt_tokens(t, "  Ada Lovelace ", 448) == (t.sot_prev, *t.encode(" Ada Lovelace"))


def test_of_a_long_prompt_the_end_is_kept_in_half_the_context(base_model):
    t = base_model.tokenizer
    text = " ".join(str(n) for n in range(1000))
    tokens = prompt_tokens(t, text, 448)
    assert len(tokens) == 224
    assert list(tokens[1:]) == t.encode(" " + text)[-223:]


def hot(base_model, hotwords, prompt=None, n_text_ctx=448):
    return PreviousText(base_model.tokenizer, prompt, n_text_ctx, hotwords)


def test_hotwords_precede_the_prompt(base_model):
    t = base_model.tokenizer
    found = hot(base_model, " Zanzibar ", "Ada Lovelace").prefix()
    assert found == (t.sot_prev, *t.encode(" Zanzibar"), *t.encode(" Ada Lovelace"))
    assert hot(base_model, "Zanzibar").prefix() == (t.sot_prev, *t.encode(" Zanzibar"))
    assert hot(base_model, " ").prefix() == ()


@pytest.mark.parametrize(("n_hot", "n_prompt"), [(5, 500), (500, 500), (500, 0), (223, 9)])
def test_hotwords_and_prompt_share_half_of_the_text_context(base_model, n_hot, n_prompt):
    t = base_model.tokenizer
    previous = hot(base_model, " a" * n_hot, " b" * n_prompt)
    previous.add([7] * 300, 0.0)
    n_kept = min(n_hot, 223)
    assert previous.prefix() == (t.sot_prev, *t.encode(" a" * n_kept), *[7] * (223 - n_kept))


def test_hotwords_are_kept_after_a_high_temperature(base_model):
    t = base_model.tokenizer
    previous = hot(base_model, "Zanzibar", "Ada")
    previous.add([7, 8], 0.8)
    assert previous.prefix() == (t.sot_prev, *t.encode(" Zanzibar"))


@pytest.mark.parametrize("text", [None, "", "  \n"])
def test_no_prompt_is_no_tokens(base_model, text):
    assert prompt_tokens(base_model.tokenizer, text, 448) == ()


def test_previous_text_follows_the_prompt_and_keeps_its_end(base_model):
    t = base_model.tokenizer
    text = PreviousText(t, "Ada", 12)
    ada = tuple(t.encode(" Ada"))
    assert text.prefix() == (t.sot_prev, *ada)
    text.add((1, 2, 3), 0.0)
    assert text.prefix() == (t.sot_prev, *ada, 1, 2, 3)
    text.add((4, 5, 6), 0.5)
    assert text.prefix() == (t.sot_prev, *(*ada, 1, 2, 3, 4, 5, 6)[-5:])


def test_previous_text_is_dropped_after_a_high_temperature_but_not_after_silence(base_model):
    text = PreviousText(base_model.tokenizer, None, 448)
    assert text.prefix() == ()
    text.add((1, 2), 0.0)
    text.add((), 1.0)
    assert text.prefix()[1:] == (1, 2)
    text.add((3,), 0.6)
    assert text.prefix() == ()
    text.add((4,), 0.0)
    assert text.prefix()[1:] == (4,)
