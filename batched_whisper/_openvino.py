"""OpenVINO, imported so that it sends nothing home and leaves nothing in the home folder.

Importing OpenVINO's Python package otherwise reports the import to its maker through the package
``openvino_telemetry``, and writes an identifier into the user's home. Without that package it
falls back to a stub of its own, so here it is made to seem absent. Everything of this package that
uses OpenVINO takes it from here.
"""

from __future__ import annotations

import sys
from typing import Any, cast

if "openvino" not in sys.modules:
    cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)

import openvino as ov
import openvino.opset13 as op

__all__ = ["op", "ov"]
