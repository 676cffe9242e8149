"""What cannot be measured here, and why."""

from __future__ import annotations


class LeftOut(Exception):
    """This system cannot be measured here; the message says why in one line."""
