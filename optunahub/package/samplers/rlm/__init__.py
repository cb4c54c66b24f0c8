"""``RLMSampler`` of the package ``autotune-rlm``."""

try:
    from autotune_rlm.integrations.optuna import RLMSampler
except ImportError as error:
    raise ImportError(
        'samplers/rlm needs its package: pip install "autotune-rlm[optuna]"'
    ) from error

__all__ = ["RLMSampler"]
