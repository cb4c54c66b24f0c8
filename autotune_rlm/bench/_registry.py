"""Methods by the names that the command line and the results use."""

from __future__ import annotations

from autotune_rlm.bench import _baselines, _knowing
from autotune_rlm.bench._method import Method

__all__ = ["METHODS", "SURROGATE_METHODS", "TRAIN_METHODS"]

METHODS: dict[str, type[Method]] = {
    "rlm": _knowing.Rlm,
    "rlm-zero-shot": _knowing.RlmZeroShot,
    "trees": _knowing.FactsTrees,
    "random": _baselines.RandomSearch,
    "xgboost": _baselines.XGBoost,
    "random-forest": _baselines.RandomForest,
    "gp": _baselines.GaussianProcess,
    "tpe": _baselines.Tpe,
    "nearest": _knowing.Nearest,
    "analytical": _knowing.Analytical,
}
"""The tuning methods by name, as `autotune-rlm bench kernels --method` takes them."""

SURROGATE_METHODS = frozenset({"rlm", "rlm-zero-shot", "trees"})
TRAIN_METHODS = frozenset({"nearest"})
