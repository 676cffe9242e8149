"""How far the times of words are from the true ones: ours, and faster-whisper's on the same clips.

    python -m benchmarks.word_times [--only languages] [--no-baseline]

Two measures, in seconds, of the words that were recognised as what they are:

- *words*: clips in eight languages whose words have times, by another recogniser (good to about a
  tenth of a second). Starts and ends.
- *first* and *last*: long recordings that are put together from clips. Where the first word of a
  clip starts against the clip's first sound, and where its last word ends against its last sound.
  Sound is what is louder than 28 dB below the clip's loud parts. Ours is put at pauses by loudness
  too, so this flatters it where the speech is clean; against the clip's own bounds (*clip first*,
  *clip last*) its leading and trailing silence counts as error for everybody.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from batched_whisper.audio.decode import decode
from batched_whisper.errors import BatchedWhisperError
from batched_whisper.types import SAMPLING_RATE, Samples
from batched_whisper.whisper import Whisper
from benchmarks import machine, report
from benchmarks.peer_models import MODEL, PeerModels
from benchmarks.workloads import SpeechMissing, speech_folder

RESULTS = Path(__file__).resolve().parent / "results"
FRAME = SAMPLING_RATE // 50
SOUND = 0.04  # of the loudness of the clip's loud parts
PARTS = re.compile(r"[\s\-–—]+")


@dataclass(frozen=True)
class TimedWord:
    """A word of the truth or of a system, in seconds of the recording."""

    text: str
    start_s: float
    end_s: float


Transcribe = Callable[[Path, str], list[TimedWord]]


@dataclass(frozen=True)
class Spread:
    """What a list of errors comes to, in seconds; ``bias_s`` is the median with its sign."""

    n: int
    median_s: float
    p95_s: float
    bias_s: float

    @classmethod
    def of(cls, errors: Sequence[float]) -> Spread:
        """Of one error at least."""
        sizes = np.abs(errors)
        figures = (np.median(sizes), np.percentile(sizes, 95), np.median(errors))
        return cls(len(errors), *(round(float(figure), 3) for figure in figures))


# --- which words are the same ---------------------------------------------------------------------


def plain(word: str) -> str:
    letters = unicodedata.normalize("NFKC", word).lower()
    return "".join(letter for letter in letters if letter.isalnum())


@dataclass(frozen=True)
class Letter:
    """A letter of a word: its number, and whether the letter is its first, its last."""

    letter: str
    word: int
    first: bool
    last: bool


def letters(words: Sequence[TimedWord]) -> list[Letter]:
    found = []
    for number, word in enumerate(words):
        text = plain(word.text)
        found += [
            Letter(letter, number, i == 0, i == len(text) - 1) for i, letter in enumerate(text)
        ]
    return found


def matched(true: Sequence[str], found: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Indices of what is the same in both."""
    for block in SequenceMatcher(None, true, found, autojunk=False).get_matching_blocks():
        for k in range(block.size):
            yield block.a + k, block.b + k


@dataclass(frozen=True)
class WordErrors:
    """Seconds too late, of starts and of ends."""

    starts: list[float]
    ends: list[float]


def word_errors(true: Sequence[TimedWord], found: Sequence[TimedWord]) -> WordErrors:
    """Of the words that begin, or end, with the same letter of the text."""
    ours, theirs = letters(found), letters(true)
    errors = WordErrors([], [])
    for i, j in matched([each.letter for each in theirs], [each.letter for each in ours]):
        a, b = theirs[i], ours[j]
        if a.first and b.first:
            errors.starts.append(found[b.word].start_s - true[a.word].start_s)
        if a.last and b.last:
            errors.ends.append(found[b.word].end_s - true[a.word].end_s)
    return errors


# --- long recordings ------------------------------------------------------------------------------


@dataclass(frozen=True)
class EdgeErrors:
    """Of clips in a long recording, in seconds: against their sound, and their bounds."""

    first: list[float]
    last: list[float]
    clip_first: list[float]
    clip_last: list[float]


def edge_errors(
    segments: Sequence[Mapping[str, Any]], found: Sequence[TimedWord], samples: Samples
) -> EdgeErrors:
    """Of the clips whose first or last word was recognised."""
    true = [(plain(part), n) for n, each in enumerate(segments) for part in _parts(each["text"])]
    parts = [(plain(part), n) for n, word in enumerate(found) for part in _parts(word.text)]
    at = dict(matched([word for word, _ in true], [word for word, _ in parts]))
    errors = EdgeErrors([], [], [], [])
    for n, segment in enumerate(segments):
        places = [i for i, (_, owner) in enumerate(true) if owner == n]
        start_s, end_s = segment["start"], segment["end"]
        sounding = _sounding(samples[round(start_s * 16_000) : round(end_s * 16_000)])
        if places[0] in at:
            word = found[parts[at[places[0]]][1]]
            errors.first.append(word.start_s - start_s - sounding[0] / 50)
            errors.clip_first.append(word.start_s - start_s)
        if places[-1] in at:
            word = found[parts[at[places[-1]]][1]]
            errors.last.append(word.end_s - start_s - (sounding[-1] + 1) / 50)
            errors.clip_last.append(word.end_s - end_s)
    return errors


def _parts(text: str) -> list[str]:
    return [part for part in PARTS.split(text) if plain(part)]


def _sounding(samples: Samples) -> Any:
    """The numbers of the 20 ms frames that are loud."""
    n_frames = len(samples) // FRAME
    frames = samples[: n_frames * FRAME].reshape(n_frames, FRAME).astype(np.float64)
    loudness = np.sqrt(np.mean(frames**2, axis=1))
    return np.flatnonzero(loudness > SOUND * np.percentile(loudness, 95))


# --- systems --------------------------------------------------------------------------------------


def ours(whisper: Whisper, **options: Any) -> Transcribe:
    def transcribe(path: Path, language: str) -> list[TimedWord]:
        found = whisper.transcribe(path, language=language, word_timestamps=True, **options)
        return [
            TimedWord(word.word, word.start, word.end)
            for segment in found.segments
            for word in segment.words or ()
        ]

    return transcribe


def faster_whisper() -> Transcribe:
    package: Any = import_module("faster_whisper")
    model = package.WhisperModel(str(PeerModels().ctranslate2()), device="cpu", compute_type="int8")

    def transcribe(path: Path, language: str) -> list[TimedWord]:
        segments, _ = model.transcribe(
            str(path),
            language=language,
            beam_size=1,
            word_timestamps=True,
            condition_on_previous_text=False,
        )
        return [
            TimedWord(word.word, word.start, word.end) for each in segments for word in each.words
        ]

    return transcribe


# --- the run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """One system: what each measure comes to, and the median start by language."""

    system: str
    figures: Mapping[str, Spread]
    languages: Mapping[str, Spread]


def measure(name: str, transcribe: Transcribe, folder: Path, rows: Sequence[Any]) -> Measured:
    words, edges = WordErrors([], []), EdgeErrors([], [], [], [])
    languages = {}
    for row in rows:
        path = folder / row["audio"]
        found = transcribe(path, row["language"])
        if row["collection"] == "languages":
            true = [TimedWord(each["word"], each["start"], each["end"]) for each in row["words"]]
            errors = word_errors(true, found)
            languages[row["language"]] = Spread.of(errors.starts)
            words.starts.extend(errors.starts)
            words.ends.extend(errors.ends)
        else:
            of_row = edge_errors(row["segments"], found, decode(path).samples)
            for kind, values in asdict(of_row).items():
                getattr(edges, kind).extend(values)
        print(f"{name}: {row['audio']}", flush=True)
    of_clips = {kind.replace("_", " "): values for kind, values in asdict(edges).items()}
    every = {"word starts": words.starts, "word ends": words.ends, **of_clips}
    figures = {kind: Spread.of(errors) for kind, errors in every.items() if errors}
    return Measured(name, figures, languages)


def table(results: Sequence[Measured]) -> Table:
    found = Table("system", "measure", "words", "median s", "95 % s", "bias s")
    for result in results:
        rows = {**result.figures, **{f"starts, {k}": v for k, v in result.languages.items()}}
        for kind, spread in rows.items():
            cells = (f"{spread.median_s:.3f}", f"{spread.p95_s:.2f}", f"{spread.bias_s:+.3f}")
            found.add_row(result.system, kind, str(spread.n), *cells)
        found.add_section()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.word_times", description=__doc__)
    parser.add_argument("--only", choices=("languages", "long"), default=None)
    parser.add_argument("--no-baseline", action="store_true", help="without faster-whisper")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    wanted = (given.only,) if given.only else ("languages", "long")
    try:
        folder = speech_folder()
        lines = (folder / "manifest.jsonl").read_text("utf-8").splitlines()
        rows = [row for row in map(json.loads, lines) if row["collection"] in wanted]
        results = []
        with Whisper(MODEL) as whisper:
            for name, timestamps in (("ours", False), ("ours, timestamps", True)):
                system = ours(whisper, timestamps=timestamps)
                results.append(measure(name, system, folder, rows))
        if not given.no_baseline:
            results.append(measure("faster-whisper", faster_whisper(), folder, rows))
    except (BatchedWhisperError, SpeechMissing) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    Console(width=None if sys.stdout.isatty() else 100, highlight=False).print(table(results))
    path = given.output / f"word-times-{machine.machine_slug()}-{machine.today()}.json"
    packages = ("batched-whisper", "openvino", "faster-whisper", "ctranslate2")
    content = {
        **machine.certificate(),
        "versions": machine.versions(packages),
        "model": MODEL,
        "results": [asdict(result) for result in results],
    }
    report.write(path, content)
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
