"""Pruning that ``torch.compile`` can trace.

Dynamo does not launch an autotuned kernel. It reads ``early_config_prune``, ``perf_model`` and
``configs_top_k`` and traces them, so what it reads must be plain Python on the arguments, with the
model behind one call whose result is a constant of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx.experimental import symbolic_shapes

from autotune_rlm.dtypes import dtype_name

_UNKNOWN_SIZE = 4096  # where a size follows from the data: one that is common

Choose = Callable[[dict[str, Any], "list[dict[str, Any]]"], Sequence[int]]


def traceable_prune(choose: Choose, prune: Callable[..., Any] | None) -> Callable[..., list[Any]]:
    """An ``early_config_prune`` that prunes with the user's own, then keeps the indices that are chosen.

    ``choose`` gets arguments by name, tensors described as ``{"dtype", "shape", "strides"}``, and the
    configurations' ``all_kwargs()``.
    """
    known, is_static = _questions()

    @torch._dynamo.assume_constant_result
    def chosen(
        scalars: tuple[tuple[str, Any], ...],
        tensors: tuple[tuple[Any, ...], ...],
        configs: tuple[tuple[tuple[str, Any], ...], ...],
    ) -> tuple[int, ...]:
        arguments: dict[str, Any] = dict(scalars)
        for name, dtype, shape, strides in tensors:
            arguments[name] = described = {"dtype": dtype_name(dtype), "align": 16}
            if shape is not None and strides is not None:
                described |= {"shape": list(shape), "strides": list(strides)}
        return tuple(choose(arguments, [dict(config) for config in configs]))

    def plain(value: Any) -> Any:
        """A number of a configuration, which ``torch.compile(dynamic=True)`` makes a symbol."""
        if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
            size = known((value,))
            return value if size is None else size[0]
        return value

    def early_config_prune(
        configs: Sequence[Any], named_args: dict[str, Any], **kwargs: Any
    ) -> list[Any]:
        if prune is not None:
            configs = prune(configs, named_args, **kwargs)
        scalars: list[tuple[str, Any]] = []
        tensors: list[tuple[Any, ...]] = []
        for name, value in {**named_args, **kwargs}.items():
            if isinstance(value, torch.Tensor):
                tensors.append((name, value.dtype, known(value.shape), known(value.stride())))
            elif isinstance(value, float):
                if is_static(value):
                    scalars.append((name, value))
            elif isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
                size = known((value,))
                if size is not None:
                    scalars.append((name, size[0]))
            elif value is None or isinstance(value, (bool, str, torch.dtype)):
                scalars.append((name, value))
        described = tuple(
            [tuple([(k, plain(v)) for k, v in c.all_kwargs().items()]) for c in configs]
        )
        return [configs[i] for i in chosen(tuple(scalars), tuple(tensors), described)]

    return early_config_prune


def _questions() -> tuple[Callable[..., tuple[int, ...] | None], Callable[[Any], bool]]:
    """What can be asked of sizes in a trace: their values here, and whether a number is a constant.

    Without a guard on the answer, which would compile once for each size. What this torch cannot
    trace is answered by "unknown".
    """
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    traced = TorchInGraphFunctionVariable._get_handlers()
    hint: Any = getattr(symbolic_shapes, "optimization_hint", None)
    static = symbolic_shapes.has_static_value

    def hinted(sizes: Sequence[Any]) -> tuple[int, ...] | None:
        return tuple([hint(size, _UNKNOWN_SIZE) for size in sizes])

    def constants(sizes: Sequence[Any]) -> tuple[int, ...] | None:
        return tuple(sizes) if all([static(size) for size in sizes]) else None

    def nothing(sizes: Sequence[Any]) -> tuple[int, ...] | None:
        return None

    if static not in traced:
        return nothing, lambda number: False
    return (hinted if hint in traced else constants), static
