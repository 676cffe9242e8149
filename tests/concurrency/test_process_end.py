"""Laws of the end of a process: which objects are ended, in which order, and what a fork loses."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from scripted_speech import SOON_S

import batched_whisper

PRELUDE = """
import gc, os, sys, threading, warnings, weakref
from batched_whisper.concurrency import process_end

warnings.simplefilter("ignore")

class Owner:
    def __init__(self, name): self.name = name
    def cancel_all(self): print("cancel", self.name, flush=True)
    def finish(self, timeout_s): print("finish", self.name, timeout_s > 1, flush=True)
    def after_fork(self): print("forked", self.name, flush=True)
"""


def run_program(program: str) -> list[str]:
    """Its lines."""
    paths = [str(Path(batched_whisper.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    ended = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=SOON_S,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


def test_all_are_cancelled_before_any_is_waited_for_and_code_of_the_user_ends_first() -> None:
    program = """
    for name in ("model", "other model"):
        process_end.track(Owner(name))
    process_end.track(Owner("function"), ends_first=True)
    gone = Owner("gone")
    process_end.track(gone)
    process_end.untrack(gone)
    """
    assert run_program(program) == [
        "cancel function",
        "finish function True",
        "cancel model",
        "cancel other model",
        "finish model True",
        "finish other model True",
    ]


def test_the_end_comes_after_the_last_thread_that_is_no_daemon() -> None:
    program = """
    process_end.track(Owner("model"))

    def go_on():
        threading.main_thread().join()
        print("still here")

    threading.Thread(target=go_on).start()
    """
    assert run_program(program) == ["still here", "cancel model", "finish model True"]


def test_a_forked_process_tells_all_of_them_and_ends_none() -> None:
    program = """
    watched, dropped = Owner("watched"), Owner("dropped")
    process_end.watch_forks(watched)
    process_end.watch_forks(dropped)
    process_end.track(Owner("model"))
    del dropped
    sys.stdout.flush()
    if os.fork() == 0:
        sys.exit()
    os.wait()
    """
    lines = run_program(program)
    assert lines == ["forked model", "forked watched", "cancel model", "finish model True"]


def test_what_is_tracked_is_kept_alive_and_what_is_watched_is_not() -> None:
    program = """
    tracked, watched = Owner("tracked"), Owner("watched")
    process_end.track(tracked)
    process_end.watch_forks(watched)
    tracked, watched = weakref.ref(tracked), weakref.ref(watched)
    gc.collect()
    print(tracked() is None, watched() is None)
    process_end.untrack(tracked())
    print(tracked() is None)
    """
    assert run_program(program) == ["False True", "True"]
