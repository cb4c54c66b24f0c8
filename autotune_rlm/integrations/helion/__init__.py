"""Helion kernels tuned by this package's engine: ``RLMSearch`` among Helion's own searches.

Helion 1.5 and newer. ``register()`` once, then ``HELION_AUTOTUNER=RLMSearch``, ``@helion.kernel(
autotuner_fn=autotuner_fn)`` or ``helion.autotuner.autotune(..., algorithm="RLMSearch")``.
"""

from autotune_rlm.integrations.helion._register import autotuner_fn, register
from autotune_rlm.integrations.helion._search import RLMSearch

__all__ = ["RLMSearch", "autotuner_fn", "register"]
