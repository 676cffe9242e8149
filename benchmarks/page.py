"""Makes the tables of benchmarks in README.md from the result files: ``python -m benchmarks.page``.

Takes the newest file of each name and machine in ``benchmarks/results``, those apart that are
called quick. Draws a picture of each table of short clips beside them, where matplotlib is
installed. What stands around the tables in the README is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batched_whisper.formats import write_atomically
from benchmarks.compare import RESULTS
from benchmarks.figures import BUSY
from benchmarks.peer_models import MODEL
from benchmarks.plot import draw, model_of
from benchmarks.systems.catalog import OURS, Work

README = RESULTS.parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->\n"
_STEM = re.compile(r"(?P<key>.+)-\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Result:
    """A result file. ``key`` is its name without the date: what was measured, and where."""

    path: Path
    key: str
    document: Mapping[str, Any]

    @property
    def model(self) -> str:
        """Of all its systems."""
        return model_of(self.document)

    @property
    def place(self) -> str:
        """The machine, in words."""
        document = self.document
        name = f"{document['processors']} processors of {document['processor']}"
        return f"{document['gpu']}, {name}" if document.get("gpu") else name

    @property
    def picture(self) -> Path:
        """Where it is drawn; the same for every date, so that old pictures do not pile up."""
        return self.path.with_name(f"{self.key}.svg")

    def has(self, work: Work) -> bool:
        """Whether it compares systems at this work."""
        return any(work.value in system for system in self.document.get("systems", ()))


def newest(folder: Path) -> list[Result]:
    """The newest file of each name and machine, in the order of their names."""
    found: dict[str, Result] = {}
    for path in sorted(folder.glob("*.json")):
        named = _STEM.fullmatch(path.stem)
        if named is None or named["key"].startswith("quick"):
            continue
        result = Result(path, named["key"], json.loads(path.read_text("utf-8")))
        others = found.setdefault(result.key, result)
        if result.document.get("date", "") > others.document.get("date", ""):
            found[result.key] = result
    return list(found.values())


def readme_with_tables(readme: str, results: Sequence[Result]) -> str:
    """The README with what stands between its two markers made anew."""
    before, found, rest = readme.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise SystemExit(f"README.md lacks the lines {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + "\n".join(_parts(results)) + END + after


def _parts(results: Sequence[Result]) -> Iterator[str]:
    """Short clips, long recordings, batching; the standard model first."""
    ordered = sorted(results, key=lambda result: (result.model != MODEL, result.key))
    for work in Work:
        for result in ordered:
            if result.has(work):
                yield _heading(result, work) + table(result, work)
                if work is Work.SHORT and result.picture.is_file():
                    yield f"![{_TITLES[work]}](benchmarks/results/{result.picture.name})\n"
    if any(_has_disturbed(result) for result in ordered):
        yield f"! Other programs used more than {BUSY:.0%} of the processors; ? is not final.\n"
    for result in ordered:
        if "gain" in result.document:
            yield _gain(result)


_TITLES = {Work.SHORT: "Short clips", Work.LONG: "Long recordings"}


def _heading(result: Result, work: Work) -> str:
    document = result.document
    mean_s = document["short_audio_s"] / document["n_calls"]
    what = f"{_TITLES[work]} ({mean_s:.0f} s on average)" if work is Work.SHORT else _TITLES[work]
    rounds = document["options"]["rounds"]
    median = f", medians of {rounds} turns" if rounds > 1 else ""
    return (
        f"**{what}**, whisper-{result.model}, {result.place}, {document['date'][:10]}{median}\n\n"
    )


def table(result: Result, work: Work) -> str:
    """The systems at this work as Markdown, fastest first; ours are bold."""
    systems = [system for system in result.document["systems"] if work.value in system]
    systems.sort(key=lambda system: -system[work.value]["times_real_time"])
    columns = {"": [_name(system, work, result.document) for system in systems]}
    figures = [system[work.value] for system in systems]
    if work is Work.SHORT:
        columns["clips/s"] = [_number(each["per_s"]) for each in figures]
    columns["times real time"] = [_number(each["times_real_time"]) for each in figures]
    columns["word errors"] = [_percent(each["error_rate"]) for each in figures]
    over = [each["over_faster_whisper"] for each in figures]
    if any(ratio is not None for ratio in over):
        mark = "?" if any(map(_is_disturbed, figures)) else ""
        columns["against faster-whisper's best"] = [_ratio(each) + mark for each in over]
    rows = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows).replace("| --- ", "|---")


def _name(system: Mapping[str, Any], work: Work, document: Mapping[str, Any]) -> str:
    """As it was called, with ``*`` where it was given less and ``!`` where it was disturbed."""
    name, figures = system["name"], system[work.value]
    given = figures["n"] if work is Work.SHORT else figures["audio_s"]
    all_of_it = document["n_calls"] if work is Work.SHORT else document["long_audio_s"]
    marks = (r" \*" if given < all_of_it - 0.5 else "") + (" !" if _is_disturbed(figures) else "")
    return (f"**{name}**" if system["system"] == OURS else name) + marks


def _is_disturbed(figures: Mapping[str, Any]) -> bool:
    return (figures["foreign_share"] or 0) > BUSY


def _has_disturbed(result: Result) -> bool:
    figures = (
        system[work.value]
        for system in result.document.get("systems", ())
        for work in Work
        if work.value in system
    )
    return any(map(_is_disturbed, figures))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}".replace("%", " %")


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _gain(result: Result) -> str:
    gain = result.document["gain"]
    n_different = gain["n_different_texts"]
    texts = f"{n_different} of the texts differ" if n_different else "the texts are the same"
    return (
        f"**Company**, whisper-{result.model}, {result.place}, {result.document['date'][:10]}: "
        f"{gain['n_callers']} callers at once are answered {gain['ratio']:.1f} times as fast as "
        f"one after another ({gain['together_batch']:.0f} windows in a step on average); {texts}.\n"
    )


def draw_pictures(results: Sequence[Result]) -> list[Path]:
    """A picture of each comparison of short clips; what was drawn."""
    drawn = [result for result in results if result.has(Work.SHORT)]
    for result in drawn:
        draw(result.document, (Work.SHORT,), result.picture, source=result.path.name)
    return [result.picture for result in drawn]


def main() -> int:
    """Draw, and write the README."""
    results = newest(RESULTS)
    try:
        draw_pictures(results)
    except ModuleNotFoundError as error:
        print(f"no new pictures: pip install {error.name} to draw", file=sys.stderr)
    readme = README.read_text("utf-8")
    write_atomically(README, readme_with_tables(readme, results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
