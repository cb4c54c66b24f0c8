"""How Helion is told of the search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune_rlm.integrations.helion._search import RLMSearch


def register() -> None:
    """Add ``"RLMSearch"`` to the searches that ``HELION_AUTOTUNER`` and ``autotune`` know."""
    from helion.autotuner import search_algorithms

    search_algorithms["RLMSearch"] = RLMSearch


def autotuner_fn(bound_kernel: Any, args: Sequence[object], **options: Any) -> Any:
    """The argument ``autotuner_fn`` of ``helion.kernel``: ``RLMSearch`` behind Helion's own cache.

    Args:
        bound_kernel: The kernel.
        args: Its arguments.
        options: As for ``RLMSearch``; the effort of the kernel's settings gives what is left out.
    """
    from helion.autotuner import cache_classes
    from helion.autotuner.effort_profile import get_effort_profile

    settings = bound_kernel.settings
    profile = get_effort_profile(settings.autotune_effort)
    given = {**RLMSearch.get_kwargs_from_profile(profile, settings), **options}

    def make() -> RLMSearch:
        return RLMSearch(bound_kernel, args, **given)

    return cache_classes[settings.autotune_cache](make(), autotuner_factory=make)
