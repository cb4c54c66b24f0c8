"""From a launch to a ``Task``, and from a ``triton.Config`` to a ``Candidate``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import triton

from autotune_rlm.types import Candidate, Device, Task

from ._source import constant_names, kernel_source, unwrap

__all__ = ["KernelTasks", "candidates_of", "describe", "dtype_name"]

_LAUNCH_ONLY = frozenset({"grid", "warmup", "stream"})
_MAX_ITEMS = 16
_MAX_TEXT = 200
_ALIGNMENT = 16
_DTYPES = {
    "float16": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "float64": "fp64",
    "bool": "i1",
    "int1": "i1",
    **{f"int{bits}": f"i{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"u{bits}" for bits in (8, 16, 32, 64)},
    "float8_e4m3fn": "fp8e4nv",
    "float8_e4m3fnuz": "fp8e4b8",
    "float8_e5m2": "fp8e5",
    "float8_e5m2fnuz": "fp8e5b16",
}


def dtype_name(dtype: Any) -> str:
    """Triton's short name of a dtype: ``torch.float16`` and ``tl.float16`` are ``"fp16"``."""
    name = str(dtype).rpartition(".")[2]
    return _DTYPES.get(name, name)


def describe(value: Any) -> Any:
    """A kernel argument as JSON.

    A tensor becomes ``{"dtype", "shape", "strides", "align"}``: strides in elements, ``align`` the
    largest power of two up to 16 that divides its address. Such a description is left as it is. Text
    is cut at 200 characters, sequences at 16 items.
    """
    value = getattr(value, "value", value) if type(value).__name__ == "constexpr" else value
    if isinstance(value, Mapping):
        return dict(value)
    if value is None or isinstance(value, (bool, str)):
        return value[:_MAX_TEXT] if isinstance(value, str) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if hasattr(value, "dtype"):
        return _tensor(value)
    if hasattr(value, "block_shape") and hasattr(value, "base"):
        return {**_tensor(value.base), "block": _ints(value.block_shape)}
    if type(value).__name__ == "dtype":
        return dtype_name(value)
    if hasattr(value, "__index__"):
        return int(value)
    if isinstance(value, (tuple, list)):
        return [describe(item) for item in value[:_MAX_ITEMS]]
    return str(getattr(value, "__name__", type(value).__name__))


def _tensor(tensor: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"dtype": dtype_name(tensor.dtype)}
    shape = getattr(tensor, "shape", None)
    if shape is not None:
        described["shape"] = _ints(shape)
    if callable(getattr(tensor, "stride", None)):
        described["strides"] = _ints(tensor.stride())
    if callable(getattr(tensor, "data_ptr", None)):
        described["align"] = _alignment(tensor)
    return described


def _alignment(tensor: Any) -> int:
    try:
        return math.gcd(int(tensor.data_ptr()), _ALIGNMENT)
    except Exception:  # a tensor without storage, such as torch.compile's fake ones
        return _ALIGNMENT


def _ints(values: Iterable[Any]) -> list[int]:
    return [int(v) for v in values]


class KernelTasks:
    """Builds the tasks of one kernel.

    Args:
        kernel: The decorated ``@triton.jit`` function.
        config_names: Parameters that the configurations set; they are no part of the problem.
    """

    def __init__(self, kernel: Any, config_names: Iterable[str]) -> None:
        self._function = unwrap(kernel).fn
        self._kernel = kernel
        self._config_names = frozenset(config_names)
        parameters = inspect.signature(self._function).parameters
        self._defaults = {
            name: parameter.default
            for name, parameter in parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        self._constants = constant_names(kernel)

    @property
    def kernel(self) -> Any:
        """The decorated function."""
        return self._kernel

    @property
    def name(self) -> str:
        """The kernel's name."""
        return str(self._function.__name__)

    def build(self, arguments: Mapping[str, Any], device: Device) -> Task:
        """The task of a launch with these arguments.

        Args:
            arguments: Values by name: the kernel's own, and launch options.
            device: Where it runs.
        """
        hidden = self._config_names | _LAUNCH_ONLY
        given = {**self._defaults, **arguments}
        return Task(
            kernel=self.name,
            device=device,
            problem={k: describe(v) for k, v in given.items() if k not in hidden},
            source=kernel_source(self._kernel),
            versions={"triton": ".".join(triton.__version__.split(".")[:2])},
        )

    @staticmethod
    def same_key(problem: Mapping[str, Any], other: Mapping[str, Any], key: Sequence[str]) -> bool:
        """Whether Triton would tune two problems only once.

        That is: the arguments named in ``key`` are equal and so are the dtypes of all tensors.
        """
        return _project(problem, key) == _project(other, key)

    def same_binaries(self, problem: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        """Whether Triton compiles equal binaries for two problems, for equal configurations.

        That is: constants and dtypes are equal, and integers and addresses are specialised alike.
        """
        if set(problem) != set(other):
            return False
        return all(
            problem[name] == other[name]
            if name in self._constants
            else _specialised(problem[name]) == _specialised(other[name])
            for name in problem
        )


def _specialised(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value.get("dtype"), value.get("align"), len(value.get("shape", ()))
    if isinstance(value, int) and not isinstance(value, bool):
        return "int", value == 1, value % _ALIGNMENT == 0, -(2**31) <= value < 2**31
    return value if isinstance(value, (bool, str)) else type(value)


def _project(problem: Mapping[str, Any], key: Sequence[str]) -> tuple[Any, ...]:
    dtypes = {k: v.get("dtype") for k, v in problem.items() if isinstance(v, Mapping)}
    return [problem.get(name) for name in key if name not in dtypes], dtypes


def candidates_of(configs: Sequence[triton.Config]) -> list[Candidate]:
    """One candidate per distinct configuration, in order; the payload is the ``triton.Config``."""
    found: dict[str, Candidate] = {}
    seen: set[Any] = set()
    for config in configs:
        if config in seen:
            continue
        seen.add(config)
        parameters = _parameters(config)
        candidate = Candidate(parameters, payload=config)
        while candidate.key in found:
            parameters["variant"] = parameters.get("variant", 0) + 1
            candidate = Candidate(dict(parameters), payload=config)
        found[candidate.key] = candidate
    return list(found.values())


def _parameters(config: triton.Config) -> dict[str, Any]:
    parameters = {name: describe(value) for name, value in config.kwargs.items()}
    parameters["num_warps"] = config.num_warps
    parameters["num_stages"] = config.num_stages
    if config.num_ctas not in (None, 1):
        parameters["num_ctas"] = config.num_ctas
    if config.maxnreg is not None:
        parameters["maxnreg"] = config.maxnreg
    if config.ir_override is not None:
        parameters["ir_override"] = config.ir_override
    return parameters
