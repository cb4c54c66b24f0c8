"""The cached launch: from arguments to the chosen configuration with as little Python as possible.

Triton's autotuner builds two dictionaries and asks every argument for a dtype on every launch. Which
arguments are in the key and which have a dtype depends on their types alone, so it is worked out once
per combination of types (a ``LaunchShape``) and the rest is C code of ``operator`` and ``tuple``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import triton

_dtype_of = operator.attrgetter("dtype")


class Choice(NamedTuple):
    """What a launch needs of a configuration."""

    config: triton.Config
    options: dict[str, Any]
    pre_hook: Callable[[dict[str, Any]], Any] | None

    @classmethod
    def of(cls, config: triton.Config) -> Choice:
        return cls(config, config.all_kwargs(), config.pre_hook)


class LaunchShape:
    """Where the key and the dtypes are in the arguments of one combination of types.

    ``choices`` by key are emptied when the autotuner's cache is changed from outside.
    """

    __slots__ = ("_dtyped", "_keyed", "_named_dtyped", "_named_keyed", "choices")

    def __init__(
        self,
        arg_names: Sequence[str],
        keys: Sequence[str],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> None:
        positions = {name: i for i, name in enumerate(arg_names[: len(args)])}
        named = [name for name in kwargs if name in set(arg_names) - set(positions)]
        self._keyed = _getter([positions[k] for k in keys if k in positions])
        self._named_keyed = tuple(k for k in keys if k in named)
        self._dtyped = _getter([i for i in positions.values() if hasattr(args[i], "dtype")])
        self._named_dtyped = tuple(k for k in named if hasattr(kwargs[k], "dtype"))
        self.choices: dict[Hashable, Choice] = {}

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        """What the choice depends on: equal keys, equal choices."""
        key = (self._keyed(args), *map(_dtype_of, self._dtyped(args)))
        if self._named_keyed or self._named_dtyped:
            return (
                key,
                *[kwargs[name] for name in self._named_keyed],
                *[kwargs[name].dtype for name in self._named_dtyped],
            )
        return key


def _getter(positions: list[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    if not positions:
        return lambda args: ()
    if positions == list(range(positions[0], positions[-1] + 1)):
        return operator.itemgetter(slice(positions[0], positions[-1] + 1))
    return operator.itemgetter(*positions)


def triton_key(
    arg_names: Sequence[str], keys: Sequence[str], arguments: Mapping[str, Any]
) -> tuple[Any, ...]:
    """The key under which Triton's autotuner caches a choice: key arguments, then all dtypes."""
    own = {name: value for name, value in arguments.items() if name in arg_names}
    key = [own[name] for name in keys if name in own]
    key += [str(value.dtype) for value in own.values() if hasattr(value, "dtype")]
    return tuple(key)


class CacheDict(dict[Any, Any]):
    """A dictionary that reports changes of what it held, so that faster copies can be dropped."""

    def __init__(self, changed: Callable[[], None], *args: Any) -> None:
        super().__init__(*args)
        self._changed = changed

    def __setitem__(self, key: Any, value: Any) -> None:
        is_new = key not in self
        super().__setitem__(key, value)
        if not is_new:  # of a new key there are no copies
            self._changed()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy elsewhere is a plain dictionary."""
        return dict, (dict(self),)


def _reporting(name: str) -> Callable[..., Any]:
    original = getattr(dict, name)

    def method(self: CacheDict, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        finally:
            self._changed()

    method.__name__ = name
    method.__doc__ = original.__doc__
    return method


for _name in (
    "__delitem__", "__ior__", "clear", "pop", "popitem", "update",
):  # fmt: skip
    setattr(CacheDict, _name, _reporting(_name))
