"""Pruning that ``torch.compile`` can trace.

Dynamo does not launch an autotuned kernel. It reads ``early_config_prune``, ``perf_model`` and
``configs_top_k`` and traces them, so what it reads must be plain Python on the arguments, with the
model behind one call whose result is a constant of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ._task import dtype_name

__all__ = ["traceable_prune"]

Choose = Callable[[dict[str, Any], "list[dict[str, Any]]"], Sequence[int]]


def traceable_prune(choose: Choose, prune: Callable[..., Any] | None) -> Callable[..., list[Any]]:
    """An ``early_config_prune`` that prunes with ``prune`` and then keeps what ``choose`` chooses.

    Args:
        choose: From arguments by name, tensors described as ``{"dtype", "shape", "strides"}``, and
            the configurations' ``all_kwargs()`` to the indices to keep, in order.
        prune: The user's own, or None.
    """

    @torch._dynamo.assume_constant_result
    def chosen(
        scalars: tuple[tuple[str, Any], ...],
        tensors: tuple[tuple[Any, ...], ...],
        configs: tuple[tuple[tuple[str, Any], ...], ...],
    ) -> tuple[int, ...]:
        arguments: dict[str, Any] = dict(scalars)
        for name, dtype, shape, strides in tensors:
            arguments[name] = {
                "dtype": dtype_name(dtype),
                "shape": list(shape),
                "strides": list(strides),
                "align": 16,
            }
        return tuple(choose(arguments, [dict(config) for config in configs]))

    def early_config_prune(
        configs: Sequence[Any], named_args: dict[str, Any], **kwargs: Any
    ) -> list[Any]:
        if prune is not None:
            configs = prune(configs, named_args, **kwargs)
        scalars, tensors = [], []
        for name, value in {**named_args, **kwargs}.items():
            if isinstance(value, torch.Tensor):
                tensors.append((name, value.dtype, tuple(value.shape), tuple(value.stride())))
            elif value is None or isinstance(value, (bool, int, float, str)):
                scalars.append((name, value))
        described = tuple([tuple(config.all_kwargs().items()) for config in configs])
        return [configs[i] for i in chosen(tuple(scalars), tuple(tensors), described)]

    return early_config_prune
