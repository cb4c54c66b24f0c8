"""From a launch to a ``Task``, and from a ``triton.Config`` to a ``Candidate``."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import triton

from autotune_rlm.dtypes import dtype_name
from autotune_rlm.measure.triton.layers import heuristics_of, unwrap, with_heuristics
from autotune_rlm.types import Candidate, Device, Task, digest

from ._identity import compiler_versions, function_key
from ._source import constant_names, kernel_source

_LAUNCH_ONLY = frozenset({"grid", "warmup", "stream"})
_MAX_ITEMS = 16
_MAX_TEXT = 200
_ALIGNMENT = 16


def describe(value: Any) -> Any:
    """A kernel argument as JSON; different ones have different descriptions.

    A tensor becomes ``{"dtype", "shape", "strides", "align"}``: strides in elements, ``align`` the
    largest power of two up to 16 that divides its address. A function is its name and a digest of its
    source. Such descriptions are left as they are. Of text beyond 200 characters and of sequences
    beyond 16 items the rest is a digest.
    """
    value = getattr(value, "value", value) if type(value).__name__ == "constexpr" else value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, str) and not isinstance(value, Enum):
        short = len(value) <= _MAX_TEXT
        return str(value) if short else f"{value[:_MAX_TEXT]}... {digest(value)}"
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.generic):
        return describe(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if hasattr(value, "block_shape") and hasattr(value, "base"):
        return _descriptor(value)
    if type(value).__name__ == "dtype":
        return dtype_name(value)
    if hasattr(value, "dtype"):
        return _tensor(value)
    if inspect.isfunction(getattr(value, "fn", None)):
        return f"{value.fn.__name__}:{digest(kernel_source(value))}"
    if hasattr(value, "__index__"):
        return int(value)
    if isinstance(value, (tuple, list)):
        items = [describe(item) for item in value]
        rest = items[_MAX_ITEMS:]
        return [*items[:_MAX_ITEMS], f"and {len(rest)} more: {digest(rest)}"] if rest else items
    if isinstance(value, Enum):
        return str(value)
    if inspect.isfunction(value):
        return function_key(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return [type(value).__name__, *([name, describe(item)] for name, item in fields)]
    return str(getattr(value, "__name__", type(value).__name__))


def _descriptor(value: Any) -> dict[str, Any]:
    """A tensor descriptor: as a tensor, of the descriptor's own shape and strides, with ``block``."""
    described = {**_tensor(value.base), "block": _ints(value.block_shape)}
    for name in ("shape", "strides"):
        if (sizes := getattr(value, name, None)) is not None:
            described[name] = _ints(sizes)
    for name in ("padding", "layout"):
        if (option := getattr(value, name, None)) not in (None, "zero"):
            described[name] = str(option)
    return described


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
        key: Arguments that a choice depends on, as in ``triton.autotune``.
        default: A configuration to ask the grid with.
        functions: The user's, by name, that what is measured depends on: a benchmark, hooks.
        blocks_vary: Whether configurations set the blocks of tensor descriptors, in their hooks.
    """

    def __init__(
        self,
        kernel: Any,
        config_names: Iterable[str],
        *,
        key: Sequence[str] = (),
        default: triton.Config | None = None,
        functions: Mapping[str, Any] | None = None,
        blocks_vary: bool = False,
    ) -> None:
        self._function = unwrap(kernel).fn
        self._kernel = kernel
        self._config_names = frozenset(config_names)
        self._key = tuple(key)
        self._default = default
        parameters = inspect.signature(self._function).parameters
        self._defaults = {
            name: parameter.default
            for name, parameter in parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        self._constants = frozenset(constant_names(kernel))
        self._heuristics = _digest_of(
            {
                f"{depth} {name}": heuristic
                for depth, values in enumerate(heuristics_of(kernel))
                for name, heuristic in values.items()
            }
        )
        self._functions = _digest_of(functions or {})
        self._blocks_vary = blocks_vary

    @classmethod
    def of(cls, autotuner: Any, configs: Sequence[triton.Config]) -> KernelTasks:
        """Those of an autotuner's launches."""
        functions: dict[str, Any] = {}
        if autotuner._do_bench is not None:
            functions["do_bench"] = autotuner._do_bench
        for name in ("pre_hook", "post_hook"):
            if getattr(autotuner, f"user_defined_{name}", False):
                functions[name] = getattr(autotuner, name)
        hooks = {id(c.pre_hook): c.pre_hook for c in configs if c.pre_hook is not None}
        functions |= {f"Config.pre_hook {i}": hook for i, hook in enumerate(hooks.values())}
        return cls(
            autotuner.fn,
            {name for config in configs for name in config.kwargs},
            key=autotuner.keys,
            default=configs[0],
            functions=functions,
            blocks_vary=bool(hooks),
        )

    @property
    def kernel(self) -> Any:
        """The decorated function."""
        return self._kernel

    @property
    def name(self) -> str:
        """The kernel's name."""
        return str(self._function.__name__)

    @property
    def file(self) -> str:
        """The file that defines the kernel."""
        return str(self._function.__code__.co_filename)

    def build(self, arguments: Mapping[str, Any], device: Device) -> Task:
        """The task of a launch with these arguments and launch options, by name."""
        hidden = self._config_names | _LAUNCH_ONLY
        given = {**self._defaults, **arguments}
        problem = {k: describe(v) for k, v in given.items() if k not in hidden}
        if self._blocks_vary:
            for described in problem.values():
                if isinstance(described, dict):
                    described.pop("block", None)
        grid = None if arguments.get("warmup") else self._grid(given)
        if grid is not None:
            problem["grid"] = grid
        return self.of_problem(problem, device)

    def of_problem(self, problem: Mapping[str, Any], device: Device) -> Task:
        """The task of a problem: described arguments by name."""
        source = kernel_source(self._kernel)
        compiler = compiler_versions()
        if self._heuristics:
            compiler["heuristics"] = self._heuristics
        versions = {**compiler, **({"functions": self._functions} if self._functions else {})}
        task = Task(
            kernel=self.name, device=device, problem=dict(problem), source=source, versions=versions
        )
        program = [self.name, source, device.name]
        in_binary = {n: self._in_binary(n, v) for n, v in task.problem.items() if n != "grid"}
        in_choice = {n: self._in_choice(n, v) for n, v in task.problem.items()}
        return dataclasses.replace(
            task,
            binary=digest([*program, compiler, in_binary]),
            like=digest([*program, versions, in_choice, self._keyed(task.problem)]),
        )

    def _in_binary(self, name: str, value: Any) -> Any:
        """What Triton compiles an argument into."""
        if name in self._constants:
            return ["constant", value]
        if isinstance(value, Mapping):
            exact = {k: v for k, v in value.items() if k not in ("shape", "strides")}
            return {**exact, "rank": len(value.get("shape", ()))}
        if isinstance(value, list):
            return [self._in_binary("", item) for item in value]
        if isinstance(value, int) and not isinstance(value, bool):
            return [*_size_class(value), value % _ALIGNMENT == 0]
        return "float" if isinstance(value, float) else value

    def _in_choice(self, name: str, value: Any) -> Any:
        """What has to be equal for one choice to serve two problems: all but sizes."""
        if name == "grid":
            return len(value)
        if name in self._constants:
            return ["constant", value]
        if isinstance(value, Mapping):
            strides = [_size_class(stride) for stride in value.get("strides", ())]
            return {**self._in_binary("", value), "strides": strides}
        if isinstance(value, list):
            return [self._in_choice("", item) for item in value]
        if isinstance(value, int) and not isinstance(value, bool):
            return _size_class(value)
        return "float" if isinstance(value, float) else value

    def _keyed(self, problem: Mapping[str, Any]) -> list[Any]:
        """What Triton's autotuner would tune again for, apart from the dtypes of tensors."""
        values = (problem.get(name) for name in self._key)
        return [None if isinstance(value, Mapping) else value for value in values]

    def _grid(self, given: Mapping[str, Any]) -> list[int] | None:
        """The launch grid of the default configuration; None where it cannot be told."""
        grid = given.get("grid")
        try:
            if callable(grid):
                default = {} if self._default is None else self._default.all_kwargs()
                grid = grid(with_heuristics(self._kernel, {**given, **default}))
            return None if grid is None else [int(size) for size in grid]
        except Exception:  # the launch will say what is wrong, as it does under Triton
            return None


def _digest_of(functions: Mapping[str, Any]) -> str:
    return digest({n: function_key(f) for n, f in functions.items()}) if functions else ""


def _size_class(value: int) -> list[Any]:
    bits = 32 if -(2**31) <= value < 2**31 else 64
    return [bits, value if value in (0, 1) else "negative" if value < 0 else "positive"]


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
