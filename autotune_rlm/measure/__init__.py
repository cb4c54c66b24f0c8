"""Trustworthy numbers: timing, isolation, parallel compilation, correctness, devices, replay.

Names are imported when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "CompilePool": "compile",
    "CompileResult": "compile",
    "CompileSpec": "compile",
    "Fault": "errors",
    "classify": "errors",
    "describe_call": "capture",
    "parse_target": "compile",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
