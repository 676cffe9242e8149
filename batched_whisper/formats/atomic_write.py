"""Writes files atomically. Knows nothing of their contents."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path

from batched_whisper.errors import OutputError


def write_atomically(path: Path, contents: str) -> None:
    """Write a file as UTF-8, completely or not at all, even if the process is killed.

    Raises:
        OutputError: the file cannot be written; a previous file is unchanged.
    """
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(contents.encode("utf-8", errors="backslashreplace"))
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); choose another path"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
