"""How right the surrogate was: the accuracy log as tables, figures and one HTML page.

``summarize`` needs nothing but numpy; figures and the page need matplotlib and jinja2 (the extra
``plot``), ``write_tensorboard`` needs tensorboard.
"""

from __future__ import annotations

import importlib
from typing import Any

from autotune_rlm.report._summary import Failure, Group, Report, read_rounds, summarize

__all__ = [
    "Failure",
    "Group",
    "Report",
    "read_rounds",
    "render_html",
    "summarize",
    "write_html",
    "write_json",
    "write_png",
    "write_tensorboard",
]

_LAZY = {
    "render_html": "_page",
    "write_html": "_page",
    "write_json": "_page",
    "write_png": "_page",
    "write_tensorboard": "_tensorboard",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
