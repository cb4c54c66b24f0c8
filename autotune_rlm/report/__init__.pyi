from ._page import render_html, write_html, write_json, write_png
from ._summary import Failure, Group, Report, Verdict, read_rounds, summarize
from ._tensorboard import write_tensorboard

__all__ = [
    "Failure",
    "Group",
    "Report",
    "Verdict",
    "read_rounds",
    "render_html",
    "summarize",
    "write_html",
    "write_json",
    "write_png",
    "write_tensorboard",
]
