"""A result file of `benchmarks.compare` as a picture: ``python -m benchmarks.plot FILE.json``.

Needs matplotlib. Writes beside the result, or where ``--output`` says; the ending chooses the kind
(svg or png).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peer_models import MODEL
from benchmarks.systems.catalog import OURS, Work

_OURS, _PEER, _TEXT = "#0b7a75", "#b8bec4", "#22272b"
_TITLES = {
    Work.SHORT: "Short clips: seconds of speech transcribed in a second",
    Work.LONG: "Long recordings: seconds of speech transcribed in a second",
}


@dataclass(frozen=True)
class Bar:
    """One system's bar."""

    name: str
    value: float
    is_ours: bool
    error_rate: float | None


def bars(document: Mapping[str, Any], work: Work, only: Sequence[str] = ()) -> list[Bar]:
    """The systems on one workload (or those named), slowest first, as drawn from below."""
    found = [
        Bar(
            name=each["name"],
            value=each[work.value]["times_real_time"],
            is_ours=each["system"] == OURS,
            error_rate=each[work.value]["error_rate"],
        )
        for each in document["systems"]
        if work.value in each and (not only or each["name"] in only)
    ]
    return sorted(found, key=lambda bar: bar.value)


def label(bar: Bar) -> str:
    """What stands at the end of a bar."""
    errors = "" if bar.error_rate is None else f"   {bar.error_rate:.1%} word errors"
    return f"{bar.value:.1f}x{errors}"


def draw(
    document: Mapping[str, Any],
    works: Sequence[Work],
    path: Path,
    only: Sequence[str] = (),
    source: str | None = None,
) -> None:
    """Write the picture; an svg names the file that it was made from as its source."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "batched-whisper"  # the same picture, the same file
    pyplot: Any = import_module("matplotlib.pyplot")
    drawn = {work: bars(document, work, only) for work in works}
    heights = [max(1, len(each)) for each in drawn.values()]
    figure, axes = pyplot.subplots(
        *(len(works), 1),
        figsize=(9, 0.36 * sum(heights) + 0.9 * len(works)),
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for (work, found), axis in zip(drawn.items(), axes[:, 0], strict=True):
        _draw_one(axis, _TITLES[work], found)
    figure.supxlabel(_caption(document), x=0.01, ha="left", fontsize=8, color=_TEXT)
    figure.savefig(path, dpi=160, metadata=_metadata(path, source))
    pyplot.close(figure)


def _metadata(path: Path, source: str | None) -> dict[str, str | None] | None:
    return {"Date": None, "Source": source} if path.suffix == ".svg" else None


def _draw_one(axis: Any, title: str, found: Sequence[Bar]) -> None:
    colours = [_OURS if bar.is_ours else _PEER for bar in found]
    drawn = axis.barh([bar.name for bar in found], [bar.value for bar in found], color=colours)
    axis.bar_label(drawn, [label(bar) for bar in found], padding=4, fontsize=8, color=_TEXT)
    axis.set_title(title, loc="left", fontsize=11, color=_TEXT)
    axis.margins(y=0.01)
    axis.set_xlim(0, 1.4 * max((bar.value for bar in found), default=1.0))
    axis.tick_params(axis="y", length=0, labelsize=9, colors=_TEXT)
    axis.xaxis.set_visible(True)
    axis.set_xticks([])
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)


def model_of(document: Mapping[str, Any]) -> str:
    """The model of all its systems; a file that does not say is of the standard one."""
    return str(document.get("model") or document.get("options", {}).get("model") or MODEL)


def _caption(document: Mapping[str, Any]) -> str:
    place = f"{document['processors']} processors of {document['processor']}"
    return (
        f"whisper-{model_of(document)}, greedy, {place}, "
        f"rounds in alternation in one run (median of {document['options']['rounds']}), "
        f"{document['date'][:10]}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("result", type=Path, help="a JSON file of benchmarks.compare")
    parser.add_argument("--work", choices=[work.value for work in Work], help="this one alone")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="this system; again for more"
    )
    parser.add_argument("--output", type=Path, help="default: beside the result, as svg")
    given = parser.parse_args(arguments)
    try:
        document = json.loads(given.result.read_text("utf-8"))
    except (OSError, ValueError) as error:
        print(f"error: {given.result} cannot be read: {error}", file=sys.stderr)
        return 2
    works = tuple(Work) if given.work is None else (Work(given.work),)
    path = given.output or given.result.with_suffix(".svg")
    try:
        draw(document, works, path, given.only)
    except ModuleNotFoundError as error:
        print(f"error: pip install {error.name} to draw", file=sys.stderr)
        return 2
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
