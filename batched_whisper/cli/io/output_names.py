"""Names for the files that are made of recordings: short, and no two the same.

Knows nothing of what is written. ``talk.wav`` becomes ``talk.srt``; where two recordings would
share a name, both get longer ones: with the extension, then with their folders, then a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from batched_whisper.cli.io.inputs import RecordingSource


def output_names(sources: Sequence[RecordingSource]) -> Mapping[str, PurePath]:
    """For each source's name, the path of its files below the output folder, without suffix.

    The same sources give the same names. Names that differ in case alone count as the same,
    as they are one file on some disks.
    """
    candidates = [_candidates(source, number) for number, source in enumerate(sources, start=1)]
    chosen = [0] * len(sources)
    while True:
        names = [options[level] for options, level in zip(candidates, chosen, strict=True)]
        taken = Counter(_key(name) for name in names)
        clashing = [i for i, name in enumerate(names) if taken[_key(name)] > 1]
        if not clashing:
            return {source.name: name for source, name in zip(sources, names, strict=True)}
        for i in clashing:
            chosen[i] = min(chosen[i] + 1, len(candidates[i]) - 1)


def _key(name: PurePath) -> str:
    return str(name).casefold()


def _candidates(source: RecordingSource, number: int) -> list[PurePath]:
    """Names from short to long; the last is no other source's, as its number is its own."""
    folders = [part for part in PurePath(source.name).parts[:-1] if part not in ("/", ".", "..")]
    place = source.place
    longer = [
        place.with_name("_".join([*folders[-n:], place.name])) for n in range(1, len(folders) + 1)
    ]
    return [place.with_suffix(""), place, *longer, place.with_name(f"{place.name}.{number}")]
