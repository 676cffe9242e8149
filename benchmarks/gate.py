"""Whether the fitted audio context costs words: fit with its gate against the full context.

    python -m benchmarks.gate [--model base --model tiny.en] [--precision float32 ...]

The clips as they are, with white noise 10 dB below them, cut off within a word, and spoken 1.5
times as fast; on both contexts. Word errors of each, and how many windows of the fitted ones were
encoded again. This is about words and not about speed, so it may run on a busy machine.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from batched_whisper import evaluation
from batched_whisper.audio.decode import decode
from batched_whisper.errors import BatchedWhisperError
from batched_whisper.evaluation import ErrorCounts
from batched_whisper.types import SAMPLING_RATE, Samples, Transcript
from batched_whisper.whisper import Whisper
from benchmarks import machine, report
from benchmarks.workloads import SHORT_COLLECTIONS, SpeechMissing, read_clips, speech_folder

RESULTS = Path(__file__).resolve().parent / "results"
COLLECTIONS = (*SHORT_COLLECTIONS, "jfk", "languages")
NOISE_DB = 10.0
FASTER = 1.5
CONTEXTS = ("fit", "full")


@dataclass(frozen=True)
class Spoken:
    """A clip as one of the variants has it; ``language`` is None where it is to be detected."""

    collection: str
    samples: Samples
    text: str
    language: str | None


@dataclass(frozen=True)
class Measured:
    """What one context made of one variant's clips."""

    errors: ErrorCounts
    by_collection: dict[str, ErrorCounts]
    n_windows: int
    n_encoded_again: int
    n_retried: int
    texts: tuple[str, ...] = field(default=(), repr=False)


# --- the variants ---------------------------------------------------------------------------------


def with_noise(samples: Samples, seed: int) -> Samples:
    """The clip with white noise `NOISE_DB` below its power."""
    noise = np.random.default_rng(seed).standard_normal(len(samples))
    power = float(np.mean(np.square(samples))) / 10 ** (NOISE_DB / 10)
    return np.clip(samples + noise * np.sqrt(power), -1, 1).astype(np.float32)


def faster(samples: Samples) -> Samples:
    """The clip in less time at the same pitch, by FFmpeg's filter atempo."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=SAMPLING_RATE, format="flt", layout="mono")
    graph.link_nodes(source, graph.add("atempo", str(FASTER)), graph.add("abuffersink")).configure()
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate = SAMPLING_RATE
    graph.push(frame)
    graph.push(None)
    parts = []
    while True:
        try:
            parts.append(graph.pull().to_ndarray()[0])
        except (av.error.BlockingIOError, av.error.EOFError):
            break
    return np.concatenate(parts).astype(np.float32)


def cut_within_a_word(clip: Spoken, heard: Transcript, seed: int) -> Spoken | None:
    """The clip up to the middle of a word of its second half; None where no word can be found.

    The words' times are the model's own. What was said until then is the clip's text up to the
    word that is cut.
    """
    words = [word for segment in heard.segments for word in segment.words or ()]
    said = clip.text.split()
    matcher = difflib.SequenceMatcher(
        None, [_plain(each.word) for each in words], [_plain(each) for each in said], False
    )
    same = {
        block.a + i: block.b + i
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    }
    able = [i for i in same if i >= len(words) // 2 and words[i].end - words[i].start > 0.1]
    if not able:
        return None
    chosen = able[int(np.random.default_rng(seed).integers(len(able)))]
    at = round((words[chosen].start + words[chosen].end) / 2 * SAMPLING_RATE)
    text = " ".join(said[: same[chosen]])
    return Spoken(clip.collection, clip.samples[:at], text, clip.language)


def _plain(word: str) -> str:
    return "".join(filter(str.isalnum, word.casefold()))


def variants(clips: Sequence[Spoken], whisper: Whisper) -> dict[str, list[Spoken]]:
    """All clips in every variant."""
    heard = _transcripts(whisper, clips, audio_context="full", word_timestamps=True)
    cut = [
        cut_within_a_word(*each, seed=i) for i, each in enumerate(zip(clips, heard, strict=True))
    ]
    return {
        "clean": list(clips),
        f"noise at {NOISE_DB:g} dB": [
            _with(clip, with_noise(clip.samples, i)) for i, clip in enumerate(clips)
        ],
        "cut within a word": [each for each in cut if each is not None],
        f"{FASTER:g} times as fast": [_with(clip, faster(clip.samples)) for clip in clips],
    }


def _with(clip: Spoken, samples: Samples) -> Spoken:
    return Spoken(clip.collection, samples, clip.text, clip.language)


# --- measuring ------------------------------------------------------------------------------------


def _transcripts(whisper: Whisper, clips: Sequence[Spoken], **options: Any) -> list[Transcript]:
    futures = [
        whisper.submit(clip.samples, language=clip.language, vad=False, **options) for clip in clips
    ]
    return [future.result() for future in futures]


def measure(whisper: Whisper, clips: Sequence[Spoken], context: str) -> Measured:
    """One context over one variant's clips."""
    found = _transcripts(whisper, clips, audio_context=context)
    by_collection: dict[str, ErrorCounts] = {}
    for clip, transcript in zip(clips, found, strict=True):
        errors = evaluation.count_errors(clip.text, transcript.text, transcript.language or None)
        by_collection[clip.collection] = by_collection.get(clip.collection, ErrorCounts()) + errors
    windows = [window for transcript in found for window in transcript.windows]
    again = [window for window in windows if window.decodes > 1]
    full = whisper_context(found)
    return Measured(
        errors=sum(by_collection.values(), ErrorCounts()),
        by_collection=by_collection,
        n_windows=len(windows),
        n_encoded_again=sum(window.audio_context == full for window in again)
        if context == "fit"
        else 0,
        n_retried=len(again),
        texts=tuple(each.text for each in found),
    )


def figures(measured: Measured) -> dict[str, Any]:
    """What a result keeps of it: no texts."""
    found = asdict(measured)
    del found["texts"]
    return found


def whisper_context(found: Iterable[Transcript]) -> int:
    """The full context of every model there is."""
    return 1500


def speech(folder: Path, model: str) -> list[Spoken]:
    """The collection's clips that a model can be asked about."""
    english_only = model.endswith(".en")
    names = SHORT_COLLECTIONS if english_only else COLLECTIONS
    names = (*names, "jfk") if english_only else names
    return [
        Spoken(clip.collection, decode(Path(clip.audio)).samples, clip.text, _language(clip.audio))
        for clip in read_clips(folder, names)
    ]


def _language(audio: str) -> str | None:
    return None if "languages" in audio else "en"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--precision", action="append", default=[])
    parser.add_argument("--name", default="gate")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    try:
        evaluation.require()
        folder = speech_folder()
        rows = [
            {"model": model, "precision": precision, **row}
            for model in given.model or ["base", "tiny.en"]
            for precision in given.precision or ["float32", "bfloat16", "int8"]
            for row in _of_engine(folder, model, precision, lambda line: print(line, flush=True))
        ]
    except (BatchedWhisperError, SpeechMissing) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    Console(width=None if sys.stdout.isatty() else 130, highlight=False).print(table(rows))
    path = given.output / f"{given.name}-{machine.machine_slug()}-{machine.today()}.json"
    versions = machine.versions(("batched-whisper", "openvino", "jiwer", "whisper-normalizer"))
    report.write(path, {**machine.certificate(), "versions": versions, "rows": rows})
    print(f"written: {path}")
    return 0


def _of_engine(
    folder: Path, model: str, precision: str, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    rows = []
    with Whisper(model, precision=precision) as whisper:
        for name, clips in variants(speech(folder, model), whisper).items():
            found = {context: measure(whisper, clips, context) for context in CONTEXTS}
            row = {"variant": name, "n_clips": len(clips)}
            row |= {context: figures(each) for context, each in found.items()}
            row["difference"] = _rate(found["fit"].errors) - _rate(found["full"].errors)
            rows.append(row)
            say(f"{model} {precision} {name}: {_percent(row['difference'])} points")
    return rows


def _rate(errors: ErrorCounts) -> float:
    return errors.rate or 0.0


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """A line for every engine and variant."""
    shown = Table(box=SIMPLE_HEAD)
    for heading in ("model", "precision", "clips"):
        shown.add_column(heading)
    for heading in ("WER fit", "WER full", "points", "worst collection", "encoded again"):
        shown.add_column(heading, justify="right")
    for row in rows:
        fit, full = row["fit"], row["full"]
        shown.add_row(
            row["model"],
            row["precision"],
            f"{row['variant']} ({row['n_clips']})",
            *(_percent(_rate(ErrorCounts(**each["errors"]))) for each in (fit, full)),
            _percent(row["difference"]),
            _worst(fit["by_collection"], full["by_collection"]),
            _percent(fit["n_encoded_again"] / fit["n_windows"]),
        )
    return shown


def _worst(fit: dict[str, Any], full: dict[str, Any]) -> str:
    """The collection that lost most words, by its count and in points."""
    lost = {
        name: _n_errors(ErrorCounts(**each)) - _n_errors(ErrorCounts(**full[name]))
        for name, each in fit.items()
    }
    name = max(lost, key=lambda each: lost[each])
    points = lost[name] / max(1, ErrorCounts(**fit[name]).n_units)
    return f"{name} {lost[name]:+d} ({_percent(points)})"


def _n_errors(errors: ErrorCounts) -> int:
    return errors.n_substitutions + errors.n_deletions + errors.n_insertions


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


if __name__ == "__main__":
    sys.exit(main())
