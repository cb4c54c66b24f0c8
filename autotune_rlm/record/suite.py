"""Kernels to record: what a suite's module gives, and how a folder of such modules is loaded.

A suite is a folder of Python files. Each file that does not begin with an underscore defines
``KERNEL`` (a :class:`SuiteKernel`) or ``KERNELS`` (several).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from autotune_rlm._files import run_file
from autotune_rlm.config_space import ConfigSpace
from autotune_rlm.dtypes import TORCH_NAMES
from autotune_rlm.measure.interpreter import interpreting
from autotune_rlm.types import digest

Problem = Mapping[str, Any]

_TOLERANCES = {"fp32": (2e-2, 2e-2), "fp16": (2e-2, 2e-2), "bf16": (5e-2, 5e-2)}


def torch_dtype(name: str) -> Any:
    """The torch dtype of a problem's ``dtype``, such as ``"fp16"``."""
    if name not in TORCH_NAMES:
        raise ValueError(f"dtype must be one of {sorted(TORCH_NAMES)}, got {name!r}")
    return getattr(torch, TORCH_NAMES[name])


def tolerance_by_dtype(problem: Problem) -> tuple[float, float]:
    """``(rtol, atol)`` for outputs of magnitude one; fp32 allows for TF32 matrix products."""
    return _TOLERANCES.get(problem.get("dtype", "fp32"), (2e-2, 2e-2))


def random_normal(
    shape: Sequence[int], dtype: str, device: str, generator: Any, *, scale: float = 1.0
) -> Any:
    """A tensor of normal values times ``scale``; on the ``meta`` device only its shape."""
    target = torch_dtype(dtype)
    if device == "meta":
        return torch.empty(tuple(shape), dtype=target, device=device)
    values = torch.randn(tuple(shape), device=device, generator=generator)
    return (values * scale).to(target)


def random_ints(
    low: int, high: int, shape: Sequence[int], dtype: str, device: str, generator: Any
) -> Any:
    """A tensor of integers in ``[low, high)``; on the ``meta`` device only its shape."""
    target = torch_dtype(dtype)
    if device == "meta":
        return torch.empty(tuple(shape), dtype=target, device=device)
    return torch.randint(low, high, tuple(shape), device=device, generator=generator).to(target)


def resized(problems: Sequence[Problem], name: str, factor: float) -> tuple[Problem, ...]:
    """The problems, and each once more with the size ``name`` multiplied by ``factor``.

    A size that is no constant of the kernel costs no further compilation.
    """
    found = [dict(problem) for problem in problems]
    for problem in problems:
        other = {**problem, name: max(1, int(problem[name] * factor))}
        if other not in found:
            found.append(other)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class SuiteKernel:
    """One kernel with its configurations, its problems and the truth about its results.

    Attributes:
        fn: The ``@triton.jit`` function.
        space: The configurations; a configuration's entries are passed to the kernel by name,
            ``num_warps``, ``num_stages`` and other options of the compiler among them.
        problems: Realistic sizes and dtypes, from small to large.
        small: Tiny ones that Triton's interpreter runs in a moment.
        make_args: ``(problem, device, generator)`` to the kernel's arguments by name; on the
            ``meta`` device without values.
        grid: The launch grid from all arguments by name, the configuration's among them.
        reference: Expected outputs by argument name, from the arguments before the launch.
        tolerance: ``(rtol, atol)`` of a problem's outputs.
        reset: Arguments that must be zero before every launch.
        min_cuda: Smallest compute capability that has what the kernel needs, such as 89 for fp8.
        hip: Whether AMD targets have what the kernel needs.
    """

    fn: Any
    space: ConfigSpace
    problems: tuple[Problem, ...]
    small: tuple[Problem, ...]
    make_args: Callable[[Problem, str, Any], dict[str, Any]]
    grid: Callable[[Mapping[str, Any]], tuple[int, ...]]
    reference: Callable[[Mapping[str, Any]], dict[str, Any]]
    tolerance: Callable[[Problem], tuple[float, float]] = tolerance_by_dtype
    reset: tuple[str, ...] = ()
    min_cuda: int = 0
    hip: bool = True

    @property
    def name(self) -> str:
        """The kernel's name: that of its function."""
        return self.fn.__name__

    def supports(self, target: tuple[str, int | str]) -> bool:
        """Whether ``target``, such as ``("cuda", 90)`` or ``("hip", "gfx942")``, can run it."""
        backend, arch = target
        return int(arch) >= self.min_cuda if backend == "cuda" else self.hip

    def launch(self, args: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
        """Run the kernel once on ``args``."""
        return self.fn[self.grid({**args, **config})](**args, **config)

    def clear(self, args: Mapping[str, Any]) -> None:
        """Zero the arguments that the kernel adds to."""
        for name in self.reset:
            args[name].zero_()

    def check(
        self, args: Mapping[str, Any], expected: Mapping[str, Any], problem: Problem
    ) -> str | None:
        """None where the outputs in ``args`` agree with ``expected``, else one line of reason."""
        rtol, atol = self.tolerance(problem)
        for name, want in expected.items():
            got, want = args[name].float(), want.float()
            close = torch.isclose(got, want, rtol=rtol, atol=atol, equal_nan=True)
            if not bool(close.all()):
                share = 1.0 - close.float().mean().item()
                worst = (got - want).abs().nan_to_num(float("inf")).max().item()
                return f"{name}: {share:.2%} of the elements differ, by up to {worst:.3g}"
        return None


def binary_class(kernel: SuiteKernel, args: Mapping[str, Any]) -> str:
    """Two sets of arguments with the same answer share one binary per configuration.

    Triton compiles anew for another dtype, alignment, divisibility by 16, value of one, or value
    of a constant argument.
    """
    constants = {kernel.fn.arg_names[i] for i in getattr(kernel.fn, "constexprs", ())}

    def kind(name: str, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return [str(value.dtype), value.data_ptr() % 16 == 0]
        if name in constants or isinstance(value, (bool, str)):
            return repr(value)
        if isinstance(value, float):
            return "float"
        return ["int", value == 1, value % 16 == 0, -(2**31) <= value < 2**31]

    return digest([[name, kind(name, value)] for name, value in args.items()])


def find_suite(suite: str | Path = "all") -> Path:
    """The folder of a suite: ``"all"`` for the one in the project's checkout, or a path that is there."""
    if str(suite) == "all":
        folder = Path(__file__).resolve().parents[2] / "benchmarks" / "kernels"
        if not folder.is_dir():
            raise FileNotFoundError(
                "suite 'all' is the folder benchmarks/kernels of the project's checkout, and there is "
                f"none at {folder}; give the path of a folder of suite modules instead"
            )
        return folder
    folder = Path(suite).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"suite must be 'all' or a folder, and {folder} is none")
    return folder


def load_suite(suite: str | Path = "all", *, only: Sequence[str] = ()) -> dict[str, SuiteKernel]:
    """The kernels of a suite (``"all"`` or a folder) by name, in the order of their files.

    Importing a suite runs its files; give only folders that you trust. Without ``only`` all are kept.

    Raises:
        FileNotFoundError: There is no such folder, or no suite module in it.
        ValueError: A module defines no kernel, two have one name, or ``only`` names none there is.
    """
    folder = find_suite(suite)
    files = sorted(f for f in folder.glob("*.py") if not f.name.startswith("_"))
    if not files:
        raise FileNotFoundError(f"no suite modules (*.py without a leading underscore) in {folder}")
    kernels: dict[str, SuiteKernel] = {}
    for file in files:
        for kernel in _kernels_of(_load_module(file)):
            if kernel.name in kernels:
                raise ValueError(f"two kernels of the suite {folder} are named {kernel.name!r}")
            kernels[kernel.name] = kernel
    unknown = sorted(set(only) - set(kernels))
    if unknown:
        raise ValueError(
            f"no kernel {', '.join(unknown)} in {folder}; there are {', '.join(sorted(kernels))}"
        )
    return {name: k for name, k in kernels.items() if not only or name in only}


def _load_module(file: Path) -> ModuleType:
    kind = "interpreted_suite" if interpreting() else "suite"  # decorating decides it for good
    name = f"autotune_rlm_{kind}_{digest(str(file.parent))[:8]}_{file.stem}"
    return sys.modules[name] if name in sys.modules else run_file(file, name)


def _kernels_of(module: ModuleType) -> Sequence[SuiteKernel]:
    kernels = getattr(module, "KERNELS", None) or [getattr(module, "KERNEL", None)]
    if any(not isinstance(k, SuiteKernel) for k in kernels):
        raise ValueError(
            f"{module.__file__} must define KERNEL, a SuiteKernel, or KERNELS, a list of them"
        )
    return list(kernels)
