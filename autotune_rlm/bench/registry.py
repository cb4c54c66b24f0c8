"""Methods by the names that the command line and the results use."""

from __future__ import annotations

from autotune_rlm.bench import _baselines, _knowing, _peers
from autotune_rlm.bench._method import Method

__all__ = ["METHODS", "SURROGATE_METHODS", "TRAIN_METHODS"]

METHODS: dict[str, type[Method]] = {
    "rlm": _knowing.Rlm,
    "rlm-default": _knowing.RlmWithDefault,
    "rlm-zero-shot": _knowing.RlmZeroShot,
    "trees": _knowing.FactsTrees,
    "random": _baselines.RandomSearch,
    "xgboost": _peers.XGBoost,
    "random-forest": _baselines.RandomForest,
    "gp": _baselines.GaussianProcess,
    "tpe": _baselines.Tpe,
    "lightgbm": _peers.LightGBM,
    "catboost": _peers.CatBoost,
    "botorch": _peers.BoTorch,
    **{f"kt-{name}": _peers.kernel_tuner(name) for name in _peers.KERNEL_TUNER},
    "nearest": _knowing.Nearest,
    "analytical": _knowing.Analytical,
}
"""The tuning methods by name, as `autotune-rlm bench kernels --method` takes them."""

SURROGATE_METHODS = frozenset({"rlm", "rlm-default", "rlm-zero-shot", "trees"})
TRAIN_METHODS = frozenset({"nearest"})
