"""A workload for machines that do not have its file: the text goes along."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune_rlm.types import Measurer

if TYPE_CHECKING:  # heavy, and workers without a workload need none of it
    from autotune_rlm.measure.triton import IsolatedMeasurer, Workload

__all__ = ["isolated"]

_MAX_BYTES = 4_000_000  # of Python files beside the workload's own


def isolated(workload: Workload, **options: Any) -> Callable[[], Measurer]:
    """What ``RayMeasurer`` makes in each worker: an ``IsolatedMeasurer`` of a workload.

    The file that ``workload.factory`` or ``workload.arguments["file"]`` names is sent with the Python
    files beside it, so that the machines need no copy; what it imports has to be installed there.

    Args:
        workload: What to run.
        **options: Of ``IsolatedMeasurer``: ``timeout_s``, ``settings``, ``env``.
    """
    sent: dict[str, str] = {}
    for file in (workload.arguments.get("file"), workload.factory.rpartition(":")[0]):
        if file and Path(file).is_file():
            sent |= _beside(Path(file))
    return functools.partial(_make, workload.to_json(), sent, options)


def _beside(file: Path) -> dict[str, str]:
    """The text of a file, and of the Python files in its folder as far as they are few."""
    sent = {file.name: file.read_text("utf-8")}
    others = [p for p in file.parent.glob("*.py") if p.is_file() and p.name != file.name]
    if sum(p.stat().st_size for p in others) <= _MAX_BYTES:
        sent |= {p.name: p.read_text("utf-8", "replace") for p in others}
    return sent


def _make(
    workload: Mapping[str, Any], sent: Mapping[str, str], options: Mapping[str, Any]
) -> IsolatedMeasurer:
    from autotune_rlm.measure.triton import IsolatedMeasurer, Workload

    arguments, (path, _, name) = dict(workload["arguments"]), workload["factory"].rpartition(":")
    if sent:
        folder = Path(tempfile.mkdtemp(prefix="autotune_rlm-"))
        for file, text in sent.items():
            (folder / file).write_text(text, "utf-8")
        if Path(arguments.get("file") or "").name in sent:
            arguments["file"] = str(folder / Path(arguments["file"]).name)
        if Path(path).name in sent:
            path = str(folder / Path(path).name)
    return IsolatedMeasurer(Workload(factory=f"{path}:{name}", arguments=arguments), **options)
