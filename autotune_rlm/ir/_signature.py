"""What Triton's front end needs to know of a launch: types, constants, alignment, and scalars' values."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autotune_rlm.dtypes import dtype_name, short_name

_ALIGNMENT = 16
_SCALAR = re.compile(r"(?:[iu](?:1|8|16|32|64)|fp(?:16|32|64)|bf16|f32|f64)$")


class NotRead(Exception):
    """A kernel's IR was not read; the text says why."""


class Refused(NotRead):
    """Triton's front end does not take the kernel with these constants: it cannot be compiled."""


@dataclass(frozen=True)
class Signature:
    """A kernel's arguments as its front end sees them.

    Attributes:
        types: Type text by argument, such as ``"*fp16"``, ``"i32"``, ``"constexpr"``; a nested tuple
            of them for a tuple.
        constants: Values of the constants by their path: ``(3,)`` for the fourth argument,
            ``(3, 0)`` for the first item of a tuple there.
        divisible: What is known to divide an argument, by path.
        scalars: Values of the launch's scalars by argument.
        shapes: Shapes of tensors in elements by argument, where they are known.
    """

    types: dict[str, Any] = field(default_factory=dict)
    constants: dict[tuple[int, ...], Any] = field(default_factory=dict)
    divisible: dict[tuple[int, ...], int] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def binary_key(self) -> list[Any]:
        """What the IR depends on, as JSON; scalars that are no constants do not matter."""
        constants = sorted((list(path), _constant_text(v)) for path, v in self.constants.items())
        divisible = sorted((list(path), v) for path, v in self.divisible.items())
        return [{k: str(v) for k, v in self.types.items()}, constants, divisible]


def unwrapped(kernel: Any) -> Any:
    """The ``@triton.jit`` function inside of autotuners and heuristics.

    Raises:
        NotRead: There is none, or Triton's interpreter runs it.
    """
    while (
        not hasattr(kernel, "arg_names") or hasattr(kernel, "configs") or hasattr(kernel, "values")
    ):
        if not hasattr(kernel, "fn"):
            raise NotRead(f"{kernel!r} is no @triton.jit function")
        kernel = kernel.fn
    if not hasattr(kernel, "cache_key"):
        raise NotRead(
            "Triton's interpreter runs this kernel; unset TRITON_INTERPRET to read its IR"
        )
    return kernel


def missing_arguments(kernel: Any, arguments: Mapping[str, Any]) -> list[str]:
    """Arguments of a ``@triton.jit`` function that have neither a value nor a default."""
    empty = inspect.Parameter.empty
    return [p.name for p in kernel.params if arguments.get(p.name, p.default) is empty]


def with_heuristics(kernel: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, and what ``@triton.heuristics`` around the kernel says of those left out."""
    found = dict(arguments)
    while not hasattr(kernel, "cache_key") and hasattr(kernel, "fn"):
        for name, heuristic in getattr(kernel, "values", {}).items():
            if name not in found:
                found[name] = heuristic(dict(found))
        kernel = kernel.fn
    return found


def signature_of(kernel: Any, arguments: Mapping[str, Any]) -> Signature:
    """The signature of a launch.

    Args:
        kernel: A ``@triton.jit`` function.
        arguments: By name: a type text such as ``"*fp16"`` for a pointer aligned to 16 bytes, a
            number for a scalar, a constant's value; also a tensor, or a mapping with ``dtype`` and
            perhaps ``shape``, ``align`` and (for a tensor descriptor) ``block``. Arguments that are
            left out have their defaults; names that the kernel has not are ignored.

    Raises:
        NotRead: An argument is missing or of a kind that is not known.
    """
    if missing := missing_arguments(kernel, arguments):
        raise NotRead(f"no value for the argument(s) {', '.join(missing)} of {kernel.__name__}")
    found = Signature()
    for index, parameter in enumerate(kernel.params):
        name = parameter.name
        value = arguments.get(name, parameter.default)
        value = value.value if type(value).__name__ == "constexpr" else value
        if parameter.is_constexpr:
            found.types[name] = "constexpr"
            found.constants[(index,)] = value
        else:
            found.types[name] = _argument(found, parameter, (index,), name, value)
    return found


def _argument(
    found: Signature, parameter: Any, path: tuple[int, ...], name: str, value: Any
) -> Any:
    if isinstance(value, (tuple, list)):
        items = enumerate(value)
        return tuple(_argument(found, parameter, (*path, i), f"{name}.{i}", v) for i, v in items)
    if value is None or _is_dtype(value) or hasattr(value, "arg_names"):
        found.constants[path] = value
        return "constexpr"
    if isinstance(value, str):
        return _type_text(found, path, name, value)
    if isinstance(value, bool):
        found.scalars[name] = float(value)
        return getattr(parameter, "annotation_type", "") or "u1"
    if isinstance(value, (int, float)):
        return _number(found, parameter, path, name, value)
    return _tensor(found, path, name, value)


def _type_text(found: Signature, path: tuple[int, ...], name: str, text: str) -> str:
    text = text.strip()
    if text.startswith("*"):
        found.divisible[path] = _ALIGNMENT
        constant = "*k" if text.startswith("*k") else "*"
        item = text[len(constant) :]
        return constant + (short_name(item) or item)
    if text.startswith("tensordesc<") or _SCALAR.match(text):
        return short_name(text) or text
    raise NotRead(
        f"the argument {name} is {text!r}; write '*fp16' for a pointer, a number for a scalar"
    )


def _number(
    found: Signature, parameter: Any, path: tuple[int, ...], name: str, value: int | float
) -> str:
    declared = str(getattr(parameter, "annotation_type", "") or "")
    if isinstance(value, float):
        found.scalars[name] = value
        return declared or "fp32"
    found.scalars[name] = float(value)
    if declared.startswith(("fp", "bf")):
        return declared
    specialised = not getattr(parameter, "do_not_specialize", False)
    if specialised and value == 1:
        found.constants[path] = 1
        return "constexpr"
    aligned = not getattr(parameter, "do_not_specialize_on_alignment", False)
    if specialised and aligned and value % _ALIGNMENT == 0:
        found.divisible[path] = _ALIGNMENT
    if declared:
        return declared
    if -(2**31) <= value < 2**31:
        return "i32"
    return "i64" if value < 2**63 else "u64"


def _tensor(found: Signature, path: tuple[int, ...], name: str, value: Any) -> str:
    about = value if isinstance(value, Mapping) else _described(value)
    dtype = dtype_name(about.get("dtype", ""))
    if short_name(dtype) is None:
        raise NotRead(f"the argument {name} is {value!r}, which no kernel takes")
    shape = about.get("shape")
    if shape is not None and all(isinstance(n, int) for n in shape):
        found.shapes[name] = tuple(shape)
    if about.get("block"):
        _note_descriptor(found, name, about)
        return f"tensordesc<{dtype}[{', '.join(str(int(n)) for n in about['block'])}]>"
    if about.get("align", _ALIGNMENT) % _ALIGNMENT == 0:
        found.divisible[path] = _ALIGNMENT
    return f"*{dtype}"


def _note_descriptor(found: Signature, name: str, about: Mapping[str, Any]) -> None:
    """Sizes and strides of a tensor descriptor, which the compiled function takes as numbers."""
    shape = found.shapes.get(name, ())
    strides = about.get("strides") or [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    for i, (size, stride) in enumerate(zip(shape, strides, strict=False)):
        found.scalars[f"{name}.size.{i}"] = float(size)
        found.scalars[f"{name}.stride.{i}"] = float(stride)


def _described(value: Any) -> dict[str, Any]:
    base = getattr(value, "base", None) if hasattr(value, "block_shape") else None
    if base is not None:
        return {"dtype": base.dtype, "shape": _ints(base.shape), "block": _ints(value.block_shape)}
    about: dict[str, Any] = {"dtype": getattr(value, "dtype", "")}
    if hasattr(value, "shape"):
        about["shape"] = _ints(value.shape)
    if callable(getattr(value, "data_ptr", None)):
        try:
            about["align"] = _ALIGNMENT if value.data_ptr() % _ALIGNMENT == 0 else 1
        except RuntimeError:  # a tensor without storage
            about["align"] = _ALIGNMENT
    return about


def _ints(values: Any) -> list[int]:
    return [int(v) for v in values]


def _is_dtype(value: Any) -> bool:
    return type(value).__module__ == "triton.language.core" and type(value).__name__ == "dtype"


def _constant_text(value: Any) -> str:
    key = getattr(value, "cache_key", None)
    return str(key) if isinstance(key, str) else repr(value)
