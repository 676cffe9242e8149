"""Laws of a recording's job, from windows to a transcript, on the scripted engine."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scripted_room import Room
from scripted_speech import RATE, SOON_S, hum, sentence, tone

from batched_whisper.audio.features import log_mel
from batched_whisper.backends.local import MAX_WINDOWS_AHEAD_CPU, MAX_WINDOWS_AHEAD_CPU_STREAMING
from batched_whisper.batching import sequence as sequence_module
from batched_whisper.batching.loop import EngineLoop
from batched_whisper.config.options import DecodingOptions
from batched_whisper.decoding.rules import MaskMode, TokenMask
from batched_whisper.engines.scripted import Script
from batched_whisper.errors import EmptyAudio, OptionError
from batched_whisper.pipeline import decode_requests
from batched_whisper.pipeline.model_tokens import ModelTokens
from batched_whisper.pipeline.recording_job import RecordingJob

if TYPE_CHECKING:
    from conftest import LoadedModel


@pytest.fixture
def english_room(tiny_en_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    room = Room(tiny_en_model, monkeypatch)
    yield room
    room.close()


# --- windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.01, 1.0, 29.9, 30.0, 30.1, 75.3])
def test_the_windows_end_to_end_are_the_recording(room: Room, seconds: float) -> None:
    found = room.hear(tone(2, seconds))
    n_samples = int(seconds * RATE)
    assert found.duration == pytest.approx(n_samples / RATE)
    edges = [0.0, *(window.end for window in found.windows)]
    assert [window.start for window in found.windows] == edges[:-1]
    assert edges[-1] == pytest.approx(found.duration)
    assert all(0 < window.end - window.start <= 30 for window in found.windows)
    assert len(found.windows) == max(1, -(-n_samples // (30 * RATE)))


def test_a_long_recordings_text_is_that_of_its_windows_in_turn(
    base_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where a later window is done first, as here, where both start together."""
    room = Room(base_model, monkeypatch, max_batch_size=2, wait_ms=60_000)
    room.listener.scripts[3] = room.listener.script(" a long first part" * 4)
    sound = np.concatenate([tone(3, 29), np.zeros(RATE, np.float32), tone(1, 20)])
    found = room.hear(sound, temperature_increment=0.0)
    assert found.text == "a long first part" + " a long first part" * 3 + " " + sentence(1)
    assert [window.text for window in found.windows] == [
        " a long first part" * 4,
        " " + sentence(1),
    ]
    assert [segment.text.strip() for segment in found.segments][-1] == sentence(1)
    assert found.segments[-1].start == found.windows[1].start
    room.close()


@pytest.mark.parametrize("word_timestamps", [False, True])
@pytest.mark.parametrize("timestamps", [False, True])
def test_speech_without_a_pause_is_one_text(
    room: Room, timestamps: bool, word_timestamps: bool
) -> None:
    tokenizer = room.tokenizer
    for number, text in ((1, " and so he goes on with a pos"), (3, " on with a pause at all.")):
        tokens = tuple(tokenizer.encode(text))
        if timestamps:
            tokens = (tokenizer.timestamp_begin, *tokens, tokenizer.timestamp_begin + 1400)
        room.listener.scripts[number] = Script(tokens, tokenizer.language_tokens["en"])
    sound = np.concatenate([hum(1, 29), hum(3, 15)])
    told = list[str]()
    found = room.hear(
        sound,
        timestamps=timestamps,
        word_timestamps=word_timestamps,
        on_segment=lambda segment: told.append(segment.text),
    )
    assert found.text == "and so he goes on with a pause at all."
    assert "".join(told) == "".join(s.text for s in found.segments) == " " + found.text
    for window in found.windows:
        assert window.text == room.tokenizer.decode(
            [t for t in window.tokens if t < room.tokenizer.eot]
        )
    if word_timestamps:
        words = [word.word for segment in found.segments for word in segment.words or ()]
        assert "".join(words) == " " + found.text


def test_who_is_told_what_was_said_hears_nothing_twice(room: Room) -> None:
    """So there is nothing to stitch, however much alike the windows are."""
    room.listener.scripts[1] = room.listener.script(" and again")
    found = room.hear(hum(1, 40), condition_on_previous_text=True)
    assert found.text == "and again and again"
    assert found.windows[0].end == found.windows[1].start


def test_a_recording_given_up_is_not_read_to_its_end(
    base_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(base_model, monkeypatch, max_batch_size=1, max_queue_size=1)
    room.listener.hold = 5
    n_made = itertools.count()

    def counted(*arguments: Any, **options: Any) -> Any:
        next(n_made)
        return log_mel(*arguments, **options)

    monkeypatch.setattr(decode_requests, "log_mel", counted)
    given_up = room.whisper.submit(tone(5, 300))
    assert room.listener.held.wait(SOON_S)
    assert given_up.cancel()
    room.listener.go.set()
    room.close()
    assert next(n_made) <= 3  # of eleven: one in the engine, one in the queue, one outside


@pytest.mark.parametrize("channels", ["mix", "split"])
@pytest.mark.parametrize(
    ("settings", "told_segments", "most"),
    [
        ({"max_batch_size": 4}, {}, 6),  # the slots, two that wait
        ({}, {}, MAX_WINDOWS_AHEAD_CPU),
        (
            {},
            {"on_segment": str},
            MAX_WINDOWS_AHEAD_CPU_STREAMING,
        ),  # so that the first is told soon
        ({"max_batch_size": 4}, {"on_segment": str}, 6),
    ],
)
def test_a_long_recording_is_read_no_further_ahead_than_a_few_windows(
    base_model: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    channels: str,
    settings: dict[str, Any],
    told_segments: dict[str, Any],
    most: int,
) -> None:
    """However long it is, and however many windows the queue could hold."""
    room = Room(base_model, monkeypatch, **settings)
    room.listener.hold = 1
    n_brought, returned = itertools.count(), threading.Event()
    submit, run = EngineLoop.submit, RecordingJob.run

    def counted(*arguments: Any, **options: Any) -> Any:
        next(n_brought)
        return submit(*arguments, **options)

    def told(job: RecordingJob) -> None:
        run(job)
        returned.set()

    monkeypatch.setattr(EngineLoop, "submit", counted)
    monkeypatch.setattr(RecordingJob, "run", told)
    long, n_channels = np.tile(tone(1, 30), 40), 2 if channels == "split" else 1
    options = {"channels": channels, "language": "en", **told_segments}
    found = room.whisper.submit(np.stack([long, long]), **options)
    assert returned.wait(SOON_S)  # its thread is free again, though the engine has done nothing
    assert next(n_brought) <= most + 2 * n_channels  # and the rest of a block
    room.listener.go.set()
    assert len(found.result(SOON_S).windows) >= 40 * n_channels
    room.close()


def test_a_recording_without_samples_is_an_error_that_names_it(room: Room) -> None:
    with pytest.raises(EmptyAudio):
        room.hear(np.zeros(0, np.float32))


def test_a_transcript_says_what_it_is_of(room: Room, tmp_path: Any) -> None:
    assert room.hear(tone(0)).name
    missing = tmp_path / "missing.wav"
    with pytest.raises(Exception, match=r"missing\.wav"):
        room.hear(missing)


# --- requests -------------------------------------------------------------------------------------


def test_a_prompt_comes_before_the_start_of_every_window(room: Room) -> None:
    tokenizer = room.tokenizer
    found = room.hear(tone(0, 40), prompt="Mr. Quilter, Zanzibar", language="en")
    assert found.text == f"{sentence(0)} {sentence(0)}"
    prompt = (
        tokenizer.sot_prev,
        *tokenizer.encode(" Mr. Quilter, Zanzibar"),
        tokenizer.sot,
    )
    assert room.listener.starts == [prompt] * 2


@pytest.mark.parametrize("condition_on_previous_text", [False, True])
def test_hot_words_come_before_every_window(room: Room, condition_on_previous_text: bool) -> None:
    room.hear(
        tone(0, 40),
        hotwords="Zanzibar",
        prompt="Mr. Quilter",
        language="en",
        condition_on_previous_text=condition_on_previous_text,
    )
    t = room.tokenizer
    prefix = (t.sot_prev, *t.encode(" Zanzibar"), *t.encode(" Mr. Quilter"))
    assert len(room.listener.starts) == 2
    assert all(start[: len(prefix)] == prefix for start in room.listener.starts)


@pytest.mark.parametrize("numbers", [[], [-1], [1000, 2000], [-1, 1000]])
def test_suppressed_tokens_are_never_allowed(
    room: Room, base_model: LoadedModel, numbers: list[int]
) -> None:
    never = {number for number in numbers if number >= 0}
    if -1 in numbers:
        never |= set(base_model.checkpoint.suppress_tokens)
    seen = list[TokenMask]()
    room.listener.before_step = lambda rows: seen.extend(
        row.allowed.mask for row in rows if row.allowed is not None
    )
    room.hear(tone(0), language="en", suppress_tokens=numbers)
    marks = {room.tokenizer.sot, room.tokenizer.sot_prev, room.tokenizer.translate}
    text = [mask for mask in seen if mask.mode is MaskMode.ALL_BUT]
    assert text
    for mask in text:
        assert never | marks <= mask.tokens
        assert {1000, 2000} - never == {1000, 2000} - mask.tokens
    words = set(range(room.tokenizer.eot))
    assert text[-1].tokens & words == never & words


def test_by_default_what_the_checkpoint_suppresses_is_suppressed(
    room: Room, base_model: LoadedModel
) -> None:
    rules = ModelTokens(base_model.checkpoint, room.tokenizer).rules
    default, said = DecodingOptions(), DecodingOptions.of(suppress_tokens=[-1])
    none = DecodingOptions.of(suppress_tokens=[])
    assert rules(default).next([5]) == rules(said).next([5]) != rules(none).next([5])
    assert rules(default) is rules(said)


@pytest.mark.parametrize("number", [-2, 51865, 0.5, 10**9])
def test_a_token_that_does_not_exist_cannot_be_suppressed(room: Room, number: float) -> None:
    with pytest.raises(OptionError, match="suppress_tokens"):
        room.hear(tone(0), suppress_tokens=[number])


def test_no_prompt_is_a_start_alone(room: Room) -> None:
    room.hear(tone(0), prompt="  ")
    assert room.listener.starts == [(room.tokenizer.sot,)]


@pytest.mark.parametrize("task", ["transcribe", "translate"])
@pytest.mark.parametrize("timestamps", [False, True])
def test_language_task_and_timestamps_follow_the_start(
    room: Room, task: str, timestamps: bool
) -> None:
    tokenizer = room.tokenizer
    room.hear(tone(0), language="de", task=task, timestamps=timestamps)
    expected = [
        tokenizer.language_tokens["de"],
        tokenizer.transcribe if task == "transcribe" else tokenizer.translate,
    ]
    if not timestamps:
        expected.append(tokenizer.no_timestamps)
    assert room.listener.said[: len(expected)] == expected


def test_a_long_prompt_still_leaves_room_for_the_text(room: Room) -> None:
    room.listener.scripts[0] = room.listener.script(" word" * 400)
    found = room.hear(tone(0), prompt="name " * 400, temperature_increment=0.0, language="en")
    [window] = found.windows
    n_start, n_text_ctx = len(room.listener.starts[0]), 448
    assert n_start + len(window.tokens) <= n_text_ctx
    assert len(window.tokens) > 200


def test_an_english_model_takes_no_language_but_english(english_room: Room) -> None:
    assert english_room.hear(tone(1)).language == "en"
    assert english_room.hear(tone(1), language="English").text == sentence(1)
    for options in ({"language": "de"}, {"task": "translate"}):
        with pytest.raises(OptionError):
            english_room.hear(tone(1), **options)
    tokenizer = english_room.tokenizer
    assert set(english_room.listener.starts) == {(tokenizer.sot,)}


# --- languages ------------------------------------------------------------------------------------


def test_a_language_given_by_name_or_code_is_the_same(room: Room) -> None:
    by_code, by_name = (room.hear(tone(0), language=name) for name in ("de", "German"))
    assert by_code == by_name
    assert (by_code.language, by_code.language_probability) == ("de", 1.0)


def test_a_detected_language_holds_for_the_whole_recording(room: Room) -> None:
    sound = np.concatenate([tone(1, 29), np.zeros(RATE, np.float32), tone(3, 25)])
    found = room.hear(sound)
    assert [window.language for window in found.windows] == ["de", "de"]
    assert found.language == "de"
    assert found.language_probability == found.windows[0].language_probability


def test_a_language_of_none_is_detected_whatever_the_variable_said(
    base_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHED_WHISPER_LANGUAGE", "nl")
    room = Room(base_model, monkeypatch)
    assert room.hear(tone(1)).language == "nl"
    assert room.hear(tone(1), language=None).language == "de"
    room.close()


def test_languages_may_be_detected_window_by_window(room: Room) -> None:
    sound = np.concatenate([tone(1, 29), np.zeros(RATE, np.float32), tone(3, 25)])
    found = room.hear(sound, language="per_window")
    assert [window.language for window in found.windows] == ["de", "fr"]


@pytest.mark.parametrize(
    ("told", "code"),
    [("English", "en"), ("DE", "de"), ("pt-BR", "pt"), ("per_window", ""), (None, "")],
)
def test_silence_is_in_the_language_that_was_told_by_its_code_or_in_none(
    room: Room, told: str | None, code: str
) -> None:
    found = room.hear(np.zeros(2 * RATE, np.float32), language=told, vad=True)
    assert (found.windows, found.language) == ((), code)


# --- accepted and rejected texts ------------------------------------------------------------------


def says(room: Room, text: str, **figures: float) -> None:
    room.listener.scripts[0] = room.listener.script(text, "en", **figures)


def test_an_unlikely_text_is_tried_hotter_until_there_is_no_hotter(room: Room) -> None:
    says(room, " perhaps", logprob=-1.8)
    [window] = room.hear(tone(0), audio_context="full").windows
    assert (window.decodes, window.temperature) == (6, 1.0)
    assert window.text == " perhaps"
    assert window.avg_logprob == pytest.approx(-1.8)
    assert len(room.listener.encoded) == 1  # on the same audio


@pytest.mark.parametrize("options, decodes", [({}, 1), ({"logprob_threshold": -0.05}, 6)])
def test_thresholds_may_be_chosen_call_by_call(
    room: Room, options: dict[str, float], decodes: int
) -> None:
    [window] = room.hear(tone(0), audio_context="full", **options).windows
    assert window.decodes == decodes


def test_a_threshold_of_none_is_not_looked_at(room: Room) -> None:
    says(room, " perhaps", logprob=-5.0)
    [window] = room.hear(tone(0), audio_context="full", logprob_threshold=None).windows
    assert (window.text, window.decodes) == (" perhaps", 1)


def test_unlikely_words_without_speech_are_silence(room: Room) -> None:
    says(room, " Thank you", logprob=-2.0, no_speech_prob=0.9)
    found = room.hear(tone(0))
    assert (found.text, found.segments) == ("", ())
    [window] = found.windows
    assert (window.tokens, window.no_speech_prob) == ((), 0.9)


def test_a_text_that_no_attempt_makes_any_likelier_than_chance_is_no_text(room: Room) -> None:
    says(room, " armenta mito", logprob=-5.0, no_speech_prob=0.4)
    [window] = room.hear(tone(0), word_timestamps=True, audio_context="full").windows
    assert (window.text, window.tokens, window.words) == ("", (), ())
    assert window.decodes == 6  # it is given up only when nothing is left to try
    says(room, " armenta mito", logprob=-1.9, no_speech_prob=0.4)
    assert room.hear(tone(0)).text == "armenta mito"  # unlikely, as openai/whisper keeps it


@pytest.mark.parametrize("level", [0.0, 2.0**-16])
def test_a_recording_without_sound_has_no_text_whatever_the_model_decodes(
    room: Room, level: float
) -> None:
    silence = np.full(40 * RATE, level, np.float32)
    room.listener.engine._read = lambda features, context: room.listener.script(" Thank you.")
    found = room.hear(silence, language="en", word_timestamps=True)
    assert (found.text, found.segments) == ("", ())
    assert {(w.text, w.tokens, w.words) for w in found.windows} == {("", (), ())}
    assert room.hear(silence + np.float32(0.001), language="en").text != ""


def test_likely_words_are_kept_whatever_the_no_speech_probability(room: Room) -> None:
    says(room, " Thank you", logprob=-0.2, no_speech_prob=0.9)
    assert room.hear(tone(0)).text == "Thank you"


def test_a_text_that_loops_on_a_fitted_context_is_heard_on_the_full_one(room: Room) -> None:
    contexts = list[int]()
    script, loop = room.listener.script, room.listener.script(" so so" * 40)

    def hear(features: Any, audio_context: int) -> Script:
        contexts.append(audio_context)
        return loop if audio_context < 1500 else script(" so it is")

    room.listener.engine._read = hear
    [window] = room.hear(tone(0), audio_context=200, language="en").windows
    assert contexts == [200, 1500]
    assert (window.text, window.audio_context, window.decodes) == (" so it is", 1500, 2)


@pytest.mark.parametrize("max_batch_size", [1, 4, 64])
def test_the_size_of_a_batch_and_who_is_in_it_change_no_text(
    base_model: LoadedModel, monkeypatch: pytest.MonkeyPatch, max_batch_size: int
) -> None:
    room = Room(base_model, monkeypatch, max_batch_size=max_batch_size)
    room.listener.scripts[1] = room.listener.script(" and so he goes on with a pos")
    room.listener.scripts[3] = room.listener.script(" on with a pause at all.")
    sound = np.concatenate([hum(1, 29), hum(3, 15)])
    numbers = [(0, 2, 4, 5, 6, 7)[n % 6] for n in range(50)]
    others = [room.whisper.submit(tone(number, 1 + n)) for n, number in enumerate(numbers)]
    among = [room.whisper.submit(sound, word_timestamps=timed) for timed in (False, True)]
    for number, other in zip(numbers, others, strict=True):
        assert sentence(number) in other.result(SOON_S).text
    alone = room.hear(sound)
    for one in (future.result(SOON_S) for future in among):
        assert one.text == alone.text == "and so he goes on with a pause at all."
        assert [w.tokens for w in one.windows] == [w.tokens for w in alone.windows]
    room.close()


# --- timestamps -----------------------------------------------------------------------------------


def test_segments_have_the_times_that_the_model_said(room: Room) -> None:
    tokenizer = room.tokenizer
    begin = tokenizer.timestamp_begin

    def said(text: str, start: int, end: int) -> tuple[int, ...]:
        return (begin + start, *tokenizer.encode(text), begin + end)

    tokens = said(" one", 0, 50) + said(" two", 75, 200)
    room.listener.scripts[0] = Script(tokens, tokenizer.language_tokens["en"])
    found = room.hear(tone(0, 50), timestamps=True)
    second = found.windows[1].start
    assert [segment.text for segment in found.segments] == [" one", " two"] * 2
    times = [at for segment in found.segments for at in (segment.start, segment.end)]
    in_window = [0.0, 1.0, 1.5, 4.0]
    assert times == pytest.approx([*in_window, *(second + at for at in in_window)])
    assert found.text == "one two one two"


@pytest.mark.parametrize("context", ["full", 200])
def test_max_tokens_bounds_every_window_and_what_it_cuts_off_is_believed(
    room: Room, context: str | int
) -> None:
    says(room, " one two three four five six seven eight nine ten eleven")
    found = room.hear(tone(0, 40), max_tokens=7, audio_context=context)
    assert [len(window.tokens) for window in found.windows] == [7, 7]
    assert {(window.temperature, window.decodes) for window in found.windows} == {(0.0, 1)}


@pytest.mark.parametrize("options", [{}, {"max_tokens": 448}])
def test_a_text_that_runs_into_the_models_own_limit_is_not_believed(
    room: Room, options: dict[str, Any]
) -> None:
    letters = np.random.default_rng(0).choice([*"abcdefghijklmnopqrstuvwxyz"], 2000)
    says(room, " " + "".join(letters))
    [window] = room.hear(tone(0), audio_context="full", **options).windows
    assert window.compression_ratio < 2.4
    assert (window.decodes, len(window.tokens)) == (6, 444 if options else 224)


def test_a_text_is_made_measured_and_searched_for_pauses_once(
    base_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask for it: the verdict, the fallback, the words and the transcript."""
    texts, measured, searched = list[Any](), list[str](), list[int]()
    text = ModelTokens.text
    measure = sequence_module.measure  # type: ignore[attr-defined]
    find = decode_requests.find_pauses  # type: ignore[attr-defined]

    def made(tokens: ModelTokens, sampled: Any) -> str:
        texts.append(tuple(sampled))
        return text(tokens, sampled)

    def measure_once(said: str, **figures: Any) -> Any:
        measured.append(said)
        return measure(said, **figures)

    def find_once(samples: Any) -> Any:
        searched.append(len(samples))
        return find(samples)

    monkeypatch.setattr(ModelTokens, "text", made)
    monkeypatch.setattr(sequence_module, "measure", measure_once)
    monkeypatch.setattr(decode_requests, "find_pauses", find_once)
    room = Room(base_model, monkeypatch)
    begin = room.tokenizer.timestamp_begin
    said = (begin, *room.tokenizer.encode(" one two"), begin + 990)
    room.listener.scripts[1] = Script(said)
    found = room.hear(tone(1, 20), language="en", timestamps=True, word_timestamps=True)
    room.close()
    [window] = found.windows
    assert window.words
    assert texts == [window.tokens]
    assert measured == [window.text]
    assert searched == [20 * 16_000]


def test_what_the_engine_said_of_a_window_is_not_kept_until_the_recording_ends(
    base_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(base_model, monkeypatch, max_batch_size=1)
    answers: list[weakref.ref[Any]] = []
    submit = EngineLoop.submit

    def watched(*arguments: Any, **options: Any) -> Any:
        answer = submit(*arguments, **options)
        answers.append(weakref.ref(answer))
        return answer

    process, third, n_processed = RecordingJob._process, threading.Event(), itertools.count(1)

    def counted(*arguments: Any) -> None:
        if next(n_processed) == 3:  # by one thread, so that it has nothing of the two before
            third.set()
        process(*arguments)

    monkeypatch.setattr(RecordingJob, "_process", counted)
    monkeypatch.setattr(EngineLoop, "submit", watched)
    room.listener.hold = 3
    sound = np.concatenate([tone(number, 30) for number in (1, 2, 4, 3)])
    future = room.whisper.submit(sound, language="en", word_timestamps=True)
    assert room.listener.held.wait(SOON_S)
    assert third.wait(SOON_S)
    gc.collect()
    assert [answer() is None for answer in answers[:2]] == [True, True]
    room.listener.go.set()
    assert sentence(3) in future.result(SOON_S).text
    room.close()


def test_the_engines_thread_does_not_make_the_times_of_words(
    base_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they are being made the engine decodes other windows."""
    room = Room(base_model, monkeypatch, max_batch_size=1)
    room.listener.hold, began = 4, threading.Event()
    time_words = decode_requests.time_window_words  # type: ignore[attr-defined]

    def held(*arguments: Any) -> Any:
        began.set()
        assert room.listener.held.wait(SOON_S)  # the engine has come to the next window
        return time_words(*arguments)

    monkeypatch.setattr(decode_requests, "time_window_words", held)
    sound = np.concatenate([tone(1, 30), tone(4, 30)])
    future = room.whisper.submit(sound, language="en", word_timestamps=True)
    assert began.wait(SOON_S) and room.listener.held.wait(SOON_S)
    room.listener.go.set()
    found = future.result(SOON_S)
    assert all(window.words for window in found.windows)
    room.close()
