"""``RLMSampler`` for Optuna studies."""

from autotune_rlm.integrations.optuna._sampler import RLMSampler

__all__ = ["RLMSampler"]
