from ._version import __version__
from .config_space import ConfigSpace
from .integrations.optuna import RLMSampler
from .integrations.triton import disable, enable, rlm_autotune
from .regression import RLM
from .search.tuner import Tuner
from .store import Store
from .store.config_file import ConfigFile
from .surrogate import load_surrogate
from .types import (
    Candidate,
    Device,
    Measurement,
    Observation,
    Prediction,
    Status,
    Task,
)

__all__ = [
    "RLM",
    "Candidate",
    "ConfigFile",
    "ConfigSpace",
    "Device",
    "Measurement",
    "Observation",
    "Prediction",
    "RLMSampler",
    "Status",
    "Store",
    "Task",
    "Tuner",
    "__version__",
    "disable",
    "enable",
    "load_surrogate",
    "rlm_autotune",
]
