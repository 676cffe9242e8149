"""The laws of `Whisper`: every way to call it gives the same, alone or together with others."""

from __future__ import annotations

import asyncio
import io
import itertools
import threading
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scripted_speech import LANGUAGES, RATE, SOON_S, Listener, sentence, tone

from batched_whisper.backends import local
from batched_whisper.batching.loop import EngineLoop
from batched_whisper.engines.factory import max_concurrent_windows
from batched_whisper.engines.scripted import Script
from batched_whisper.errors import (
    Closed,
    EngineError,
    InvalidSamples,
    ModelError,
    OptionError,
    UnreadableAudio,
)
from batched_whisper.models.checkpoint import Checkpoint, load_checkpoint
from batched_whisper.models.model_files import ModelFiles
from batched_whisper.tokens.tokenizer import Tokenizer
from batched_whisper.types import Transcript
from batched_whisper.whisper import Whisper

if TYPE_CHECKING:
    from conftest import LoadedModel

BAD = b"this is not a recording"
Start = Callable[..., tuple[Whisper, Listener]]


@pytest.fixture
def start(base_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Makes a `Whisper` and the engine that it will use; closes them at the end."""
    monkeypatch.setenv("BATCHED_WHISPER_VAD", "false")  # nobody speaks in tones

    # The model is the session's: reading it again takes longer than most of these tests.
    def load(files: ModelFiles) -> Checkpoint:
        is_base = files.folder == base_model.files.folder
        return base_model.checkpoint if is_base else load_checkpoint(files)

    monkeypatch.setattr(local, "load_checkpoint", load)
    monkeypatch.setattr(Tokenizer, "from_folder", lambda _folder: base_model.tokenizer)
    made: list[tuple[Whisper, Listener]] = []

    def start(**settings: Any) -> tuple[Whisper, Listener]:
        options = {"wait_ms": 0, **settings}
        whisper = Whisper(base_model.files.folder, **options)
        listener = Listener(base_model.tokenizer, max_concurrent_windows(whisper.settings))
        monkeypatch.setattr(local, "make_engines", lambda *_: [listener])
        made.append((whisper, listener))
        return whisper, listener

    yield start
    for whisper, listener in made:
        listener.go.set()
        whisper.close()


@pytest.fixture
def whisper(start: Start) -> Whisper:
    return start()[0]


def texts(transcripts: list[Transcript]) -> list[str]:
    return [transcript.text for transcript in transcripts]


# --- every way to call it -------------------------------------------------------------------------


def one_by_one(whisper: Whisper, audios: list[Any]) -> list[Transcript]:
    return [whisper.transcribe(audio) for audio in audios]


def awaited_together(whisper: Whisper, audios: list[Any]) -> list[Transcript]:
    async def main() -> list[Transcript]:
        return list(await asyncio.gather(*map(whisper.transcribe.aio, audios)))

    return asyncio.run(main())


def mapped(whisper: Whisper, audios: list[Any]) -> list[Transcript]:
    return list(whisper.transcribe.map(audios))


def mapped_asynchronously(whisper: Whisper, audios: list[Any]) -> list[Transcript]:
    async def inputs() -> AsyncIterator[Any]:
        for audio in audios:
            yield audio

    async def main() -> list[Transcript]:
        return [transcript async for transcript in whisper.transcribe.map.aio(inputs())]

    return asyncio.run(main())


def as_a_batch(whisper: Whisper, audios: list[Any]) -> list[Transcript]:
    return whisper.transcribe_batch(audios)


def submitted(whisper: Whisper, audios: list[Any]) -> list[Transcript]:
    return [future.result(SOON_S) for future in [whisper.submit(audio) for audio in audios]]


def from_threads(whisper: Whisper, audios: list[Any]) -> list[Transcript]:
    found: dict[int, Transcript] = {}

    def call(i: int) -> None:
        found[i] = whisper.transcribe(audios[i])

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(audios))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    return [found[i] for i in range(len(audios))]


@pytest.mark.parametrize(
    "call",
    [
        one_by_one,
        awaited_together,
        mapped,
        mapped_asynchronously,
        as_a_batch,
        submitted,
        from_threads,
    ],
)
def test_every_way_to_call_gives_the_same(
    whisper: Whisper, call: Callable[[Whisper, list[Any]], list[Transcript]]
) -> None:
    audios = [tone(number) for number in (3, 0, 7, 7, 2, 1)]
    found = call(whisper, audios)
    assert texts(found) == [sentence(number) for number in (3, 0, 7, 7, 2, 1)]
    assert [each.language for each in found] == [LANGUAGES[i] for i in (3, 0, 7, 7, 2, 1)]


@pytest.mark.parametrize("call", [mapped, mapped_asynchronously, as_a_batch])
def test_no_recordings_give_no_transcripts(
    whisper: Whisper, call: Callable[[Whisper, list[Any]], list[Transcript]]
) -> None:
    assert call(whisper, []) == []


def wav(samples: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def test_every_form_of_recording_gives_the_same(whisper: Whisper, tmp_path: Path) -> None:
    samples, encoded = tone(4), wav(tone(4))
    path = tmp_path / "tone.wav"
    path.write_bytes(encoded)
    forms: list[Any] = [
        path,
        str(path),
        encoded,
        bytearray(encoded),
        memoryview(encoded),
        io.BytesIO(encoded),
        samples,
        samples.astype(np.float64),
        (samples * 32767).astype(np.int16),
        samples.tolist(),
        np.stack([samples, samples]),
        {"array": samples, "sampling_rate": RATE},
        {"bytes": encoded, "path": None},
        {"audio": {"array": samples, "sampling_rate": RATE}, "text": "other columns"},
    ]
    assert texts(whisper.transcribe_batch(forms)) == [sentence(4)] * len(forms)
    with path.open("rb") as file:
        assert whisper.transcribe(file).text == sentence(4)


def test_an_array_of_another_sampling_rate_is_the_same_sound(whisper: Whisper) -> None:
    at_8_khz = tone(2)[::2]
    found = whisper.transcribe(at_8_khz, sampling_rate=8000)
    assert found.text == sentence(2)
    assert found.duration == pytest.approx(1.0, abs=0.01)


def test_options_travel_with_their_call(start: Start) -> None:
    whisper, listener = start()
    german, found = whisper.submit(tone(0), language="german"), whisper.submit(tone(0))
    assert german.result(SOON_S).language == "de"
    assert german.result().language_probability == 1.0
    assert found.result(SOON_S).language == "en"
    tokens = listener.tokenizer.language_tokens
    assert {tokens["de"], tokens["en"]} <= set(listener.said)


# --- errors ---------------------------------------------------------------------------------------


def test_a_bad_recording_fails_alone(whisper: Whisper) -> None:
    bad, good = whisper.submit(BAD), whisper.submit(tone(1))
    with pytest.raises(UnreadableAudio):
        bad.result(SOON_S)
    assert good.result(SOON_S).text == sentence(1)


@pytest.mark.parametrize("order_outputs", [True, False])
def test_exceptions_are_outputs_where_that_is_asked_for(
    whisper: Whisper, order_outputs: bool
) -> None:
    audios: list[Any] = [tone(0), BAD, tone(2), "no such file.wav"]
    found = list(
        whisper.transcribe.map(audios, return_exceptions=True, order_outputs=order_outputs)
    )
    good = [each.text for each in found if isinstance(each, Transcript)]
    assert sorted(good) == [sentence(0), sentence(2)]
    assert sum(isinstance(each, Exception) for each in found) == 2
    if order_outputs:
        assert [isinstance(each, Exception) for each in found] == [False, True, False, True]


def test_the_first_exception_ends_a_map_otherwise(whisper: Whisper) -> None:
    run = whisper.transcribe.map([tone(0), BAD, tone(2)])
    assert next(run).text == sentence(0)
    with pytest.raises(UnreadableAudio):
        next(run)
    assert whisper.transcribe(tone(5)).text == sentence(5)


@pytest.mark.parametrize("one", ["talk.wav", tone(0)], ids=["path", "array"])
def test_one_recording_in_the_place_of_many_is_refused_at_once(whisper: Whisper, one: Any) -> None:
    for way in (
        whisper.transcribe.map,
        whisper.transcribe.map.aio,
        whisper.transcribe_batch,
    ):
        with pytest.raises(UnreadableAudio, match=r"use transcribe\(\.\.\.\) for it"):
            way(one)
    with pytest.raises(InvalidSamples, match=r"use transcribe\.map\("):
        whisper.transcribe(["a.wav", "b.wav"])  # type: ignore[list-item]


def test_a_failure_of_the_engine_fails_that_recording_alone(start: Start) -> None:
    whisper, listener = start()
    listener.fails = frozenset([6])
    bad, good = whisper.submit(tone(6, 70)), whisper.submit(tone(1))
    with pytest.raises(EngineError, match="tone 6"):
        bad.result(SOON_S)
    assert good.result(SOON_S).text == sentence(1)
    assert whisper.transcribe(tone(2)).text == sentence(2)


@pytest.mark.parametrize(
    "options",
    [
        {"no_such_option": 1},
        {"language": "klingon"},
        {"language": "yue"},  # a language of large-v3 alone
        {"task": "summarise"},
        {"max_tokens": 0},
        {"temperature": -1.0},
    ],
)
def test_a_wrong_option_is_an_error_of_that_call(whisper: Whisper, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        whisper.transcribe(tone(0), **options)
    assert whisper.transcribe(tone(0)).text == sentence(0)


@pytest.mark.parametrize("settings", [{"no_such_setting": 1}, {"max_batch_size": 0}])
def test_a_wrong_setting_is_refused_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Whisper("base", **settings)


def test_a_model_that_is_not_there_says_so_at_every_call(tmp_path: Path) -> None:
    with Whisperless(tmp_path) as whisper:
        for _ in range(2):
            with pytest.raises(ModelError):
                whisper.transcribe(tone(0))


class Whisperless:
    """A `Whisper` of an empty folder; it loads nothing when it is entered."""

    def __init__(self, folder: Path) -> None:
        self._whisper = Whisper(folder)

    def __enter__(self) -> Whisper:
        return self._whisper

    def __exit__(self, *_: object) -> None:
        self._whisper.close()


# --- map is lazy ----------------------------------------------------------------------------------


@pytest.mark.parametrize("word_timestamps", [False, True])
def test_recordings_with_beams_and_without_are_transcribed_together(
    start: Start, word_timestamps: bool
) -> None:
    whisper, listener = start(max_batch_size=7)
    n_rows = list[int]()
    listener.before_step = lambda rows: n_rows.append(sum(row.n_best > 0 for row in rows))
    futures = [
        whisper.submit(
            tone(number), beam_size=1 + number, patience=1.5, word_timestamps=word_timestamps
        )
        for number in range(7)
    ]
    found = [future.result(SOON_S) for future in futures]
    assert [transcript.text for transcript in found] == [sentence(number) for number in range(7)]
    assert max(n_rows) == 7
    for transcript in found:
        [timed] = [window.words for window in transcript.windows]
        assert (timed is not None) is word_timestamps


def test_more_beams_than_the_batch_has_room_for_are_an_error_that_says_so(start: Start) -> None:
    whisper, _ = start(max_batch_size=4)
    with pytest.raises(OptionError, match=r"beam_size=5 .* the 4 windows"):
        whisper.transcribe(tone(0), beam_size=5)
    assert whisper.transcribe(tone(0), beam_size=4).text == sentence(0)


class Endless:
    """Recordings without end, that know how many were read and whether anybody closed them."""

    def __init__(self) -> None:
        self.n_read, self.closed = 0, False

    def recordings(self) -> Iterator[Any]:
        try:
            for number in itertools.count():
                self.n_read += 1
                yield tone(number % 8, 0.2)
        finally:
            self.closed = True


def test_a_map_reads_endless_recordings_as_they_are_asked_for(start: Start) -> None:
    whisper, _ = start(max_batch_size=3)
    source = Endless()
    run = whisper.transcribe.map(source.recordings())
    assert source.n_read == 0
    found = [next(run).text for _ in range(20)]
    assert found == [sentence(number % 8) for number in range(20)]
    assert source.n_read <= 20 + 2 * 3 + 1
    run.close()
    assert source.closed
    assert whisper.transcribe(tone(1)).text == sentence(1)


def test_an_asynchronous_map_reads_endless_recordings_too(start: Start) -> None:
    whisper, _ = start(max_batch_size=3)
    source = Endless()

    async def main() -> list[str]:
        run = whisper.transcribe.map.aio(source.recordings())
        found = [(await run.__anext__()).text for _ in range(20)]
        await run.aclose()
        return found

    assert asyncio.run(main()) == [sentence(number % 8) for number in range(20)]
    assert source.n_read <= 20 + 2 * 3 + 1
    assert source.closed


@pytest.mark.parametrize("order_outputs", [True, False])
def test_outputs_come_in_order_or_as_they_end(start: Start, order_outputs: bool) -> None:
    whisper, listener = start(max_batch_size=2, wait_ms=60_000)  # both windows start together
    whisper.load()
    listener.scripts[0] = listener.script(" and" * 50)
    if not order_outputs:  # the long one goes on when the short one has been given
        listener.before_step = lambda rows: len(rows) > 1 or listener.go.wait(SOON_S)
    run = whisper.transcribe.map(
        [tone(0), tone(1)], order_outputs=order_outputs, temperature_increment=0.0
    )
    first = next(run)
    listener.go.set()
    second = next(run)
    assert (second if order_outputs else first).text == sentence(1)
    assert (first if order_outputs else second).text.startswith("and and")


# --- giving up ------------------------------------------------------------------------------------


def test_a_cancelled_call_drops_its_windows(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    whisper, listener = start(max_batch_size=1)
    listener.hold = 7
    queued = threading.Semaphore(0)
    submit = EngineLoop.submit

    def counted(*arguments: Any, **options: Any) -> Any:
        future = submit(*arguments, **options)
        queued.release()
        return future

    monkeypatch.setattr(EngineLoop, "submit", counted)

    async def main() -> None:
        holding = asyncio.create_task(whisper.transcribe.aio(tone(7)))
        assert await asyncio.to_thread(listener.held.wait, SOON_S)
        dropped = asyncio.create_task(whisper.transcribe.aio(tone(5, 70)))
        kept = asyncio.create_task(whisper.transcribe.aio(tone(1)))
        for _ in range(1 + 3 + 1):  # the windows of all three
            assert await asyncio.to_thread(queued.acquire, timeout=SOON_S)
        dropped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dropped
        listener.go.set()
        assert (await kept).text == sentence(1)
        assert (await holding).text == sentence(7)

    asyncio.run(asyncio.wait_for(main(), SOON_S))
    whisper.close()
    assert listener.encoded == [7, 1]


def test_a_cancelled_future_frees_its_slot_while_it_is_decoded(start: Start) -> None:
    whisper, listener = start(max_batch_size=1)
    listener.hold = 7
    listener.scripts[7] = listener.script(" and" * 100)
    dropped = whisper.submit(tone(7))
    assert listener.held.wait(SOON_S)
    assert dropped.cancel()
    listener.go.set()
    assert whisper.transcribe(tone(2)).text == sentence(2)
    whisper.close()
    assert listener.said.count(listener.tokenizer.encode(" and")[0]) < 100


def test_a_map_that_is_left_drops_what_it_started(start: Start) -> None:
    whisper, listener = start(max_batch_size=2)
    run = whisper.transcribe.map(tone(0, 0.2) for _ in itertools.count())
    next(run)
    run.close()
    assert whisper.transcribe(tone(3)).text == sentence(3)
    whisper.close()
    assert len(listener.encoded) < 10


# --- life -----------------------------------------------------------------------------------------


def test_it_loads_on_entering_and_closes_on_leaving(start: Start) -> None:
    whisper, listener = start()
    with whisper as entered:
        assert entered is whisper
        assert whisper.transcribe(tone(0)).text == sentence(0)
    assert listener.engine.closed
    with pytest.raises(Closed):
        whisper.transcribe(tone(0))


def test_it_is_an_asynchronous_context_too(start: Start) -> None:
    whisper, listener = start()

    async def main() -> str:
        async with whisper as entered:
            transcript = await entered.transcribe.aio(tone(0))
            return transcript.text

    assert asyncio.run(main()) == sentence(0)
    assert listener.engine.closed


CALLS: list[Callable[[Whisper], object]] = [
    lambda whisper: whisper.load(),
    lambda whisper: whisper.info,
    lambda whisper: whisper.submit(tone(0)),
    lambda whisper: whisper.transcribe(tone(0)),
    lambda whisper: whisper.transcribe_batch([tone(0)]),
    lambda whisper: list(whisper.transcribe.map([tone(0)])),
    lambda whisper: asyncio.run(whisper.transcribe.aio(tone(0))),
    lambda whisper: whisper.__enter__(),
]


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("call", CALLS)
def test_every_call_after_close_raises(
    start: Start, call: Callable[[Whisper], object], loaded: bool
) -> None:
    whisper, _ = start()
    if loaded:
        whisper.load()
    whisper.close()
    whisper.close()
    with pytest.raises(Closed):
        call(whisper)


def test_close_answers_what_was_accepted(start: Start) -> None:
    whisper, _ = start(max_batch_size=2)
    futures = [whisper.submit(tone(number % 8, 0.2)) for number in range(20)]
    whisper.close()
    assert all(future.done() for future in futures)
    assert [future.result().text for future in futures] == [sentence(i % 8) for i in range(20)]


def test_it_loads_once_however_many_call_at_the_same_time(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    whisper, listener = start()
    n_loads = itertools.count()
    monkeypatch.setattr(local, "make_engines", lambda *_: [listener] if next(n_loads) == 0 else [])
    assert texts(from_threads(whisper, [tone(2)] * 8)) == [sentence(2)] * 8
    assert next(n_loads) == 1


def test_it_says_what_is_loaded_and_why(whisper: Whisper, base_model: LoadedModel) -> None:
    info = whisper.info
    assert info.model == str(base_model.files.folder)
    assert (info.engine, info.max_batch_size) == ("scripted", 64)
    assert any("as asked for" in reason for reason in info.why)


def test_the_figures_are_empty_before_and_after(whisper: Whisper) -> None:
    assert whisper.stats.n_windows == 0
    whisper.transcribe(tone(0))
    assert whisper.stats.n_windows == 1
    whisper.close()
    assert whisper.stats.n_windows == 0


def test_a_window_may_be_believed_at_once(start: Start) -> None:
    whisper, listener = start()
    listener.scripts[0] = Script((listener.tokenizer.encode(" yes")[0],), logprob=-0.5)
    [window] = whisper.transcribe(tone(0), language="en").windows
    assert (window.decodes, window.temperature, window.text) == (1, 0.0, " yes")
    assert window.avg_logprob == pytest.approx(-0.5)
