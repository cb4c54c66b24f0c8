"""``ConfigSpace``: every combination of some values that a constraint lets through.

Imports neither torch nor triton, so that a space can be described anywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import triton

__all__ = ["TRITON_OPTIONS", "ConfigSpace"]

TRITON_OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg")
"""Parameters that are Triton's own; all others are the kernel's ``tl.constexpr`` arguments."""

_MIN_SIZE = {"num_warps": 1, "num_stages": 0, "num_ctas": 1, "maxnreg": 1}
_MAX_DRAWS_PER_SAMPLE = 200
_MAX_ENUMERATED = 10**7

Constraint = Callable[[dict[str, Any]], bool]


class ConfigSpace:
    """The product of some values per parameter, less what the constraint rules out.

    Nothing is enumerated before it is asked for.

    Example:
        >>> space = ConfigSpace(
        ...     BLOCK_M=[32, 64, 128],
        ...     BLOCK_N=[32, 64, 128],
        ...     num_warps=[4, 8],
        ...     constraint=lambda c: c["BLOCK_M"] * c["BLOCK_N"] <= 8192,
        ... )
        >>> space.size
        16

    Args:
        constraint: Called with a configuration as a dictionary; true where it is allowed. A
            sequence of such functions allows what all of them allow.
        **parameters: Values by parameter name: ints, floats, strings, booleans or None.
            ``num_warps``, ``num_stages``, ``num_ctas`` and ``maxnreg`` are Triton's own options.

    Raises:
        TypeError: Values are not a sequence of scalars, or the constraint is not callable.
        ValueError: A parameter has no value or the same one twice, or there is no parameter.
    """

    def __init__(
        self,
        *,
        constraint: Constraint | Sequence[Constraint] | None = None,
        **parameters: Iterable[Any],
    ) -> None:
        if not parameters:
            raise ValueError("a ConfigSpace needs at least one parameter, such as num_warps=[4, 8]")
        self._parameters = {name: _checked(name, values) for name, values in parameters.items()}
        self._constraints = _constraints(constraint)

    @property
    def parameters(self) -> Mapping[str, tuple[Any, ...]]:
        """The values by parameter name, in the order given."""
        return dict(self._parameters)

    @property
    def product_size(self) -> int:
        """Number of combinations before the constraint."""
        return math.prod(len(values) for values in self._parameters.values())

    @cached_property
    def size(self) -> int:
        """Number of configurations; enumerates them once where there is a constraint."""
        return sum(1 for _ in self) if self._constraints else self.product_size

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        """True, without enumerating anything."""
        return True

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Configurations as dictionaries; the last parameter changes fastest."""
        for values in itertools.product(*self._parameters.values()):
            config = dict(zip(self._parameters, values, strict=True))
            if self._allows(config):
                yield config

    def __contains__(self, config: object) -> bool:
        return (
            isinstance(config, Mapping)
            and set(config) == set(self._parameters)
            and all(config[name] in values for name, values in self._parameters.items())
            and self._allows(dict(config))
        )

    def __repr__(self) -> str:
        values = ", ".join(f"{k}={list(v)}" for k, v in self._parameters.items())
        return f"ConfigSpace({values}{', constraint=...' if self._constraints else ''})"

    def configs(self) -> list[dict[str, Any]]:
        """All configurations.

        Raises:
            ValueError: The constraint allows none.
        """
        found = list(self)
        if not found:
            raise ValueError(
                f"the constraint allows none of the {self.product_size} combinations of {self!r}; "
                "relax it or add values"
            )
        return found

    def sample(self, n: int, *, seed: int = 0) -> list[dict[str, Any]]:
        """Up to ``n`` distinct configurations, uniformly at random.

        Fewer come back where fewer exist, or where a constraint on a huge space is so tight that
        drawing does not find them.

        Args:
            n: How many, at least 1.
            seed: Equal seeds give equal samples.

        Raises:
            ValueError: ``n`` is below 1, or the constraint allows none.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        rng = np.random.default_rng(seed)
        counts = [len(values) for values in self._parameters.values()]
        drawn: dict[tuple[int, ...], dict[str, Any]] = {}
        for _ in range(_MAX_DRAWS_PER_SAMPLE):
            for digits in map(tuple, rng.integers(counts, size=(n, len(counts))).tolist()):
                if digits not in drawn and self._allows(config := self._at(digits)):
                    drawn[digits] = config
                    if len(drawn) == n:
                        return list(drawn.values())
            if len(drawn) == self.product_size:
                break
        if self.product_size > _MAX_ENUMERATED and drawn:
            return list(drawn.values())
        found = self.configs()
        order = rng.permutation(len(found))[:n]
        return [found[i] for i in order]

    def to_triton(self) -> list[triton.Config]:
        """All configurations as ``triton.Config``, Triton's own options in their places.

        Raises:
            ValueError: The constraint allows none.
        """
        import triton

        return [
            triton.Config(
                {k: v for k, v in config.items() if k not in TRITON_OPTIONS},
                **{k: v for k, v in config.items() if k in TRITON_OPTIONS},
            )
            for config in self.configs()
        ]

    def _at(self, digits: tuple[int, ...]) -> dict[str, Any]:
        items = self._parameters.items()
        return {name: values[d] for (name, values), d in zip(items, digits, strict=True)}

    def _allows(self, config: dict[str, Any]) -> bool:
        try:
            return all(allows(config) for allows in self._constraints)
        except KeyError as error:
            raise ValueError(
                f"the constraint asked for {error}, which is no parameter of this space; "
                f"it has {', '.join(self._parameters)}"
            ) from error


def _checked(name: str, values: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(
            f"{name} must be a list of values, got {values!r}; write {name}=[{values!r}]"
        )
    found = tuple(values)
    if not found:
        raise ValueError(f"{name} has no values; give at least one, or leave {name} out")
    odd = [v for v in found if not (v is None or isinstance(v, (bool, int, float, str)))]
    if odd:
        raise TypeError(f"{name} has the value {odd[0]!r}; values must be numbers, strings or None")
    if len({(type(v), v) for v in found}) != len(found):
        raise ValueError(f"{name} has the same value twice: {list(found)}")
    if name in TRITON_OPTIONS:
        _check_option(name, found)
    return found


def _check_option(name: str, values: tuple[Any, ...]) -> None:
    smallest = _MIN_SIZE[name]
    for value in values:
        if value is None and name == "maxnreg":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
            raise ValueError(f"{name} must be an integer of at least {smallest}, got {value!r}")
        if name == "num_warps" and value & (value - 1):
            raise ValueError(f"num_warps must be a power of two, got {value}")


def _constraints(given: Any) -> tuple[Constraint, ...]:
    found = () if given is None else tuple(given) if isinstance(given, Sequence) else (given,)
    if isinstance(given, str) or not all(callable(c) for c in found):
        raise TypeError(
            f"constraint must be a function of a configuration (a dictionary), got {given!r}; "
            'write constraint=lambda c: c["BLOCK_M"] * c["BLOCK_N"] <= 16384'
        )
    return found
