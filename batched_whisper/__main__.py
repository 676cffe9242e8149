"""Runs the command line with ``python -m batched_whisper``."""

from batched_whisper.cli import main

if __name__ == "__main__":
    main()
