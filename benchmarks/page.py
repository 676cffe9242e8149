"""Makes the benchmark tables of docs/benchmarks.md and README.md: ``python -m benchmarks.page``.

Takes the newest file of each name and machine in ``benchmarks/results``, except quick runs. The
page has all tables; the README has the most telling rows for short clips, and a sentence. Draws a
picture of each table of short clips beside the results if matplotlib is installed. The text around
the tables is written by hand.
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
PAGE = RESULTS.parents[1] / "docs" / "benchmarks.md"
N_README_PEERS = 4
"""The README's table: our fastest and our default configuration, and the fastest peers."""
FASTER_WHISPER = "faster_whisper"
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


def page_with_tables(page: str, results: Sequence[Result]) -> str:
    """Replace the text between the markers by all tables."""
    return _between_markers(page, "\n".join(_parts(results)))


def readme_with_summary(readme: str, results: Sequence[Result]) -> str:
    """Replace the text between the markers by the short table and a sentence.

    Both are of the standard model; of several machines, the first by name.
    """
    standard = sorted((r for r in results if r.model == MODEL), key=lambda result: result.key)
    short = next((result for result in standard if result.has(Work.SHORT)), None)
    parts = [_heading(short, Work.SHORT) + _short_table(short)] if short else []
    sentence = " ".join(_sentences(standard))
    return _between_markers(readme, "\n".join([*parts, *([sentence + "\n"] if sentence else [])]))


def _between_markers(page: str, contents: str) -> str:
    before, found, rest = page.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise SystemExit(f"the page lacks the lines {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + contents + END + after


def _parts(results: Sequence[Result]) -> Iterator[str]:
    """Short clips, long recordings, batching; the standard model first."""
    ordered = sorted(results, key=lambda result: (result.model != MODEL, result.key))
    for work in Work:
        for result in ordered:
            if result.has(work):
                yield _heading(result, work) + table(result, work)
                if work is Work.SHORT and result.picture.is_file():
                    yield f"![{_TITLES[work]}](../benchmarks/results/{result.picture.name})\n"
    if any(_has_disturbed(result) for result in ordered):
        yield f"! Other programs used more than {BUSY:.0%} of the CPU time; ? is not final.\n"
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
    return _rows(_fastest_first(result, work), result, work)


def _fastest_first(result: Result, work: Work) -> list[Mapping[str, Any]]:
    systems = [system for system in result.document["systems"] if work.value in system]
    return sorted(systems, key=lambda system: -system[work.value]["times_real_time"])


def _short_table(result: Result) -> str:
    """Our fastest and our default configuration, and the fastest of each of the fastest peers."""
    systems = _fastest_first(result, Work.SHORT)
    ours = [system for system in systems if system["system"] == OURS]
    fastest: dict[str, Mapping[str, Any]] = {}
    for system in systems:
        fastest.setdefault(system["system"], system)
    peers = [system for name, system in fastest.items() if name != OURS][:N_README_PEERS]
    shown = [*ours[:1], *(system for system in ours[1:] if system["name"] == OURS), *peers]
    return _rows([system for system in systems if system in shown], result, Work.SHORT)


def _rows(systems: Sequence[Mapping[str, Any]], result: Result, work: Work) -> str:
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
    return (
        f"**Concurrency**, whisper-{result.model}, {result.place}, {result.document['date'][:10]}: "
        f"{_concurrency(result)}.\n"
    )


def _concurrency(result: Result) -> str:
    gain = result.document["gain"]
    n_different = gain["n_different_texts"]
    texts = f"{n_different} texts differ" if n_different else "identical texts"
    return (
        f"{gain['n_callers']} concurrent callers get {gain['ratio']:.1f} times the throughput of "
        f"sequential calls (mean batch {gain['together_batch']:.0f}; {texts})"
    )


def _sentences(results: Sequence[Result]) -> Iterator[str]:
    """Long recordings and concurrency, each of the first result that has it."""
    for result in results:
        systems = _fastest_first(result, Work.LONG) if result.has(Work.LONG) else []
        best = {name: _best(systems, name) for name in (OURS, FASTER_WHISPER)}
        if best[OURS] and best[FASTER_WHISPER]:
            ours, theirs = best[OURS], best[FASTER_WHISPER]
            yield (
                f"On long recordings the fastest configurations reach "
                f"{_number(ours['times_real_time'])} times real time here and "
                f"{_number(theirs['times_real_time'])} in faster-whisper, with "
                f"{_percent(ours['error_rate'])} and {_percent(theirs['error_rate'])} word errors."
            )
            break
    measured = next((result for result in results if "gain" in result.document), None)
    if measured:
        yield f"With the same model, {_concurrency(measured)}."


def _best(systems: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """The figures of a system's fastest configuration on long recordings; empty if none."""
    found = (system[Work.LONG.value] for system in systems if system["system"] == name)
    return next(found, {})


def draw_pictures(results: Sequence[Result]) -> list[Path]:
    """A picture of each comparison of short clips; what was drawn."""
    drawn = [result for result in results if result.has(Work.SHORT)]
    for result in drawn:
        draw(result.document, (Work.SHORT,), result.picture, source=result.path.name)
    return [result.picture for result in drawn]


def main() -> int:
    """Draw, and write both pages."""
    results = newest(RESULTS)
    try:
        draw_pictures(results)
    except ModuleNotFoundError as error:
        print(f"no new pictures: run pip install {error.name} to draw them", file=sys.stderr)
    write_atomically(PAGE, page_with_tables(PAGE.read_text("utf-8"), results))
    write_atomically(README, readme_with_summary(README.read_text("utf-8"), results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
