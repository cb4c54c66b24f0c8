"""A workload for machines that do not have its file: the text goes along."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autotune_rlm.measure.triton import IsolatedMeasurer, Workload
from autotune_rlm.measure.triton.compile import CompilePool
from autotune_rlm.types import Measurer

_MAX_BYTES = 4_000_000  # of Python files beside the workload's own


def isolated(workload: Workload, *, compilers: int = 1, **options: Any) -> Callable[[], Measurer]:
    """What ``RayMeasurer`` makes in each worker: an ``IsolatedMeasurer`` of a workload.

    The file that ``workload.factory`` or ``workload.arguments["file"]`` names is sent with the Python
    files beside it, so that the machines need no copy; what it imports has to be installed there.

    Args:
        workload: What to run.
        compilers: Processes of each worker that compile what is likely to be measured next.
        **options: Of ``IsolatedMeasurer``: ``timeout_s``, ``settings``, ``env``.
    """
    sent: dict[str, str] = {}
    for file in (workload.arguments.get("file"), workload.factory.rpartition(":")[0]):
        if file and Path(file).is_file():
            sent |= _beside(Path(file))
    return functools.partial(_Isolated, workload.to_json(), sent, compilers, options)


def _beside(file: Path) -> dict[str, str]:
    """The text of a file, and of the Python files in its folder as far as they are few."""
    sent = {file.name: file.read_text("utf-8")}
    others = [p for p in file.parent.glob("*.py") if p.is_file() and p.name != file.name]
    if sum(p.stat().st_size for p in others) <= _MAX_BYTES:
        sent |= {p.name: p.read_text("utf-8", "replace") for p in others}
    return sent


class _Isolated(IsolatedMeasurer):
    """An ``IsolatedMeasurer`` with the files that were sent, and compilers of its own."""

    def __init__(
        self,
        workload: Mapping[str, Any],
        sent: Mapping[str, str],
        compilers: int,
        options: Mapping[str, Any],
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="autotune_rlm-")
        for file, text in sent.items():
            Path(self._folder.name, file).write_text(text, "utf-8")

        def here(path: str) -> str:
            name = Path(path).name
            return str(Path(self._folder.name, name)) if name in sent else path

        arguments = dict(workload["arguments"])
        path, _, name = workload["factory"].rpartition(":")
        if arguments.get("file"):
            arguments["file"] = here(arguments["file"])
        interpreted = (options.get("env") or {}).get("TRITON_INTERPRET") == "1"
        self._compilers = None if interpreted else CompilePool(compilers)
        mine = Workload(factory=f"{here(path)}:{name}", arguments=arguments)
        super().__init__(mine, pool=self._compilers, **options)

    def close(self) -> None:
        super().close()
        if self._compilers is not None:
            self._compilers.close()
        self._folder.cleanup()
