"""The decorators around a ``@triton.jit`` function, such as autotuners and heuristics."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any


def layers(kernel: Any) -> Iterator[Any]:
    """A kernel's decorators, the outermost first, and its ``@triton.jit`` function, else TypeError."""
    inner = kernel
    while not inspect.isfunction(getattr(inner, "fn", None)):
        if not hasattr(inner, "fn"):
            raise TypeError(
                f"expected a @triton.jit function, got {kernel!r}; put @triton.jit under the decorator"
            )
        yield inner
        inner = inner.fn
    yield inner


def unwrap(kernel: Any) -> Any:
    """The ``@triton.jit`` function inside of decorators; raises as ``layers``."""
    return [*layers(kernel)][-1]


def heuristics_of(kernel: Any) -> Iterator[Mapping[str, Any]]:
    """Functions by argument of each ``@triton.heuristics`` of a kernel, the outermost first."""
    for layer in layers(kernel):
        if isinstance(values := getattr(layer, "values", None), Mapping):
            yield values


def with_heuristics(kernel: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, all arguments by name, and what ``@triton.heuristics`` of ``kernel`` add."""
    given = dict(given)
    for values in heuristics_of(kernel):
        for name, heuristic in values.items():
            given[name] = heuristic(dict(given))
    return given
