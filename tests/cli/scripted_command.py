"""The real program around the scripted transcriber, as a process of its own.

``python scripted_command.py N ARGUMENTS...``: the process kills itself when N recordings are done;
``never`` instead of N, and it lives.
"""

from __future__ import annotations

import sys

from scripted_whisper import Script

from batched_whisper.cli.app import run_program

if __name__ == "__main__":
    after, *arguments = sys.argv[1:]
    script = Script(dies_after=None if after == "never" else int(after))
    run_program(arguments, script.dependencies())
