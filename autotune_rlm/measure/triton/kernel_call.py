"""A Triton launch as JSON: kernel source location, arguments, grid. The workload of an isolated run.

call = KernelCall(
    file="add.py",
    function="add_kernel",
    args={
        "x": {"dtype": "fp32", "shape": [4096], "fill": "normal"},
        "y": {"dtype": "fp32", "shape": [4096], "fill": "empty"},
        "n": 4096,
    },
    grid=["cdiv(n, BLOCK)"],
    outputs=["y"],
)
measurer = IsolatedMeasurer(call.workload(), pool=CompilePool())
"""

from __future__ import annotations

import ast
import inspect
import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autotune_rlm._checks import check_all, check_type
from autotune_rlm.dtypes import TORCH_NAMES
from autotune_rlm.measure.statistics.device_timers import accelerator
from autotune_rlm.measure.statistics.timing import Call
from autotune_rlm.types import canonical_json

from ._kernel_source import file_sha256, load_kernel
from .isolated import Workload
from .job import Job
from .layers import unwrap

DTYPES = TORCH_NAMES

FACTORY = "autotune_rlm.measure.triton.kernel_call:bench"
"""The factory of every ``KernelCall``'s workload."""
DATA_ONLY = ("i8", "u8")
"""Integer dtypes whose values are taken for data, such as quantised weights, and made up."""

_SMALL_TENSOR = 4096
_OPERATORS: Mapping[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "cdiv": lambda a, b: -(-a // b),
    "min": min,
    "max": max,
    "prod": lambda *values: math.prod(values),
}


@dataclass(frozen=True, kw_only=True)
class KernelCall:
    """One launch of a kernel at the top level of a file.

    Attributes:
        file: Python file that defines the kernel.
        function: Its name.
        module: Dotted name of the file's module; needed where the file has relative imports.
        args: Every argument that is not of the configuration: a scalar, or a tensor as ``{"dtype",
            "shape", "strides", "fill", "low", "high", "seed"}``; all but the first two may be left
            out. ``fill`` is ``normal``, ``uniform`` (in [0, 1)), ``randint`` (in [low, high)),
            ``arange``, ``zeros``, ``ones`` or ``empty``; a list ``values`` goes before it.
            ``align`` below 16 puts the tensor at such an address.
        grid: One to three expressions over arguments and configuration, with ``+ - * // % **``,
            ``cdiv``, ``min``, ``max`` and ``prod``.
        outputs: Tensors that the kernel writes. They are filled anew before the launch that is
            compared (``empty`` ones with NaN or the largest integer).
        reset: Tensors that must be filled anew before every launch, such as those it adds to.
        device: torch device; None for the current accelerator, or the CPU where there is none.
        launches: ``{"config", "grid", "constants"}`` of single configurations, with the sizes of
            the grid as numbers and further arguments; they go before ``grid``.
        source_key: ``JITFunction.cache_key`` that the kernel in the file must have; empty for any.
        sha256: Of the file (``hashlib.sha256``, hexadecimal); another file is not executed. Empty for
            any.
    """

    file: str
    function: str
    args: Mapping[str, Any]
    grid: Sequence[str]
    outputs: Sequence[str] = ()
    reset: Sequence[str] = ()
    module: str = ""
    device: str | None = None
    launches: Sequence[Mapping[str, Any]] = ()
    source_key: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        check_all("grid", self.grid, str, hint="an expression such as 'cdiv(n, BLOCK)'")
        check_type("args", self.args, Mapping)
        if not 1 <= len(self.grid) <= 3 and not self.launches:
            raise ValueError(f"grid must have one to three expressions, got {list(self.grid)!r}")
        unknown = [n for n in (*self.outputs, *self.reset) if n not in self.args]
        if unknown:
            raise ValueError(f"outputs and reset name {unknown}, which args does not have")

    def workload(self) -> Workload:
        """What ``IsolatedMeasurer`` runs."""
        return Workload(factory=FACTORY, arguments=asdict(self))


def bench(**description: Any) -> Callable[[dict[str, Any]], Job]:
    """The factory of ``KernelCall``'s workload: makes the arguments, gives a job per configuration."""
    from ._compile_worker import decode_value
    from .capture import describe_call

    call = KernelCall(**description)
    kernel = load_kernel(call.file, call.function, call.module, call.sha256)
    if call.source_key and getattr(kernel, "cache_key", call.source_key) != call.source_key:
        raise RuntimeError(f"{call.function} in {call.file} has changed since it was noted")
    device = call.device or accelerator() or "cpu"
    described = {
        name: value
        for name, value in call.args.items()
        if isinstance(value, Mapping) and "shape" in value
    }
    args = {
        name: make_tensor(value, device) if name in described else decode_value(value)
        for name, value in call.args.items()
    }
    launches = {canonical_json(launch["config"]): launch for launch in call.launches}
    initial = {name: args[name].clone() for name in {*call.reset, *call.outputs}}
    for name, tensor in initial.items():
        if described[name].get("fill", "normal") == "empty":
            _scramble(tensor)

    def restore(names: Sequence[str]) -> None:
        for name in names:
            args[name].copy_(initial[name])

    scalars = {p.name for p in getattr(kernel, "params", ()) if not p.is_constexpr}

    def make(config: dict[str, Any]) -> Job:
        launch = launches.get(canonical_json(config))
        if launch is not None:
            grid = tuple(launch["grid"])
            constants = {k: decode_value(v) for k, v in launch.get("constants", {}).items()}
            config = {**config, **constants}
        else:
            grid = evaluate_grid(call.grid, {**args, **config})
        return Job(
            Call(
                run=lambda: kernel[grid](**args, **config),
                setup=(lambda: restore(call.reset)) if call.reset else None,
            ),
            outputs=(lambda: {name: args[name] for name in call.outputs}) if call.outputs else None,
            prepare=lambda: restore(call.outputs),
            spec=lambda: describe_call(kernel, (), {**args, **config}),
            grid=None if scalars & set(config) else grid,  # one binary may run differently
        )

    return make


def make_tensor(described: Mapping[str, Any], device: Any) -> Any:
    """The tensor that a description says, such as ``{"dtype": "fp16", "shape": [8, 8]}``."""
    import torch

    name, shape = described["dtype"], tuple(described["shape"])
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {name!r}")
    dtype = getattr(torch, DTYPES[name])
    generator = torch.Generator(device=device).manual_seed(int(described.get("seed", 0)))
    fill = described.get("fill", "normal" if dtype.is_floating_point else "zeros")
    if "values" in described:
        values = torch.tensor(described["values"], device=device).reshape(shape)
    elif fill == "normal":
        values = torch.randn(shape, device=device, generator=generator)
    elif fill == "uniform":
        values = torch.rand(shape, device=device, generator=generator)
    elif fill == "randint":
        low, high = int(described.get("low", 0)), int(described["high"])
        kind = torch.int64 if dtype.is_floating_point else dtype
        values = torch.randint(low, high, shape, device=device, generator=generator, dtype=kind)
    elif fill == "arange":
        values = torch.arange(math.prod(shape), device=device).reshape(shape)
    elif fill in ("zeros", "empty", "ones"):
        values = torch.full(shape, float(fill == "ones"), device=device)
    else:
        raise ValueError(
            f"fill must be normal, uniform, randint, arange, zeros, ones or empty, got {fill!r}"
        )
    values = values.to(dtype)
    strides = tuple(described.get("strides") or values.stride())
    offset = int(described.get("align", 16)) % 16 // values.element_size()
    if strides == values.stride() and not offset:
        return values
    reach = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    size = offset + (1 + reach if values.numel() else 0)
    storage = torch.zeros(size, dtype=dtype, device=device)
    return storage.as_strided(shape, strides, offset).copy_(values)


def evaluate_grid(grid: Sequence[str], names: Mapping[str, Any]) -> tuple[int, ...]:
    """The launch grid that the expressions give; nothing else is evaluated.

    ValueError where one has something other than numbers, names and the known operators, or gives no
    positive integer.
    """
    sizes = []
    for text in grid:
        try:
            size = _evaluate(ast.parse(text, mode="eval").body, names)
        except (SyntaxError, KeyError, TypeError, ZeroDivisionError) as error:
            raise ValueError(f"cannot evaluate the grid {text!r}: {error!r}") from None
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"the grid {text!r} must give a positive integer, got {size!r}")
        sizes.append(size)
    return tuple(sizes)


class NotRepeatableError(ValueError):
    """Another process could not repeat a launch; the message says why."""


def note_launch(
    kernel: Any,
    arguments: Mapping[str, Any],
    launches: Sequence[tuple[Mapping[str, Any], Sequence[int], Mapping[str, Any]]],
    *,
    reset: Sequence[str] = (),
) -> KernelCall | None:
    """``describe_launch``, or None where another process could not repeat the launch."""
    try:
        return describe_launch(kernel, arguments, launches, reset=reset)
    except NotRepeatableError:
        return None


def describe_launch(
    kernel: Any,
    arguments: Mapping[str, Any],
    launches: Sequence[tuple[Mapping[str, Any], Sequence[int], Mapping[str, Any]]],
    *,
    reset: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> KernelCall:
    """A live launch as JSON, for another process to benchmark later (``Store.note_request``).

    Tensors of floating-point numbers and of 8-bit integers are made up again from their shapes, strides
    and dtypes. Other integers and booleans say what a kernel reads and skips, so their values are kept;
    of more than 4,096 of them nothing is made up.

    Args:
        kernel: The ``triton.jit`` function, decorated further or not.
        arguments: Values by name, without those of the configuration.
        launches: ``(configuration, grid, further constants)`` of each candidate.
        reset: Tensors that are set back before every launch.
        outputs: Tensors that are compared with those of the first configuration that works.

    Raises:
        NotRepeatableError: The kernel is not at the top level of a file, or an argument cannot be made
            again.
    """
    function = unwrap(kernel)
    file = inspect.getsourcefile(function.fn)
    if file is None or file.startswith("<") or "<locals>" in function.fn.__qualname__:
        raise NotRepeatableError("the kernel does not stand at the top level of a file")
    try:
        sha256 = file_sha256(file)
    except OSError as error:
        raise NotRepeatableError(f"the kernel's file cannot be read: {error}") from None
    return KernelCall(
        file=os.path.abspath(file),
        function=function.fn.__qualname__,
        module=function.fn.__module__,
        args={n: _noted(n, v, seed) for seed, (n, v) in enumerate(arguments.items())},
        grid=(),
        reset=tuple(reset),
        outputs=tuple(outputs),
        launches=[
            {
                "config": dict(config),
                "grid": [int(n) for n in grid],
                "constants": {name: _encoded(name, value) for name, value in constants.items()},
            }
            for config, grid, constants in launches
        ],
        source_key=getattr(function, "cache_key", ""),
        sha256=sha256,
    )


def _encoded(name: str, value: Any) -> Any:
    from .capture import encode_value

    try:
        return encode_value(value)
    except TypeError:
        raise NotRepeatableError(
            f"{name}: a {type(value).__name__} cannot be made again from JSON"
        ) from None


def _noted(name: str, value: Any, seed: int) -> Any:
    if not (hasattr(value, "data_ptr") and hasattr(value, "stride")):
        return _encoded(name, value)
    names = {torch_name: name for name, torch_name in DTYPES.items()}
    dtype = names.get(str(value.dtype).removeprefix("torch."))
    if dtype is None:
        raise NotRepeatableError(f"{name}: tensors of {value.dtype} cannot be made again")
    noted = {
        "dtype": dtype,
        "shape": list(value.shape),
        "strides": list(value.stride()),
        "align": math.gcd(value.data_ptr(), 16),
        "seed": seed,
    }
    if value.dtype.is_floating_point or not value.numel():
        return noted
    if value.numel() <= _SMALL_TENSOR:
        return {**noted, "values": value.reshape(-1).tolist()}
    if dtype in DATA_ONLY:
        low = -128 if dtype == "i8" else 0
        return {**noted, "fill": "randint", "low": low, "high": low + 256}
    raise NotRepeatableError(
        f"{name}: the values of {value.numel():,} elements of {value.dtype} say what the kernel reads, "
        f"and only up to {_SMALL_TENSOR:,} are kept"
    )


def _evaluate(node: ast.AST, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluate(node.left, names), _evaluate(node.right, names)
        if isinstance(node.op, ast.Pow) and abs(right) > 64:
            raise ValueError(f"the exponent {right} is too large for a grid")
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_evaluate(node.operand, names))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _FUNCTIONS[node.func.id](*(_evaluate(arg, names) for arg in node.args))
    raise ValueError(f"a grid cannot contain {ast.unparse(node)!r}")


def _scramble(tensor: Any) -> None:
    import torch

    if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
        tensor.fill_(float("nan"))
    elif tensor.dtype is not torch.bool:
        tensor.fill_(torch.iinfo(tensor.dtype).max)
