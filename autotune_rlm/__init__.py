"""Autotuning with a Regression Language Model as the cheap cost model.

The public names are imported on first use, so that ``import autotune_rlm`` costs milliseconds and
imports neither torch nor triton.
"""

from __future__ import annotations

import importlib
from typing import Any

from autotune_rlm._version import __version__

_PUBLIC = {
    "Candidate": "types",
    "ConfigFile": "config_file",
    "ConfigSpace": "config_space",
    "Device": "types",
    "Measurement": "types",
    "Observation": "types",
    "Prediction": "types",
    "RLMSampler": "integrations.optuna",
    "Status": "types",
    "Store": "store",
    "Task": "types",
    "Tuner": "tuner",
    "disable": "integrations.triton",
    "enable": "integrations.triton",
    "load_surrogate": "surrogate",
    "rlm_autotune": "integrations.triton",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    try:
        module = _PUBLIC[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
