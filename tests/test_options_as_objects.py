"""Settings and options as objects: every call takes them, and the environment is read once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from scripted_room import Room
from scripted_speech import tone

from batched_whisper import DecodingOptions, Segment, Settings, Whisper
from batched_whisper.errors import OptionError

if TYPE_CHECKING:
    from conftest import LoadedModel

Way = Callable[..., list[Segment]]


def called(whisper: Whisper, audio: Any, **how: Any) -> list[Segment]:
    return list(whisper.transcribe(audio, **how).segments)


def awaited(whisper: Whisper, audio: Any, **how: Any) -> list[Segment]:
    return list(asyncio.run(whisper.transcribe.aio(audio, **how)).segments)


def mapped(whisper: Whisper, audio: Any, **how: Any) -> list[Segment]:
    [transcript] = whisper.transcribe.map([audio], **how)
    return list(transcript.segments)


def mapped_asynchronously(whisper: Whisper, audio: Any, **how: Any) -> list[Segment]:
    async def main() -> list[Segment]:
        found = whisper.transcribe.map.aio([audio], **how)
        return [each async for transcript in found for each in transcript.segments]

    return asyncio.run(main())


def by_segment(whisper: Whisper, audio: Any, **how: Any) -> list[Segment]:
    return list(whisper.transcribe.segments(audio, **how))


def by_segment_asynchronously(whisper: Whisper, audio: Any, **how: Any) -> list[Segment]:
    async def main() -> list[Segment]:
        return [each async for each in whisper.transcribe.segments.aio(audio, **how)]

    return asyncio.run(main())


def as_a_batch(whisper: Whisper, audio: Any, **how: Any) -> list[Segment]:
    [transcript] = whisper.transcribe_batch([audio], **how)
    return list(transcript.segments)


def submitted(whisper: Whisper, audio: Any, **how: Any) -> list[Segment]:
    return list(whisper.submit(audio, **how).result().segments)


every_way = pytest.mark.parametrize(
    "way",
    [
        called,
        awaited,
        mapped,
        mapped_asynchronously,
        by_segment,
        by_segment_asynchronously,
        as_a_batch,
        submitted,
    ],
)


@pytest.fixture
def dutch_room(base_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """A `Whisper` that was made where the environment asks for Dutch and three tokens."""
    monkeypatch.setenv("BATCHED_WHISPER_LANGUAGE", "nl")
    monkeypatch.setenv("BATCHED_WHISPER_MAX_TOKENS", "3")
    room = Room(base_model, monkeypatch)
    monkeypatch.delenv("BATCHED_WHISPER_MAX_TOKENS")
    monkeypatch.setenv("BATCHED_WHISPER_LANGUAGE", "fi")  # too late for it
    yield room
    room.close()


def asked(room: Room, way: Way, **how: Any) -> tuple[str, int]:
    """The language that the engine was told, and how many tokens were taken of what it said."""
    room.listener.said.clear()
    [segment] = way(room.whisper, tone(1), **how)
    codes = {token: code for code, token in room.tokenizer.language_tokens.items()}
    [language] = [codes[token] for token in room.listener.said if token in codes]
    return language, len(segment.tokens)


@every_way
def test_a_call_without_options_starts_from_the_environment_of_the_whisper(
    dutch_room: Room, way: Way
) -> None:
    assert asked(dutch_room, way) == ("nl", 3)
    assert asked(dutch_room, way, max_tokens=2) == ("nl", 2)


@every_way
def test_a_call_with_options_starts_from_them_alone_and_single_ones_win(
    dutch_room: Room, way: Way
) -> None:
    options = DecodingOptions(vad=False, language="de")
    language, n_tokens = asked(dutch_room, way, options=options)
    assert language == "de" and n_tokens > 3
    assert asked(dutch_room, way, options=options, max_tokens=2) == ("de", 2)
    assert asked(dutch_room, way, options=options, language="nl") == ("nl", n_tokens)


@every_way
@pytest.mark.parametrize("wrong", ["de", {"language": "de"}, Settings()], ids=repr)
def test_options_of_another_type_are_rejected(room: Room, way: Way, wrong: Any) -> None:
    with pytest.raises(OptionError, match=r"give DecodingOptions\("):
        way(room.whisper, tone(1), options=wrong)


def test_a_map_refuses_wrong_options_before_anything_is_asked_for(room: Room) -> None:
    for way in (room.whisper.transcribe.map, room.whisper.transcribe.map.aio):
        with pytest.raises(OptionError, match="max_tokens"):
            way([tone(1)], max_tokens=0)


def test_a_whisper_is_made_of_settings_and_single_ones_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHED_WHISPER_WAIT_MS", "7")
    monkeypatch.setenv("BATCHED_WHISPER_MODEL", "tiny")
    settings = Settings(model="small", max_queue_size=5)
    assert Whisper(settings=settings).settings == settings
    assert Whisper(settings=settings, wait_ms=9).settings == settings.replace(wait_ms=9)
    assert Whisper("base", settings=settings).settings == settings.replace(model="base")
    assert Whisper().settings == Settings(model="tiny", wait_ms=7)


@pytest.mark.parametrize("wrong", ["base", {"model": "base"}, DecodingOptions()], ids=repr)
def test_settings_of_another_type_are_rejected(wrong: Any) -> None:
    with pytest.raises(OptionError, match=r"give Settings\("):
        Whisper(settings=wrong)


def test_a_wrong_variable_of_a_call_is_told_when_the_whisper_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BATCHED_WHISPER_TEMPERATURE", "hot")
    with pytest.raises(OptionError, match="BATCHED_WHISPER_TEMPERATURE='hot' is not a number"):
        Whisper("base")
