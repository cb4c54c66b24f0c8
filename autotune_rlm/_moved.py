"""Modules that have moved: their old names still import for one release, and warn.

``MOVED`` goes, with this module, in the release after the one that made the move.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {  # in 0.2
    "accuracy": "store.accuracy",
    "bench._registry": "bench.registry",
    "config_file": "store.config_file",
    "encoding": "learn.columns",
    "gaussian_process": "learn.gaussian_process",
    "integrations.triton._device": "integrations.triton.device",
    "integrations.triton._discover": "integrations.triton.offline.discover",
    "integrations.triton._offline": "integrations.triton.offline.kernel",
    "integrations.triton._recommend": "integrations.triton.offline.recommend",
    "integrations.triton._resources": "integrations.triton.resources",
    "integrations.triton._settings": "integrations.triton.settings",
    "integrations.triton._task": "integrations.triton.task",
    "integrations.triton._tune_file": "integrations.triton.offline.tune",
    "landscapes._columns": "landscapes.columns",
    "landscapes._io": "landscapes.io",
    "landscapes._jsonl": "landscapes.jsonl",
    "measure._ahead": "measure.triton.ahead",
    "measure._device_lock": "measure.workers.device_lock",
    "measure._energy": "measure.statistics.energy",
    "measure._interpreter": "measure.interpreter",
    "measure._ir_worker": "measure.triton.ir_worker",
    "measure._process": "measure.workers.process",
    "measure._trusted": "measure.triton.trusted",
    "measure.capture": "measure.triton.capture",
    "measure.compile": "measure.triton.compile",
    "measure.correctness": "measure.triton.correctness",
    "measure.device_timers": "measure.statistics.device_timers",
    "measure.job": "measure.triton.job",
    "measure.kernel_call": "measure.triton.kernel_call",
    "measure.record": "record",
    "measure.timing": "measure.statistics.timing",
    "measure.worker": "measure.triton.isolated",
    "networks._fields": "networks.fields",
    "policy": "search.policy",
    "report.formats": "formats",
    "surrogate.finetune": "training.finetune",
    "surrogate.hf": "training.hf",
    "surrogate.training": "training",
    "tuner": "search.tuner",
    "watch": "search.watch",
}
_PACKAGE = __name__.partition(".")[0]


def _new_name(name: str) -> str | None:
    package, _, rest = name.partition(".")
    if package != _PACKAGE:
        return None
    for old, new in MOVED.items():
        if rest == old or rest.startswith(f"{old}."):
            return f"{package}.{new}{rest[len(old) :]}"
    return None


class _Moved(MetaPathFinder, Loader):
    """Finds a module under its old name, and gives the module of the new one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if _new_name(fullname) else None

    def exec_module(self, module: ModuleType) -> None:
        new = _new_name(module.__name__)
        assert new is not None
        warnings.warn(f"{module.__name__} is now {new}", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = importlib.import_module(new)


def install() -> None:
    """Let the old names import; before other finders, or a moved package's folder gives a copy."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Moved())
