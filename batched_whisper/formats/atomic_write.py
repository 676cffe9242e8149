"""Files that are written whole or not at all. Knows nothing of what is in them."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path

from batched_whisper.errors import OutputError


def write_atomically(path: Path, contents: str) -> None:
    """Write a file as UTF-8, whole or not at all, whatever happens meanwhile.

    Raises:
        OutputError: the file cannot be written; what was there before is still there.
    """
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(contents.encode("utf-8", errors="backslashreplace"))
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); choose another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
