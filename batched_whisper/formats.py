"""Transcripts as text: plain text, SRT, WebVTT, TSV, JSON and JSON lines.

Knows the file formats and openai/whisper's conventions for them (its program's field names, units
and line layout), so that what reads that program's files reads these. A pure function a format,
and a registry of them. Knows nothing of how a transcript was made, nor of who asked for it.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batched_whisper.errors import OptionError, OutputError

if TYPE_CHECKING:  # the command line's help must not wait for numpy
    from batched_whisper.types import DecodedWindow, Segment, Transcript, Word

_ARROW = re.compile("-{2,}>")
"""What SRT and WebVTT read as a time line; any number of dashes, so that none is left over."""

_CONTROL = re.compile("[\x00-\x1f\x7f]")
_SPLITS_OR_ENCODES_BADLY = re.compile("[\x85\u2028\u2029\ud800-\udfff]")
"""Legal in a JSON string, yet line breaks to some readers, or not encodable as UTF-8."""


def text(transcript: Transcript) -> str:
    """One line a segment."""
    return "".join(f"{' '.join(lines)}\n" for _, lines in _spoken(transcript))


def srt(transcript: Transcript) -> str:
    """SubRip subtitles, numbered from 1."""
    return "".join(
        f"{number}\n{_clock(segment.start_s, ',')} --> {_clock(_end_s(segment), ',')}\n"
        + _cue(lines)
        for number, (segment, lines) in enumerate(_spoken(transcript), start=1)
    )


def vtt(transcript: Transcript) -> str:
    """WebVTT subtitles; ``&``, ``<`` and ``>`` are escaped, as its grammar demands."""
    return "WEBVTT\n\n" + "".join(
        f"{_short_clock(segment.start_s)} --> {_short_clock(_end_s(segment))}\n"
        + _escaped(_cue(lines))
        for segment, lines in _spoken(transcript)
    )


def tsv(transcript: Transcript) -> str:
    """Tab-separated start and end, in whole milliseconds, and text, below a header."""
    return "start\tend\ttext\n" + "".join(
        f"{_milliseconds(segment.start_s)}\t{_milliseconds(_end_s(segment))}\t{' '.join(lines)}\n"
        for segment, lines in _spoken(transcript)
    )


def json_document(transcript: Transcript) -> str:
    """Everything that is known of the transcript, indented."""
    return _json(as_document(transcript), indent=2) + "\n"


def json_line(transcript: Transcript) -> str:
    """The same as `json_document` on one line, newline included."""
    return _json(as_document(transcript)) + "\n"


def as_document(transcript: Transcript) -> dict[str, Any]:
    """The transcript as JSON's types; times in seconds, figures that are no numbers as None."""
    return {
        "name": transcript.name,
        "text": transcript.text,
        "language": transcript.language,
        "language_probability": _figure(transcript.language_probability),
        "duration": _figure(transcript.duration_s),
        "segments": [_segment(segment) for segment in transcript.segments],
        "windows": [_window(window) for window in transcript.windows],
        "warnings": list(transcript.warnings),
    }


def _segment(segment: Segment) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": segment.id,
        "start": _figure(segment.start_s),
        "end": _figure(segment.end_s),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": _figure(segment.temperature),
        "avg_logprob": _figure(segment.avg_logprob),
        "compression_ratio": _figure(segment.compression_ratio),
        "no_speech_prob": _figure(segment.no_speech_prob),
    }
    if segment.words is not None:
        document["words"] = [_word(word) for word in segment.words]
    if segment.channel is not None:
        document["channel"] = segment.channel
    return document


def _word(word: Word) -> dict[str, Any]:
    return {
        "word": word.word,
        "start": _figure(word.start_s),
        "end": _figure(word.end_s),
        "probability": _figure(word.probability),
    }


def _window(window: DecodedWindow) -> dict[str, Any]:
    # Its text and tokens are the segments' already.
    return {
        "start": _figure(window.start_s),
        "end": _figure(window.end_s),
        "language": window.language,
        "language_probability": _figure(window.language_probability),
        "temperature": _figure(window.temperature),
        "avg_logprob": _figure(window.avg_logprob),
        "compression_ratio": _figure(window.compression_ratio),
        "no_speech_prob": _figure(window.no_speech_prob),
        "audio_context": window.audio_context,
        "decodes": window.decodes,
    }


def _figure(value: float) -> float | None:
    """JSON has no NaN and no infinity; numpy's floats become Python's."""
    return float(value) if math.isfinite(value) else None


def _json(document: dict[str, Any], indent: int | None = None) -> str:
    separators = (",", ":") if indent is None else (",", ": ")
    written = json.dumps(
        document, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators
    )
    return _SPLITS_OR_ENCODES_BADLY.sub(lambda match: f"\\u{ord(match[0]):04x}", written)


def _spoken(transcript: Transcript) -> Iterable[tuple[Segment, list[str]]]:
    """The segments that say something, each with its lines, none of them blank."""
    for segment in transcript.segments:
        lines = [_CONTROL.sub(" ", line).strip() for line in segment.text.splitlines()]
        lines = [line for line in lines if line]
        if lines:
            yield segment, lines


def _cue(lines: list[str]) -> str:
    """The lines of a subtitle, none of them like a time line."""
    return "\n".join(_ARROW.sub("->", line) for line in lines) + "\n\n"


def _escaped(cue: str) -> str:
    return cue.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _end_s(segment: Segment) -> float:
    return max(segment.start_s, segment.end_s)


def _milliseconds(time_s: float) -> int:
    return max(0, round(1000 * time_s)) if math.isfinite(time_s) else 0


def _clock(time_s: float, decimal_mark: str) -> str:
    """hh:mm:ss,mmm with as many digits of hours as it takes."""
    seconds, milliseconds = divmod(_milliseconds(time_s), 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{decimal_mark}{milliseconds:03d}"


def _short_clock(time_s: float) -> str:
    """WebVTT's, without the hours where there are none."""
    return _clock(time_s, ".").removeprefix("00:")


@dataclass(frozen=True)
class Format:
    """One way to write a transcript down."""

    name: str
    suffix: str
    write: Callable[[Transcript], str]
    is_timed: bool = False
    """Whether it is of little use without the segments' own times."""


FORMATS = {
    each.name: each
    for each in (
        Format("text", ".txt", text),
        Format("json", ".json", json_document),
        Format("jsonl", ".jsonl", json_line),
        Format("srt", ".srt", srt, is_timed=True),
        Format("vtt", ".vtt", vtt, is_timed=True),
        Format("tsv", ".tsv", tsv, is_timed=True),
    )
}
"""Every format, by its name."""


def format_named(name: str) -> Format:
    """The format of this name; `OptionError` where there is none."""
    try:
        return FORMATS["text" if name == "txt" else name]
    except KeyError:
        raise OptionError(
            f"there is no format {name!r}: choose from {', '.join(FORMATS)}"
        ) from None


def write_whole(path: Path, contents: str) -> None:
    """Write a file as UTF-8, whole or not at all, whatever happens meanwhile.

    Raises:
        OutputError: the file cannot be written; what was there before is still there.
    """
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(contents.encode("utf-8", errors="backslashreplace"))
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); choose another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
