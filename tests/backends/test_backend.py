"""Laws of backends: `Whisper` uses only the protocol; a local backend can be copied."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from scripted_speech import SOON_S

from batched_whisper.backends.base import Backend, WhisperInfo
from batched_whisper.backends.local import LocalBackend
from batched_whisper.batching.metrics import LoopStats
from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.errors import Closed, OptionError
from batched_whisper.models.model_files import Source
from batched_whisper.types import OnSegment, Segment, Transcript
from batched_whisper.whisper import Whisper


def segment(text: str, number: int) -> Segment:
    return Segment(number, float(number), number + 1.0, text, (), 0.0, 0.0, 1.0, 0.0)


class Echo:
    """Returns its input as text, and records its calls."""

    is_loaded = False
    max_windows = 3

    def __init__(self) -> None:
        self.options: list[DecodingOptions] = []
        self.user_callbacks: list[bool] = []
        self.is_closed = False

    @property
    def info(self) -> WhisperInfo:
        return WhisperInfo("echo", None, Source.FOLDER, "echo", "far away", "exact", 0, 3, ())

    @property
    def stats(self) -> LoopStats:
        return LoopStats(n_windows=len(self.options))

    def load(self) -> None:
        if self.is_closed:
            raise Closed("it was closed")
        self.is_loaded = True

    def submit(
        self,
        audio: Any,
        options: DecodingOptions,
        *,
        sampling_rate: int | None = None,
        on_segment: OnSegment | None = None,
        user_callbacks: bool = False,
    ) -> Future[Transcript]:
        self.load()
        self.options.append(options)
        self.user_callbacks.append(user_callbacks)
        segments = tuple(segment(word, i) for i, word in enumerate(str(audio).split()))
        if on_segment is not None:
            for each in segments:
                on_segment(each)
        future: Future[Transcript] = Future()
        future.set_result(Transcript(str(audio), "en", 1.0, 1.0, segments, ()))
        return future

    def close(self) -> None:
        self.is_closed = True


def map_aio(whisper: Whisper) -> list[str]:
    async def main() -> list[str]:
        return [each.text async for each in whisper.transcribe.map.aio(["a", "b"])]

    return asyncio.run(main())


def segments_aio(whisper: Whisper) -> list[str]:
    async def main() -> list[str]:
        return [each.text async for each in whisper.transcribe.segments.aio("a b")]

    return asyncio.run(main())


CALLS: dict[str, Callable[[Whisper], list[str]]] = {
    "transcribe": lambda w: [w.transcribe(x).text for x in "ab"],
    "aio": lambda w: [asyncio.run(w.transcribe.aio(x)).text for x in "ab"],
    "map": lambda w: [each.text for each in w.transcribe.map(["a", "b"])],
    "map.aio": map_aio,
    "segments": lambda w: [each.text for each in w.transcribe.segments("a b")],
    "segments.aio": segments_aio,
    "submit": lambda w: [w.submit(x).result(SOON_S).text for x in "ab"],
    "transcribe_batch": lambda w: [each.text for each in w.transcribe_batch(["a", "b"])],
}


@pytest.mark.parametrize("name", CALLS)
def test_every_way_to_call_goes_through_the_backend(name: str) -> None:
    backend = Echo()
    whisper = Whisper(backend=backend)
    assert CALLS[name](whisper) == ["a", "b"]
    assert backend.is_loaded
    assert set(backend.user_callbacks) == {name == "submit"}


def test_the_backend_is_given_complete_options() -> None:
    backend = Echo()
    whisper = Whisper(backend=backend)
    whisper.transcribe("a", language="de", options=DecodingOptions(beam_size=3))
    whisper.transcribe("a")
    assert backend.options == [DecodingOptions(language="de", beam_size=3), DecodingOptions()]


def test_load_close_info_stats_and_the_number_in_flight_are_the_backends() -> None:
    backend = Echo()
    with Whisper(backend=backend) as whisper:
        assert backend.is_loaded
        whisper.transcribe("a")
        assert (whisper.info.model, whisper.stats.n_windows) == ("echo", 1)
        assert whisper.transcribe.n_in_flight == 6
    with pytest.raises(Closed):
        whisper.transcribe("a")


@pytest.mark.parametrize(
    "options", [{"model": "base"}, {"settings": Settings()}, {"device": "cpu"}]
)
def test_settings_beside_a_backend_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="backend"):
        Whisper(backend=Echo(), **options)


@pytest.mark.parametrize("backend", [Echo(), LocalBackend(Settings())])
def test_a_backend_has_every_method_of_the_protocol(backend: Backend) -> None:
    names = [name for name in vars(Backend) if not name.startswith("_")]
    assert len(names) == 7
    assert set(names) <= set(dir(backend))


def test_a_copy_of_a_model_is_one_that_is_not_loaded() -> None:
    whisper = Whisper("base", max_batch_size=3)
    copy = pickle.loads(pickle.dumps(whisper))
    assert (copy.settings, copy.options) == (whisper.settings, whisper.options)
    assert copy.transcribe.n_in_flight == 6
    whisper.close()
    with pytest.raises(Closed):
        whisper.load()
    assert pickle.loads(pickle.dumps(whisper)).stats.n_windows == 0
