"""Runtimes that this Python has packages of."""

from __future__ import annotations

import sys

#: tflite-runtime has no wheel for Python 3.12 and later.
TFLITE = ("ai_edge_litert",) if sys.version_info >= (3, 12) else ("tflite_runtime", "ai_edge_litert")
RUNTIMES = (*TFLITE, "numpy")
