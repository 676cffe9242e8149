"""Imports OpenVINO without telemetry and without files in the home folder.

By default, importing OpenVINO's Python package sends telemetry through the package
``openvino_telemetry``, and writes an identifier into the user's home folder. Without that package
OpenVINO uses an empty replacement, so this module marks it as missing. All modules of this package
import OpenVINO from here.
"""

from __future__ import annotations

import sys
from typing import Any, cast

if "openvino" not in sys.modules:
    cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)

import openvino as ov
import openvino.opset13 as op

__all__ = ["op", "ov"]
