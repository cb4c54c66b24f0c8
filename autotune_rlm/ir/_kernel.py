"""Facts of a kernel: the front end, the parser and the walk in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ._frontend import DEFAULT_TARGET, first_ir
from ._parse import parse_module
from ._signature import NotRead, Signature, signature_of, unwrapped
from ._types import KernelFacts
from ._walk import Walk

Grid = Sequence[int] | Callable[[Mapping[str, Any]], Sequence[int]]


def kernel_facts(
    kernel: Any,
    arguments: Mapping[str, Any],
    *,
    grid: Grid,
    target: str = DEFAULT_TARGET,
) -> KernelFacts:
    """What one launch of a kernel does, read from its TTIR.

    No GPU is needed. The result depends neither on ``num_warps`` nor on ``num_stages``.

    Args:
        kernel: A ``@triton.jit`` function, decorated further or not.
        arguments: By name: a type text such as ``"*fp16"`` for a pointer aligned to 16 bytes, a
            number for a scalar, a constant's value; also a tensor, or a mapping with ``dtype`` and
            perhaps ``shape`` and ``align``. What is left out has its default.
        grid: Programs along up to three axes, or a function of all arguments.
        target: What the front end is told that it compiles for.

    Raises:
        NotRead: Triton's front end refuses the kernel, an argument is missing, or it is a Gluon
            kernel.
    """
    jit = unwrapped(kernel)
    signature = signature_of(jit, arguments)
    text = first_ir(jit, signature, target)
    return facts_of_ir(text, signature, as_grid(grid, arguments))


def read_ir(kernel: Any, arguments: Mapping[str, Any], *, target: str = DEFAULT_TARGET) -> str:
    """The text of the kernel's TTIR, for arguments as ``kernel_facts`` takes them.

    Raises:
        NotRead: As ``kernel_facts``.
    """
    jit = unwrapped(kernel)
    return first_ir(jit, signature_of(jit, arguments), target)


def facts_of_ir(text: str, signature: Signature, grid: tuple[int, int, int]) -> KernelFacts:
    """Facts from the text of a TTIR module."""
    return walk_of(text, signature, grid).facts()


def walk_of(text: str, signature: Signature, grid: tuple[int, int, int]) -> Walk:
    """A walk through the kernel of a TTIR module."""
    functions = parse_module(text)
    kernels = [f for f in functions.values() if f.is_kernel]
    if not kernels:
        raise NotRead("the IR holds no kernel")
    return Walk(
        kernels[0],
        functions,
        arguments=list(_leaves(signature.types)),
        scalars=signature.scalars,
        shapes=signature.shapes,
        grid=grid,
    )


def as_grid(grid: Grid, arguments: Mapping[str, Any]) -> tuple[int, int, int]:
    """The three numbers of a launch grid.

    Raises:
        ValueError: A number is below one, or there are more than three.
    """
    given = grid(arguments) if callable(grid) else grid
    numbers = [int(n) for n in ((given,) if isinstance(given, int) else given)]
    if not 1 <= len(numbers) <= 3 or min(numbers) < 1:
        raise ValueError(f"grid must be one to three positive numbers, got {tuple(numbers)}")
    x, y, z = (*numbers, 1, 1)[:3]
    return (x, y, z)


def _leaves(types: Mapping[str, Any]) -> list[str]:
    """Names of the arguments that the compiled function has.

    Items of a tuple are arguments one by one. A tensor descriptor of rank r is 1 + 2 r of them: itself,
    its sizes, its strides.
    """
    found: list[str] = []
    for name, kind in types.items():
        if isinstance(kind, tuple):
            found += _leaves({f"{name}.{i}": k for i, k in enumerate(kind)})
        elif kind != "constexpr":
            found.append(name)
            if kind.startswith("tensordesc<"):
                rank = kind.count(",") + 1
                found += [f"{name}.size.{i}" for i in range(rank)]
                found += [f"{name}.stride.{i}" for i in range(rank)]
    return found
