"""Names of output files: short and unique.

``talk.wav`` becomes ``talk.srt``. If two recordings would share a name, both get longer names:
with the extension, then with their folders, then with a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from batched_whisper.cli.io.inputs import RecordingSource


def output_names(sources: Sequence[RecordingSource]) -> Mapping[str, PurePath]:
    """Map each source's name to its path below the output folder, without suffix.

    Deterministic. Names that differ only in case count as equal, because some file systems
    ignore case.
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
    """Names from short to long; the last is unique, because it ends in the source's number."""
    folders = [part for part in PurePath(source.name).parts[:-1] if part not in ("/", ".", "..")]
    place = source.place
    longer = [
        place.with_name("_".join([*folders[-n:], place.name])) for n in range(1, len(folders) + 1)
    ]
    return [place.with_suffix(""), place, *longer, place.with_name(f"{place.name}.{number}")]
