import json
import shutil

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batched_whisper.errors import ModelFileMissing, UnsupportedCheckpoint
from batched_whisper.tokens.languages import LANGUAGES
from batched_whisper.tokens.tokenizer import Tokenizer
from batched_whisper.transcript.segments import TimestampTokens

few = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="session")
def multilingual(base_model) -> Tokenizer:
    return base_model.tokenizer


@pytest.fixture(scope="session")
def english(tiny_en_model) -> Tokenizer:
    return tiny_en_model.tokenizer


@pytest.fixture(scope="session")
def reference(base_model) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(base_model.files.folder / "tokenizer.json"))


@few
@given(text=st.text())
def test_encode_and_decode_round_trip(multilingual, english, text):
    for tokenizer in (multilingual, english):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@few
@given(tokens=st.lists(st.integers(0, 51_864), max_size=12))
def test_any_tokens_decode_as_the_tokenizer_file_says(reference, multilingual, tokens):
    text_tokens = [token for token in tokens if token < multilingual.eot]
    assert multilingual.decode(tokens) == reference.decode(text_tokens)


def test_half_a_character_becomes_the_replacement_character(multilingual):
    tokens = multilingual.encode("日本 龘")
    assert multilingual.decode(tokens[:-1]).endswith("\ufffd")
    assert multilingual.decode_bytes(tokens).decode() == "日本 龘"


def test_encode_treats_special_tokens_as_plain_text(multilingual):
    text = "<|endoftext|><|en|><|startofprev|>"
    tokens = multilingual.encode(text)
    assert max(tokens) < multilingual.eot
    assert multilingual.decode(tokens) == text


def test_special_tokens_and_timestamps_are_not_text(multilingual):
    noise = [multilingual.sot, multilingual.language_tokens["en"], multilingual.timestamp_begin + 5]
    assert multilingual.decode([*noise, *multilingual.encode(" yes"), multilingual.eot]) == " yes"


def test_special_token_ids_equal_the_published_ones(multilingual, english):
    def numbers(t):
        return (t.eot, t.sot, t.translate, t.transcribe, t.sot_lm, t.sot_prev, t.no_speech)

    assert numbers(multilingual) == (50257, 50258, 50358, 50359, 50360, 50361, 50362)
    assert numbers(english) == (50256, 50257, 50357, 50358, 50359, 50360, 50361)
    assert (multilingual.no_timestamps, multilingual.timestamp_begin) == (50363, 50364)
    assert (multilingual.n_vocab, english.n_vocab) == (51_865, 51_864)
    assert (multilingual.blank, english.blank) == (220, 220)


def test_only_a_multilingual_tokenizer_has_language_tokens(multilingual, english):
    assert multilingual.multilingual
    assert not english.multilingual
    assert list(multilingual.language_tokens) == [code for code in LANGUAGES if code != "yue"]
    assert list(multilingual.language_tokens.values()) == list(range(50259, 50358))
    assert not english.language_tokens


def test_the_model_has_as_many_tokens_as_its_tokenizer(base_model, tiny_en_model):
    for model in (base_model, tiny_en_model):
        assert model.tokenizer.n_vocab == model.checkpoint.dimensions.n_vocab
        assert model.tokenizer.multilingual == model.checkpoint.dimensions.multilingual


def test_suppressed_tokens_by_rule_are_the_configured_ones(base_model, tiny_en_model):
    for model in (base_model, tiny_en_model):
        assert model.tokenizer.suppress_tokens == model.checkpoint.suppress_tokens
        assert model.tokenizer.begin_suppress_tokens == model.checkpoint.begin_suppress_tokens
        assert set(model.tokenizer.non_speech_tokens) < set(model.tokenizer.suppress_tokens)


def test_timestamps_range_from_0_to_30_seconds(multilingual):
    times = TimestampTokens(multilingual.timestamp_begin)
    assert multilingual.timestamp_begin == multilingual.no_timestamps + 1
    assert times.seconds(multilingual.timestamp_begin) == 0.0
    assert times.token(30.0) == multilingual.n_vocab - 1


def test_vocab_json_gives_the_same_tokenizer_as_tokenizer_json(base_model, multilingual, tmp_path):
    content = json.loads((base_model.files.folder / "tokenizer.json").read_text("utf-8"))
    merges = [m if isinstance(m, str) else " ".join(m) for m in content["model"]["merges"]]
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    (tmp_path / "vocab.json").write_text(json.dumps(content["model"]["vocab"]), "utf-8")
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), "utf-8")
    (tmp_path / "added_tokens.json").write_text(json.dumps(added), "utf-8")
    older = Tokenizer.from_folder(tmp_path)
    text = " Hello, wörld! <|en|> 日本 it's 1234"
    assert older.encode(text) == multilingual.encode(text)
    assert older.decode(older.encode(text)) == text
    assert older.language_tokens == multilingual.language_tokens
    assert older.no_speech == multilingual.no_speech


def test_one_more_language_moves_the_tokens_behind_it(base_model, tmp_path):
    """As in large-v3, whose file also has timestamps and the newer name of no speech."""
    content = json.loads((base_model.files.folder / "tokenizer.json").read_text("utf-8"))
    for token in content["added_tokens"]:
        token["id"] += token["id"] > 50357
        token["content"] = token["content"].replace("nocaptions", "nospeech")
    cantonese = {**content["added_tokens"][0], "id": 50358, "content": "<|yue|>"}
    content["added_tokens"].append(cantonese)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert list(tokenizer.language_tokens)[-1] == "yue"
    assert (tokenizer.transcribe, tokenizer.no_speech) == (50360, 50363)
    assert (tokenizer.timestamp_begin, tokenizer.n_vocab) == (50365, 51_866)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ModelFileMissing, match=r"tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", '{"model": {"vocab": {}}, "added_tokens": []}', "["])
def test_another_tokenizer_file_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UnsupportedCheckpoint, match=r"tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(base_model, tmp_path):
    shutil.copy(base_model.files.folder / "tokenizer.json", tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text("utf-8").replace("startoftranscript", "start"), "utf-8")
    with pytest.raises(UnsupportedCheckpoint, match="startoftranscript"):
        Tokenizer.from_folder(tmp_path)
