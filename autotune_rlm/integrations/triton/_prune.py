"""Pruning as Triton's autotuner does it, and its checks of names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import triton

from autotune_rlm.config_space import TRITON_OPTIONS

from ._errors import NothingLeftError


def prune(
    configs: list[triton.Config],
    named: Mapping[str, Any],
    kwargs: Mapping[str, Any],
    *,
    early: Callable[..., Any] | None,
    perf_model: Callable[..., float] | None,
    top_k: int | float,
    kernel: str,
) -> list[triton.Config]:
    """What ``early_config_prune``, then ``perf_model`` with ``top_k`` leave; never nothing."""
    if early is not None:
        configs = list(early(configs, named, **kwargs))
        if not configs:
            raise NothingLeftError(
                f"early_config_prune of {kernel} kept no configuration; it must keep at least one"
            )
    most = _most(top_k, len(configs))
    if perf_model is None or len(configs) <= most:
        return configs
    estimates = [perf_model(**named, **kwargs, **c.all_kwargs()) for c in configs]
    order = sorted(range(len(configs)), key=estimates.__getitem__)
    return [configs[i] for i in order[:most]]


def check_conflicts(configs: Sequence[triton.Config], kwargs: Mapping[str, Any]) -> None:
    """Raises ValueError where a launch gives what the configurations set."""
    conflicts = {name for config in configs for name in config.all_kwargs() if name in kwargs}
    if conflicts:
        raise ValueError(
            f"Conflicting meta-parameters: {', '.join(sorted(conflicts))}."
            " Make sure that you don't re-define auto-tuned symbols."
        )


def check_names(arg_names: Sequence[str], **named: Sequence[str] | None) -> None:
    """Raises ValueError where one of ``named`` names no argument."""
    for parameter, names in named.items():
        unknown = [name for name in names or () if name not in arg_names]
        if unknown:
            raise ValueError(
                f"{parameter} contains names that are not kernel arguments: {', '.join(unknown)}. "
                f"Valid argument names are: {', '.join(arg_names)}."
            )


def config_of(options: Mapping[str, Any]) -> triton.Config:
    """The configuration whose ``all_kwargs()`` are given."""
    of_triton = {*TRITON_OPTIONS, "ir_override"}
    return triton.Config(
        {k: v for k, v in options.items() if k not in of_triton},
        **{k: v for k, v in options.items() if k in of_triton},
    )


def _most(top_k: int | float, n: int) -> int:
    if isinstance(top_k, float) and top_k <= 1.0:
        return max(1, int(n * top_k))
    if not isinstance(top_k, int) or top_k < 1:
        raise TypeError(
            f"top_k must be a fraction of at most 1.0 or a number of at least 1, got {top_k!r}"
        )
    return top_k
