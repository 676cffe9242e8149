"""``python -m batched_whisper`` is ``batched-whisper``."""

from batched_whisper.cli import main

if __name__ == "__main__":
    main()
