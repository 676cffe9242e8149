"""Shows the progress of a job on a terminal, and prints text above the progress bar.

Uses rich. Shows no bar if standard error is not a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from batched_whisper.cli.messages import print_err

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from batched_whisper.whisper import Whisper


class Display:
    """The progress bar and messages of a running job."""

    def __init__(self, *, quiet: bool) -> None:
        """``quiet`` hides the bar and the warnings."""
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._duration_s = 0.0

    def warn(self, message: str) -> None:
        """Print a line to standard error, above the bar."""
        if self._quiet:
            return
        if self._bar is None:
            print_err(message)
        else:
            self._above(message)

    def print(self, text: str) -> None:
        """Print a result to standard output, above the bar if both share a terminal."""
        if self._bar is not None and sys.stdout.isatty():
            self._above(text.removesuffix("\n"))
        else:
            sys.stdout.write(text)
            sys.stdout.flush()

    def advance(self, duration_s: float) -> None:
        """Count one more finished recording of this duration."""
        self._duration_s += duration_s
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, audio_s=self._duration_s)

    def _above(self, text: str) -> None:
        assert self._bar is not None
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Show a status while the model loads."""
        if self._quiet or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status("Loading the model"):
            yield

    @contextmanager
    def running(self, whisper: Whisper, n_recordings: int) -> Iterator[None]:
        """Show the bar while recordings are transcribed."""
        if self._quiet or not sys.stderr.isatty():
            yield
            return
        with _bar(whisper) as self._bar:
            self._task = self._bar.add_task("", total=n_recordings, audio_s=0.0)
            try:
                yield
            finally:
                self._bar = None


def _bar(whisper: Whisper) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task
    from rich.text import Text

    class FiguresColumn(ProgressColumn):
        """Reads the engine's counters each time it is drawn."""

        def render(self, task: Task) -> Text:
            audio_s, waiting = task.fields["audio_s"], whisper.stats.queue_depth
            speed = audio_s / task.elapsed if task.elapsed else 0.0
            text = f"{audio_s:,.0f} s, {speed:,.1f} x real time, {waiting:,} waiting"
            return Text(text, no_wrap=True)

    return Progress(
        BarColumn(bar_width=20),  # leaves room for the figures in 80 columns
        MofNCompleteColumn(),
        FiguresColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
