"""Kernels of a file for devices that are not here: which there are, what to rank, what to compile."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import triton.language as tl
from triton.backends import backends

from autotune_rlm.config_space import TRITON_OPTIONS, ConfigSpace
from autotune_rlm.devices import parse_target
from autotune_rlm.integrations.triton._arguments import default_arguments, last_strides, uses_of
from autotune_rlm.integrations.triton.task import KernelTasks, candidates_of
from autotune_rlm.ir import Launch, as_grid
from autotune_rlm.measure.triton.capture import describe_call
from autotune_rlm.measure.triton.compile import CompileSpec
from autotune_rlm.measure.triton.kernel_call import DTYPES, evaluate_grid
from autotune_rlm.measure.triton.layers import heuristics_of, unwrap, with_heuristics
from autotune_rlm.types import Candidate, Device, Task

from .discover import autotuner_of, import_file, import_module, module_of

_TENSOR = re.compile(r"\*?(\w+)(?:\[([\d\s,]*)\])?")
_WORDS = {"true": True, "false": False, "none": None}
_SOME_STRIDE = 4096


@dataclass(frozen=True)
class OfflineKernel:
    """A kernel and its configurations."""

    kernel: Any  # the ``@triton.jit`` function, decorated or not
    candidates: list[Candidate]  # payloads are ``triton.Config``
    key: tuple[str, ...] = ()  # names of the arguments that its autotuner's choice depends on

    @classmethod
    def of(cls, kernel: Any, space: ConfigSpace | None = None) -> OfflineKernel:
        """A decorated kernel with its autotuner's configurations, or those of ``space``."""
        autotuner = autotuner_of(kernel)
        own = autotuner.configs if autotuner is not None else ()
        configs = space.to_triton() if space is not None else own
        key = tuple(autotuner.keys) if autotuner is not None else ()
        return cls(kernel, candidates_of(configs), key)

    @property
    def name(self) -> str:
        """The kernel's name."""
        return str(unwrap(self.kernel).fn.__name__)

    @property
    def module(self) -> str:
        """The module that defines it."""
        return module_of(unwrap(self.kernel).fn)

    @property
    def argument_names(self) -> list[str]:
        """The arguments that no configuration sets."""
        taken = {name for c in self.candidates for name in c.payload.kwargs}
        return [name for name in unwrap(self.kernel).arg_names if name not in taken]

    @property
    def given_names(self) -> list[str]:
        """The arguments that neither a configuration nor a heuristic sets."""
        added = {name for values in heuristics_of(self.kernel) for name in values}
        return [name for name in self.argument_names if name not in added]

    def default_problem(self, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Every argument that nothing else sets: as given, else as the kernel's text suggests.

        ``given`` may have ``"dtype"``, for the tensors; what the kernel has not is left out.
        """
        given = dict(given or {})
        names = self.given_names
        guessed = default_arguments(self.kernel, names, given.get("dtype", "fp16"))
        return {**guessed, **{n: v for n, v in given.items() if n in names}}

    def task(
        self, problem: Mapping[str, Any], device: Device, *, grid: Sequence[int] | None = None
    ) -> Task:
        """The task of a problem (ValueError where it names no argument of the kernel) on a device."""
        unknown = [n for n in problem if n not in self.argument_names and n != "dtype"]
        if unknown:
            raise ValueError(
                f"--problem names {', '.join(unknown)}, which {self.name} has "
                f"not; its arguments are {', '.join(self.argument_names)} (and dtype, for all tensors)"
            )
        names = {name for c in self.candidates for name in c.payload.kwargs}
        whole = problem if grid is None else {**problem, "grid": list(grid)}
        return KernelTasks(self.kernel, names, key=self.key).of_problem(whole, device)

    def launches(
        self, problem: Mapping[str, Any], *, grid: Sequence[str] = ()
    ) -> Callable[[Candidate], Launch]:
        """Gives the launch of a candidate as the compiler's eye reads it; guesses a missing grid."""
        arguments = self.arguments(problem)
        tensors = {name: v for name, v in problem.items() if isinstance(v, Mapping)}
        for name, value in arguments.items():
            if name not in problem and hasattr(value, "dtype") and hasattr(value, "stride"):
                tensors[name] = {"dtype": value.dtype}  # of no known shape

        def launch(candidate: Candidate) -> Launch:
            config = candidate.payload
            given = with_heuristics(self.kernel, {**arguments, **config.all_kwargs()})
            found = as_grid(evaluate_grid(grid, given), given) if grid else None
            return Launch({**given, **tensors}, found, config.num_warps, config.num_stages)

        return launch

    def spec(self, problem: Mapping[str, Any], device: Device, candidate: Candidate) -> CompileSpec:
        """What to compile for ``candidate``; the arguments are those of ``arguments``."""
        if not device.target:
            raise ValueError(
                f"nothing is known of {device.name!r} to compile for; give --target, such as sm_90"
            )
        limit = device.max_shared_kb_per_block
        given = {**self.arguments(problem), **candidate.payload.all_kwargs()}
        spec = describe_call(
            unwrap(self.kernel),
            (),
            with_heuristics(self.kernel, given),
            target=parse_target(device.target),
            max_shared_bytes=None if limit is None else int(limit * 1024),
        )
        if spec is None:
            raise ValueError(
                "cannot compile a kernel that is defined inside of a function; move it to the top "
                "level of its file"
            )
        return spec

    def arguments(
        self, problem: Mapping[str, Any], *, assumed: list[str] | None = None
    ) -> dict[str, Any]:
        """Values of all arguments that no configuration and no heuristic sets.

        Tensors without a shape are aligned. Strides that are not given are multiples of 16, and 1
        for the last one of a tensor (``stride_ak`` after ``stride_am``). ``assumed`` takes a phrase for
        each argument that was not given.

        Raises:
            ValueError: ``problem`` lacks sizes or constants, and the message names all of them; or a
                value is of no kind that the argument can be.
        """
        jit = unwrap(self.kernel)
        parameters = inspect.signature(jit.fn).parameters
        uses = uses_of(jit)
        pointers = uses.pointers | {n for n in self.given_names if "ptr" in n.lower()}
        contiguous = last_strides(self.argument_names)
        assumed = [] if assumed is None else assumed
        found: dict[str, Any] = {}
        lacking: list[str] = []
        for name in self.given_names:
            default = parameters[name].default
            is_constant = "constexpr" in str(parameters[name].annotation)
            if name in uses.dtypes and problem.get(name) in DTYPES:
                found[name] = getattr(tl, DTYPES[problem[name]])
            elif name in problem:
                if isinstance(problem[name], str) and not is_constant:
                    raise ValueError(
                        f"--problem gives {name}={problem[name]}, which is no number; a tensor looks "
                        "like fp16[64,128], a pointer like *fp16"
                    )
                found[name] = _live(problem[name])
            elif default is not inspect.Parameter.empty:
                found[name] = default
            elif name.lower().startswith("stride") and not is_constant:
                found[name] = 1 if name in contiguous else _SOME_STRIDE
                assumed.append(f"{name}={found[name]}")
            elif name in pointers and not is_constant and "dtype" in problem:
                kind = "i32" if name in uses.integers else problem["dtype"]
                found[name] = _live({"dtype": kind})
                assumed.append(f"{name}=*{kind}")
            else:
                lacking.append(name)
        if lacking:
            tensors = [n for n in lacking if n in pointers]
            asked = [f"{name}=VALUE" for name in lacking if name not in tensors]
            if tensors:
                asked.append(f"dtype=fp16 for the tensors (or {tensors[0]}=fp16[4096,4096])")
            raise ValueError(
                f"--problem lacks {', '.join(lacking)}; add {', '.join(asked)}, or give --guess for "
                "values as the kernel's text suggests them"
            )
        return found


def _known_names(jit: Any) -> set[str]:
    """What a configuration of a kernel may set: arguments, and options of Triton's backends."""
    names = {*jit.arg_names, *TRITON_OPTIONS}
    for backend in backends.values():
        module = inspect.getmodule(backend.compiler)
        options = (v for n, v in vars(module).items() if n.endswith("Options"))
        names |= {f.name for kind in options if is_dataclass(kind) for f in fields(kind)}
    return names


def load_file(where: str, space: ConfigSpace | None = None) -> OfflineKernel:
    """The kernel that ``FILE.py:NAME`` or ``package.module:NAME`` means; ``space`` replaces its own.

    The name is a ``@triton.jit`` function, decorated or not, or an object with such a function as ``fn``
    and a ``ConfigSpace`` as ``space``.

    Raises:
        ValueError: There is no such file, no such kernel in it, or no configuration of it.
    """
    file, _, name = where.rpartition(":")
    path = Path(file)
    if file and path.is_file():
        module = import_file(path)
    elif not file.endswith(".py") and all(part.isidentifier() for part in file.split(".")):
        module = import_module(file)
    else:
        raise ValueError(f"expected FILE.py:KERNEL with a file that exists, got {where!r}")
    found = vars(module).get(name)
    own = getattr(found, "space", None)
    if isinstance(own, ConfigSpace):
        found = found.fn
    if not _is_kernel(found):
        kernels = sorted(n for n, value in vars(module).items() if _is_kernel(value))
        raise ValueError(f"{file} has no kernel {name!r}; it has {', '.join(kernels) or 'none'}")
    loaded = OfflineKernel.of(found, space or own)
    unknown = sorted(set(space.parameters if space else ()) - _known_names(unwrap(found)))
    if unknown:
        raise ValueError(
            f"--configs names {', '.join(unknown)}, which is no argument of {name} and no option of "
            f"Triton; its arguments are {', '.join(unwrap(found).arg_names)}"
        )
    if not loaded.candidates:
        raise ValueError(
            f"{name} has no configurations: it is under no autotuner; give them, as in "
            '--configs "BLOCK=64,128; num_warps=4,8"'
        )
    return loaded


def parse_problem(text: str) -> dict[str, Any]:
    """``"M=4096,eps=1e-5,x=fp16[64,128],dtype=fp16"`` as a dictionary; ValueError for others."""
    problem: dict[str, Any] = {}
    for entry in re.split(r",(?![^\[]*\])", text):
        name, equals, value = (part.strip() for part in entry.partition("="))
        if not entry.strip():
            continue
        if not equals or not name.isidentifier() or not value:
            raise ValueError(f"--problem takes NAME=VALUE,NAME=VALUE,..., got {entry.strip()!r}")
        problem[name] = value if name == "dtype" else _value(name, value)
    dtype = problem.get("dtype", "fp16")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    return problem


def parse_space(text: str) -> ConfigSpace:
    """``"BLOCK=64,128; num_warps=4,8"`` as a ``ConfigSpace``; ValueError for others."""
    parameters: dict[str, Any] = {}
    for entry in filter(str.strip, text.split(";")):
        name, equals, values = (part.strip() for part in entry.partition("="))
        if not equals or not name.isidentifier():
            raise ValueError(f"--configs takes NAME=VALUE,VALUE; NAME=..., got {entry.strip()!r}")
        parameters[name] = [_value(name, v.strip()) for v in values.split(",")]
    return ConfigSpace(**parameters)


def _value(name: str, text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:  # noqa: PERF203
            continue
    tensor = _TENSOR.fullmatch(text)
    if tensor and tensor[1] in DTYPES and (tensor[2] is not None or text.startswith("*")):
        shape = [int(n) for n in (tensor[2] or "").split(",") if n.strip()]
        described: dict[str, Any] = {"dtype": tensor[1], "align": 16}
        if shape:
            strides = [math.prod(shape[i:]) for i in range(1, len(shape) + 1)]
            described |= {"shape": shape, "strides": strides}
        return described
    if "[" in text:
        raise ValueError(
            f"{name}={text}: a tensor looks like fp16[64,128], with one of {[*DTYPES]}"
        )
    return text


def _live(value: Any) -> Any:
    """A meta tensor for the description of a tensor; other values as they are."""
    if not isinstance(value, Mapping):
        return value
    import torch

    dtype = getattr(torch, DTYPES[value["dtype"]])
    return torch.empty(value.get("shape", [1]), dtype=dtype, device="meta")


def _is_kernel(value: Any) -> bool:
    try:
        return hasattr(unwrap(value), "arg_names")
    except TypeError:
        return False
