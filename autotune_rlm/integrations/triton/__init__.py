"""``@rlm_autotune``: ``@triton.autotune`` that ranks with a model before it compiles and measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import triton

from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.types import Device

from ._adopt import disable, enable
from ._autotuner import RLMAutotuner
from ._ranks import agree_ranks
from ._source import kernel_source
from .settings import Settings

__all__ = ["RLMAutotuner", "agree_ranks", "disable", "enable", "kernel_source", "rlm_autotune"]


def rlm_autotune(
    configs: Sequence[triton.Config] | ConfigSpace,
    key: Sequence[str],
    prune_configs_by: dict[str, Any] | None = None,
    reset_to_zero: Sequence[str] | None = None,
    restore_value: Sequence[str] | None = None,
    pre_hook: Callable[..., Any] | None = None,
    post_hook: Callable[..., Any] | None = None,
    warmup: int | None = None,
    rep: int | None = None,
    use_cuda_graph: bool = False,
    do_bench: Callable[..., Any] | None = None,
    cache_results: bool = False,
    *,
    budget: int | float | None = None,
    budget_s: float | None = None,
    mode: str = "tune",
    surrogate: Any = None,
    store: Any = None,
    device: Device | str | None = None,
    seed: int = 0,
    configs_from: Any = None,
    isolate: bool = False,
    check: str | None = None,
    quiet: bool = False,
) -> Callable[[Any], RLMAutotuner]:
    """Decorator in place of ``triton.autotune``: the same arguments, and a few more.

    For a key that was never seen, ``early_config_prune`` and ``perf_model`` prune as in Triton, a
    model ranks what is left, the few most promising configurations are compiled in parallel and
    measured, and the fastest wins. The first configuration of the list and the best one of the
    nearest known problem are always among the measured. Every measurement is kept: a key that was
    tuned before, by any process, costs none.

    Args:
        configs: As in Triton, or a ``ConfigSpace`` of thousands.
        key: As in Triton: a new value of one of these arguments, or new dtypes, tune again.
        prune_configs_by: As in Triton.
        reset_to_zero: As in Triton; never timed.
        restore_value: As in Triton; never timed.
        pre_hook: As in Triton; never timed.
        post_hook: As in Triton; never timed.
        warmup: As in Triton (deprecated there).
        rep: As in Triton (deprecated there).
        use_cuda_graph: As in Triton (deprecated there).
        do_bench: As in Triton: ``do_bench(call, quantiles)`` in milliseconds; it times all that
            ``call`` does, hooks included.
        cache_results: As in Triton; measurements are kept in the store in any case.
        budget: How many configurations may be measured: a number, or a fraction as a float in
            (0, 1]. By default all of up to 8, a quarter of more, between 8 and 32; half of that
            where another problem of the kernel is known.
        budget_s: Seconds after which no further measurement is started.
        mode: ``"tune"``; ``"predict"`` takes the best known configuration or the model's choice
            and measures nothing; ``"full"`` measures all.
        surrogate: A ``Surrogate``, or what ``autotune_rlm.load_surrogate`` takes; None for the
            bundled one. Loaded when first needed.
        store: A ``Store``, an SQLAlchemy URL or a file's path; None for the user's own; False
            keeps nothing.
        device: Device or its name for the model and the store; None for the active one.
        seed: Of the search. Equal stores and seeds measure the same configurations.
        configs_from: Recommended configurations: a file that ``autotune-rlm rank`` or ``tune``
            wrote, several, or a ``ConfigFile``. Those of them that are in ``configs`` are what
            ``mode="predict"`` takes where nothing was measured, with no model asked, and are among
            the first to be measured otherwise. None for ``autotune_rlm.json`` in the folder of the
            kernel's file or, above it, of its package, if it is there; ``[]`` for none.
        isolate: Measure in a process of its own, so that a configuration that hangs, crashes or breaks
            the device costs nothing but itself. It makes the arguments again from their shapes, strides
            and dtypes (of small integer tensors the values too), which must fit into memory a second
            time. Where it cannot (own hooks, a kernel that only this process has), a warning says so and
            this process measures.
        check: ``"default"`` leaves out configurations whose outputs differ from those of the first of
            ``configs`` by more than rounding (``measure.disagreement``), in the search that measures
            them; None compares nothing, as Triton. All tensors of the launch are compared, and are after
            the search what they were before. It takes their memory three times while it searches, and
            a launch for each. With ``isolate`` the other process compares. What was measured without it
            is not trusted.
        quiet: Write nothing about a search. Otherwise one that takes longer than two seconds says on
            the standard error stream how far it is, and what it found.

    Environment variables ``AUTOTUNE_RLM_BUDGET``, ``_BUDGET_S``, ``_MODE``, ``_SURROGATE``,
    ``_STORE``, ``_CONFIGS_FROM``, ``_ISOLATE``, ``_CHECK`` and ``_QUIET`` take the place of the
    arguments; ``AUTOTUNE_RLM_DISABLE=1`` leaves everything to Triton's own autotuner.

    Example:
        >>> @rlm_autotune(
        ...     configs=ConfigSpace(BLOCK=[128, 256, 512, 1024], num_warps=[1, 2, 4, 8]),
        ...     key=["n"],
        ... )
        ... @triton.jit
        ... def scale(x, n, BLOCK: tl.constexpr): ...

    Returns:
        A decorator that makes an ``RLMAutotuner`` of a ``@triton.jit`` function.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of range, or names no argument of the kernel.
    """
    settings = Settings(
        budget=budget,
        budget_s=budget_s,
        mode=mode,
        surrogate=surrogate,
        store=store,
        device=device,
        seed=seed,
        configs_from=configs_from,
        isolate=isolate,
        check=check,
        quiet=quiet,
    )

    def decorator(fn: Any) -> RLMAutotuner:
        return RLMAutotuner(
            fn,
            fn.arg_names,
            configs,
            key,
            reset_to_zero,
            restore_value,
            settings=settings,
            pre_hook=pre_hook,
            post_hook=post_hook,
            prune_configs_by=prune_configs_by,
            warmup=warmup,
            rep=rep,
            use_cuda_graph=use_cuda_graph,
            do_bench=do_bench,
            cache_results=cache_results,
        )

    return decorator
