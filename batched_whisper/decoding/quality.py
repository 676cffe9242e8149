"""Whether to believe a decoded window. The figures are openai/whisper's.

It judges; what happens next (decode again, hotter or on the full context, or silence) is for the
caller to do.
"""

from __future__ import annotations

import zlib


def compression_ratio(text: str) -> float:
    """Bytes of the text by bytes of its zlib stream; loops compress well (openai/whisper)."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))
