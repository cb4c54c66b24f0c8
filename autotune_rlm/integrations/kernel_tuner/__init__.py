"""Kernel Tuner with our engine as its strategy: it compiles, checks and times, the model chooses."""

from autotune_rlm.integrations.kernel_tuner._strategy import RLMStrategy, rlm_strategy

__all__ = ["RLMStrategy", "rlm_strategy"]
