"""Writes transcripts as plain text, SRT, WebVTT, TSV, JSON and JSON lines.

One pure function per format, and a registry of them. Follows the conventions of openai/whisper's
command line (field names, units and line layout), so that its readers can read these files. Knows
nothing of how a transcript was made.
"""

from batched_whisper.config.options import CueLayout
from batched_whisper.formats.atomic_write import write_atomically
from batched_whisper.formats.json_output import as_document, json_document, json_line
from batched_whisper.formats.registry import FORMATS, Format, format_named
from batched_whisper.formats.subtitles import srt, vtt
from batched_whisper.formats.text_and_tsv import text, tsv

__all__ = [
    "FORMATS",
    "CueLayout",
    "Format",
    "as_document",
    "format_named",
    "json_document",
    "json_line",
    "srt",
    "text",
    "tsv",
    "vtt",
    "write_atomically",
]
